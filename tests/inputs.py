"""The inputs of activities for one object; no plugin, so that the plugins may import it."""

from plattr.claims import Claim
from plattr.objects import Envelope
from plattr.status import Finding
from plattr.steps import CleanupStepInput, RolloutInput, StatusInput, StepInput


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


def cleanup_of(envelope: Envelope, *outliving: Claim, retain: bool = False) -> CleanupStepInput:
    """Return a cleanup step's input for exactly this object."""
    return CleanupStepInput(reference=envelope.reference, uid=envelope.metadata.uid, retain=retain, outliving=outliving)
