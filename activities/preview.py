"""A preview's end: when it is, the warning before it, and the deletion of the object."""

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
    """Read and write the object; the workflow's durable timer does the waiting, and its clock decides."""

    def __init__(self, kube: KubeClient, events: EventRecorder, loader: TargetLoader) -> None:
        self._kube = kube
        self._events = events
        self._loader = loader

    @activity.defn
    async def read_lifetime(self, request: ClaimInput) -> PreviewLifetime:
        """Return until when the preview lives.

        Raises:
            InvalidSpec: its ttl breaks the rule; what else may be wrong with its spec is the claim's to say.
        """
        custom_object = await self._loader.read(request.reference)
        if custom_object is None:
            return PreviewLifetime(verdict="gone")
        # Before the pause: a paused object is deleted all the same.
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
        """Set the condition Expiring and record an Event; take it back when it is not due. The second run does nothing.

        Raises:
            Superseded: the end has moved since, or another object has the name: read it again.
            Conflict: the object changed under our hands.
        """
        custom_object = await self._current(request)
        message = _warning(request.expires_at)
        updates = [ConditionUpdate(type=ConditionType.EXPIRING, status="True", reason=EXPIRING_REASON, message=message)]
        wanted = _with_warning(custom_object, updates if request.is_due else [])
        if wanted == custom_object.status:
            return StepResult()
        if request.is_due:
            # Before the condition: with it written nobody would know any more that this is news.
            await self._events.record(custom_object.owner, kind_of="Warning", reason=EXPIRING_REASON, message=message)
        metadata = custom_object.metadata
        operations: list[Json] = [
            # What was read above is what is changed: a write in between fails here and is tried again.
            {"op": "test", "path": "/metadata/resourceVersion", "value": metadata.resource_version},
            {"op": "add", "path": "/status", "value": wanted},
        ]
        await self._kube.json_patch(PREVIEWS, metadata.name, operations, metadata.namespace, subresource="status")
        return StepResult()

    @activity.defn
    async def delete_expired(self, request: ExpiryInput) -> StepResult:
        """Delete the object, if it is still this incarnation; its finalizer holds it until the cleanup is done.

        Raises:
            Superseded: the end has moved since, or another object has the name: read it again.
            Conflict: another object took the name under our hands.
        """
        custom_object = await self._current(request)
        text = preview_ttl(custom_object.spec)
        message = f"its ttl of {text} was over at {_moment(request.expires_at)}"
        await self._kube.delete(PREVIEWS, request.reference.name, request.reference.namespace, uid=request.uid)
        # After it: the end must not come late because there is no place for an Event.
        await self._events.record(custom_object.owner, kind_of="Normal", reason=EXPIRED_REASON, message=message)
        return StepResult()

    async def _current(self, request: ExpiryInput) -> CustomObject:
        """Return the object while it is the one, with the end, that the run knows.

        The end is compared, not the time: this worker's clock may go behind the one that fired the timer.
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
        # The warning is the same whatever else of the spec has changed.
        generation = known.observed_generation
    return with_conditions(custom_object.status, old, updates, generation=generation, untouched=others)
