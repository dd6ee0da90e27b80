"""The inputs of activities for one object; no plugin, so that the plugins may import it."""

from activities.clients.kube import KubeClient
from activities.clients.resources import NAMESPACES
from plattr.claims import Claim
from plattr.marks import Estate
from plattr.objects import Envelope, ObjectReference
from plattr.status import Finding
from plattr.steps import ClaimInput, CleanupStepInput, RolloutInput, StatusInput, StepInput

# How resources name the cluster of the tests.
CLUSTER = "tests"


def estate(reference: ObjectReference) -> Estate:
    """Return all that an object of the tests' cluster has."""
    return Estate(reference=reference, cluster=CLUSTER, namespace_uid=None)


async def at_home(kube: KubeClient, envelope: Envelope) -> Envelope:
    """Return an object as the activities see it: of the tests' cluster, and in its namespace."""
    namespace = await kube.get(NAMESPACES, envelope.metadata.namespace)
    assert namespace is not None
    return envelope.model_copy(update={"cluster": CLUSTER, "namespace_uid": namespace["metadata"]["uid"]})


def step_of(envelope: Envelope) -> StepInput:
    """Return a step's input for exactly this object."""
    metadata = envelope.metadata
    return StepInput(reference=envelope.reference, uid=metadata.uid, generation=metadata.generation)


def rollout_of(step: StepInput, said: Finding | None = None) -> RolloutInput:
    """Return the rollout's input for the object of a step."""
    return RolloutInput(reference=step.reference, uid=step.uid, generation=step.generation, said=said)


def status_of(envelope: Envelope, **changes: object) -> StatusInput:
    """Return a status input for exactly this object."""
    metadata = envelope.metadata
    status = StatusInput(reference=envelope.reference, uid=metadata.uid, generation=metadata.generation)
    return status.model_copy(update=changes)


def claim_of(envelope: Envelope) -> ClaimInput:
    """Return the claim step's input for this object."""
    return ClaimInput(reference=envelope.reference)


def cleanup_of(envelope: Envelope, *outliving: Claim, retain: bool = False) -> CleanupStepInput:
    """Return a cleanup step's input for exactly this object."""
    return CleanupStepInput(reference=envelope.reference, uid=envelope.metadata.uid, retain=retain, outliving=outliving)
