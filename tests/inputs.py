"""The inputs of activities for one object; no plugin, so that the plugins may import it."""

from clients.kube import KubeClient
from clients.resources import NAMESPACES
from plattr.claims import Claim
from plattr.marks import Estate
from plattr.objects import CustomObject, ObjectReference
from plattr.status import ConditionUpdate
from plattr.steps import ClaimInput, CleanupStepInput, RolloutInput, StatusInput, StepInput

# How resources name the cluster of the tests.
CLUSTER = "tests"


def estate(reference: ObjectReference) -> Estate:
    """Return all that an object of the tests' cluster has."""
    return Estate(reference=reference, cluster=CLUSTER, namespace_uid=None)


async def at_home(kube: KubeClient, custom_object: CustomObject) -> CustomObject:
    """Return an object as the activities see it: of the tests' cluster, and in its namespace."""
    namespace = await kube.get(NAMESPACES, custom_object.metadata.namespace)
    assert namespace is not None
    return custom_object.model_copy(update={"cluster": CLUSTER, "namespace_uid": namespace["metadata"]["uid"]})


def step_of(custom_object: CustomObject) -> StepInput:
    """Return a step's input for exactly this object."""
    metadata = custom_object.metadata
    return StepInput(reference=custom_object.reference, uid=metadata.uid, generation=metadata.generation)


def rollout_of(step: StepInput, said: ConditionUpdate | None = None) -> RolloutInput:
    """Return the rollout's input for the object of a step."""
    return RolloutInput(reference=step.reference, uid=step.uid, generation=step.generation, said=said)


def status_of(custom_object: CustomObject, **changes: object) -> StatusInput:
    """Return a status input for exactly this object."""
    metadata = custom_object.metadata
    status = StatusInput(reference=custom_object.reference, uid=metadata.uid, generation=metadata.generation)
    return status.model_copy(update=changes)


def claim_of(custom_object: CustomObject) -> ClaimInput:
    """Return the claim step's input for this object."""
    return ClaimInput(reference=custom_object.reference)


def cleanup_of(custom_object: CustomObject, *outliving: Claim, retain: bool = False) -> CleanupStepInput:
    """Return a cleanup step's input for exactly this object."""
    return CleanupStepInput(
        reference=custom_object.reference, uid=custom_object.metadata.uid, retain=retain, outliving=outliving
    )
