"""The end of a preview: its time, the warning before it, and the deletion of the object."""

from collections.abc import Sequence
from datetime import datetime

from temporalio import activity

from activities.loading import TargetLoader
from activities.status import conditions_of, with_conditions
from clients.events import EventRecorder
from clients.kube import KubeClient
from clients.resources import PREVIEWS, Json
from plattr import ttl
from plattr.errors import Superseded
from plattr.features import ConditionType
from plattr.objects import CustomObject
from plattr.spec import preview_ttl
from plattr.status import ConditionUpdate
from plattr.steps import ClaimInput, ExpiryInput, Lifetime, PreviewLifetime, StepResult

EXPIRING_REASON = "ExpiresSoon"
EXPIRED_REASON = "Expired"


class PreviewActivities:
    """Read and write the object; the workflow's durable timer waits, and the workflow's clock decides."""

    def __init__(self, kube: KubeClient, events: EventRecorder, loader: TargetLoader) -> None:
        self._kube = kube
        self._events = events
        self._loader = loader

    @activity.defn
    async def read_lifetime(self, request: ClaimInput) -> PreviewLifetime:
        """Return the end of the preview's lifetime.

        Raises:
            InvalidSpec: the ttl is invalid. The claim reports all other faults of the spec.
        """
        custom_object = await self._loader.read(request.reference)
        if custom_object is None:
            return PreviewLifetime(verdict="gone")
        # Check this before the pause, because a paused object can be deleted too.
        if custom_object.is_deleting:
            return PreviewLifetime(verdict="deleting")
        if custom_object.is_paused:
            return PreviewLifetime(verdict="paused")
        created, text = custom_object.metadata.creation_timestamp, preview_ttl(custom_object.spec)
        lifetime = Lifetime(
            uid=custom_object.metadata.uid,
            expires_at=ttl.expires_at(created, text),
            warn_at=ttl.warn_at(created, text),
        )
        said = [c.message for c in conditions_of(custom_object) if c.type is ConditionType.EXPIRING]
        if said:
            is_current = said == [_warning(lifetime.expires_at)]
            lifetime = lifetime.model_copy(update={"warning": "current" if is_current else "stale"})
        return PreviewLifetime(verdict="alive", lifetime=lifetime)

    @activity.defn
    async def warn_of_expiry(self, request: ExpiryInput) -> StepResult:
        """Set the condition Expiring and record an Event, or remove the condition when it is not due.

        A second run does nothing.

        Raises:
            Superseded: the end has moved, or another object has the name. The run has to read the object again.
            Conflict: the object changed during this attempt.
        """
        custom_object = await self._current(request)
        message = _warning(request.expires_at)
        updates = [ConditionUpdate(type=ConditionType.EXPIRING, status="True", reason=EXPIRING_REASON, message=message)]
        wanted = _with_warning(custom_object, updates if request.is_due else [])
        if wanted == custom_object.status:
            return StepResult()
        if request.is_due:
            # Record the Event before the condition: after the condition is written, no attempt can tell that it is new.
            await self._events.record(custom_object.owner, kind_of="Warning", reason=EXPIRING_REASON, message=message)
        metadata = custom_object.metadata
        operations: list[Json] = [
            # Change only the version that was read above. A write in between makes this fail, and it is retried.
            {"op": "test", "path": "/metadata/resourceVersion", "value": metadata.resource_version},
            {"op": "add", "path": "/status", "value": wanted},
        ]
        await self._kube.json_patch(PREVIEWS, metadata.name, operations, metadata.namespace, subresource="status")
        return StepResult()

    @activity.defn
    async def delete_expired(self, request: ExpiryInput) -> StepResult:
        """Delete the object if its uid is still the same; its finalizer holds it until the cleanup is done.

        Raises:
            Superseded: the end has moved, or another object has the name. The run has to read the object again.
            Conflict: another object took the name during this attempt.
        """
        custom_object = await self._current(request)
        text = preview_ttl(custom_object.spec)
        message = f"its ttl of {text} was over at {_moment(request.expires_at)}"
        await self._kube.delete(PREVIEWS, request.reference.name, request.reference.namespace, uid=request.uid)
        # Record the Event after the deletion. A failure to store the Event must not delay the end.
        await self._events.record(custom_object.owner, kind_of="Normal", reason=EXPIRED_REASON, message=message)
        return StepResult()

    async def _current(self, request: ExpiryInput) -> CustomObject:
        """Return the object if its uid and its end are still those that the run knows.

        The end is compared, not the time: this worker's clock may be behind the clock that fired the timer.
        """
        custom_object = await self._loader.read(request.reference)
        if (
            custom_object is None
            or custom_object.metadata.uid != request.uid
            or custom_object.is_deleting
            or custom_object.is_paused
        ):
            raise Superseded(f"cannot go on with {request.reference}: it is gone, paused, or another one")
        end = ttl.expires_at(custom_object.metadata.creation_timestamp, preview_ttl(custom_object.spec))
        if end != request.expires_at:
            raise Superseded(f"cannot go on with {request.reference}: it lives until {_moment(end)} now")
        return custom_object


def _warning(end: datetime) -> str:
    return f"ends at {_moment(end)} and is then deleted; raise spec.ttl to keep it longer"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _with_warning(custom_object: CustomObject, updates: Sequence[ConditionUpdate]) -> Json:
    """Return the status with exactly these updates about the end; every other condition stays as it is."""
    old = conditions_of(custom_object)
    generation = custom_object.metadata.generation
    others = [condition for condition in old if condition.type is not ConditionType.EXPIRING]
    known = next((condition for condition in old if condition.type is ConditionType.EXPIRING), None)
    if known is not None and updates and known.message == updates[0].message:
        # The warning is unchanged, so it keeps its generation, although the rest of the spec may have changed.
        generation = known.observed_generation
    return with_conditions(custom_object.status, old, updates, generation=generation, untouched=others)
