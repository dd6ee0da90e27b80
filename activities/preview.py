"""A preview's end: when it is, the warning before it, and the deletion of the object."""

from datetime import UTC, datetime

from temporalio import activity

from activities.clients.events import EventRecorder
from activities.clients.kube import KubeClient
from activities.clients.resources import PREVIEWS, Json
from activities.loading import TargetLoader
from plattr import ttl
from plattr.errors import Superseded
from plattr.objects import Envelope
from plattr.spec import parse_preview_spec
from plattr.status import Condition, ConditionType, Finding, merge_conditions
from plattr.steps import ClaimInput, ExpiryInput, PreviewTerms, StepResult

EXPIRING_REASON = "ExpiresSoon"


class PreviewActivities:
    """Reads the clock and the object; the workflow's durable timer does the waiting."""

    def __init__(self, kube: KubeClient, events: EventRecorder, loader: TargetLoader) -> None:
        self._kube = kube
        self._events = events
        self._loader = loader

    @activity.defn
    async def read_terms(self, request: ClaimInput) -> PreviewTerms:
        """Return until when the preview lives.

        Raises:
            InvalidSpec: its ttl, or another field, breaks a rule.
        """
        envelope = await self._loader.read(request.reference)
        if envelope is None:
            return PreviewTerms(verdict="gone")
        if envelope.is_deleting:
            return PreviewTerms(verdict="deleting", uid=envelope.metadata.uid)
        spec = parse_preview_spec(envelope.spec)
        created = envelope.metadata.creation_timestamp
        return PreviewTerms(
            verdict="alive",
            uid=envelope.metadata.uid,
            expires_at=ttl.expires_at(created, spec.ttl),
            warn_at=ttl.warn_at(created, spec.ttl),
            is_warned=_expiring(envelope) is not None,
        )

    @activity.defn
    async def warn_of_expiry(self, request: ExpiryInput) -> StepResult:
        """Set the condition Expiring and record an Event; take the condition back when the ttl has grown since."""
        envelope = await self._current(request)
        spec = parse_preview_spec(envelope.spec)
        created = envelope.metadata.creation_timestamp
        now = datetime.now(UTC)
        end = ttl.expires_at(created, spec.ttl)
        is_due = ttl.warn_at(created, spec.ttl) <= now
        if is_due is (_expiring(envelope) is not None):
            return StepResult()
        message = f"ends at {end:%Y-%m-%d %H:%M:%S} UTC and is then deleted; raise spec.ttl to keep it longer"
        kept = [Condition.model_validate(c) for c in envelope.status.get("conditions", [])]
        kept = [condition for condition in kept if condition.type is not ConditionType.EXPIRING]
        if is_due:
            finding = Finding(type=ConditionType.EXPIRING, status="True", reason=EXPIRING_REASON, message=message)
            kept += merge_conditions([], [finding], generation=envelope.metadata.generation, now=now)
        await self._write_conditions(envelope, kept)
        if is_due:
            await self._events.record(envelope.owner, kind_of="Warning", reason=EXPIRING_REASON, message=message)
        return StepResult()

    @activity.defn
    async def delete_expired(self, request: ExpiryInput) -> StepResult:
        """Delete the object, if it is still this incarnation; its finalizer holds it until the cleanup is done.

        Raises:
            Superseded: the ttl was raised since, or another object has the name: read it again.
        """
        envelope = await self._current(request)
        end = ttl.expires_at(envelope.metadata.creation_timestamp, parse_preview_spec(envelope.spec).ttl)
        if end > datetime.now(UTC):
            raise Superseded(f"cannot delete {request.reference}: it lives until {end:%Y-%m-%d %H:%M:%S} UTC now")
        await self._kube.delete(PREVIEWS, request.reference.name, request.reference.namespace, uid=request.uid)
        return StepResult()

    async def _current(self, request: ExpiryInput) -> Envelope:
        envelope = await self._loader.read(request.reference)
        if envelope is None or envelope.metadata.uid != request.uid or envelope.is_deleting:
            raise Superseded(f"cannot go on with {request.reference}: it is gone, or another one")
        return envelope

    async def _write_conditions(self, envelope: Envelope, conditions: list[Condition]) -> None:
        listed = [condition.model_dump(mode="json", by_alias=True) for condition in conditions]
        operations: list[Json] = [
            # What was read above is what is changed: a write in between fails here and is tried again.
            {"op": "test", "path": "/metadata/resourceVersion", "value": envelope.metadata.resource_version},
            {"op": "add", "path": "/status", "value": {**envelope.status, "conditions": listed}},
        ]
        name, namespace = envelope.metadata.name, envelope.metadata.namespace
        await self._kube.json_patch(PREVIEWS, name, operations, namespace, subresource="status")


def _expiring(envelope: Envelope) -> str | None:
    for condition in envelope.status.get("conditions", []):
        if condition.get("type") == ConditionType.EXPIRING:
            return str(condition.get("message", ""))
    return None
