"""The last step of a run: write what is known into the object's status, and what went wrong into Events."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from temporalio import activity

from activities.loading import TargetLoader
from activities.observation import observed
from clients.concurrency import all_of
from clients.events import EventRecorder
from clients.kube import KubeClient
from clients.resources import Json, custom_resource
from plattr.errors import InvalidSpec, ParentNotFound, Superseded
from plattr.features import ConditionType
from plattr.objects import CustomObject, Kind
from plattr.probes import UNHEALTHY_REASON
from plattr.spec import preview_ttl
from plattr.status import (
    INFORMATIVE,
    SUMMARY,
    Condition,
    ConditionUpdate,
    Phase,
    derive_phase,
    merge_conditions,
    summary,
)
from plattr.steps import StatusInput, StatusResult
from plattr.target import Target
from plattr.ttl import expires_at


class StatusActivities:
    """Write the status of an object."""

    def __init__(self, kube: KubeClient, events: EventRecorder, loader: TargetLoader) -> None:
        self._kube = kube
        self._events = events
        self._loader = loader

    @activity.defn
    async def write_status(self, status: StatusInput) -> StatusResult:
        """Write conditions, phase, url and the observed generation; write nothing if the status holds them already.

        This also works for an object that was refused. Conditions that the run could not check then stay as they are.

        Raises:
            Superseded: the object is being deleted, is paused, was created again, or has a newer spec.
            Conflict: the object changed during this attempt.
        """
        resource, reference = custom_resource(status.reference.kind), status.reference
        body = await self._kube.get(resource, reference.name, reference.namespace)
        if body is None:
            return StatusResult(phase=Phase.TERMINATING, is_written=False)
        custom_object = CustomObject.from_api(reference.kind, body)
        _ensure_current(status, custom_object)
        if status.is_underway and custom_object.is_settled and not _is_alarming(status.updates):
            # A resync met an autoscaler at work. What ran before still runs.
            return StatusResult(phase=Phase.RUNNING, is_written=False)
        target = await self._target_of(custom_object)
        updates = await observed(self._kube, target, status.updates) if target else status.updates

        old = conditions_of(custom_object)
        untouched = _untouched(status, old, updates)
        updates += _not_reached(status, old, updates)
        summed = summary(
            [*updates, *(_as_update(condition) for condition in untouched)],
            retries_exhausted=status.retries_exhausted,
            is_refused=status.is_refused,
        )
        updates = (*(update for update in updates if update.type not in SUMMARY), *summed)
        phase = derive_phase(summed, retries_exhausted=status.retries_exhausted)
        wanted = with_conditions(
            {
                **custom_object.status,
                "phase": str(phase),
                "observedGeneration": custom_object.metadata.generation,
                **_addresses(custom_object, target, updates),
            },
            old,
            updates,
            generation=custom_object.metadata.generation,
            untouched=untouched,
        )
        if wanted == custom_object.status:
            return StatusResult(phase=phase, is_written=False)
        # Record the Events together with the status. After the status write, no attempt can tell that these are new.
        told = self._tell(custom_object, old, _to_tell(status, updates), phase)
        await all_of((told, self._kube.replace_status(resource, {**body, "status": wanted}, reference.namespace)))
        return StatusResult(phase=phase, is_written=True)

    async def _target_of(self, custom_object: CustomObject) -> Target | None:
        """Return what the object asks for; None when the object is refused, in which case the updates say why."""
        try:
            return await self._loader.target_of(custom_object)
        except (InvalidSpec, ParentNotFound):
            return None

    async def _tell(
        self, custom_object: CustomObject, old: Sequence[Condition], updates: Sequence[ConditionUpdate], phase: Phase
    ) -> None:
        for update in _news(old, updates):
            if update.status == "False":
                await self._events.record(
                    custom_object.owner, kind_of="Warning", reason=update.reason, message=update.message
                )
        if phase is Phase.RUNNING and custom_object.phase != Phase.RUNNING:
            await self._events.record(
                custom_object.owner,
                kind_of="Normal",
                reason="Provisioned",
                message=f"generation {custom_object.metadata.generation} is running",
            )


def conditions_of(custom_object: CustomObject) -> tuple[Condition, ...]:
    """Return the conditions in the status, without those that only another version of Plattr knows."""
    known = {str(kind) for kind in ConditionType}
    return tuple(
        Condition.model_validate({"observedGeneration": 0, **condition})
        for condition in custom_object.conditions
        if condition["type"] in known
    )


def with_conditions(
    status: Json,
    old: Sequence[Condition],
    updates: Sequence[ConditionUpdate],
    *,
    generation: int,
    untouched: Iterable[Condition] = (),
) -> Json:
    """Return a status with the updates merged into its conditions, in the order of ConditionType."""
    now = datetime.now(UTC).replace(microsecond=0)
    merged = [*merge_conditions(old, updates, generation=generation, now=now), *untouched]
    order = list(ConditionType)
    merged.sort(key=lambda condition: order.index(condition.type))
    return {**status, "conditions": [condition.model_dump(mode="json", by_alias=True) for condition in merged]}


def with_summary(
    status: Json, old: Sequence[Condition], updates: Sequence[ConditionUpdate], *, generation: int
) -> Json:
    """Return a status in which only the summary conditions are new."""
    untouched = [condition for condition in old if condition.type not in SUMMARY]
    return with_conditions(status, old, updates, generation=generation, untouched=untouched)


def _ensure_current(status: StatusInput, custom_object: CustomObject) -> None:
    metadata = custom_object.metadata
    if custom_object.is_deleting:
        raise Superseded(f"cannot write the status of {status.reference}: it is being deleted")
    if status.uid not in ("", metadata.uid):
        raise Superseded(f"cannot write the status of {status.reference}: it was created again")
    if custom_object.is_paused:
        raise Superseded(f"cannot write the status of {status.reference}: it is paused")
    if status.generation not in (0, metadata.generation):
        raise Superseded(
            f"cannot write the status of generation {status.generation} of {status.reference}:"
            f" generation {metadata.generation} is newer"
        )


def _untouched(
    status: StatusInput, old: Sequence[Condition], updates: Sequence[ConditionUpdate]
) -> tuple[Condition, ...]:
    """Return the conditions about which this run learned nothing."""
    named = {update.type for update in updates}
    # Other activities set and remove the informative conditions.
    kept = set(status.unreached) | INFORMATIVE
    if not status.uid:
        # The object was refused before its steps were known. What ran before keeps running.
        kept = set(ConditionType) - SUMMARY
    return tuple(condition for condition in old if condition.type in kept - named)


def _is_alarming(updates: Sequence[ConditionUpdate]) -> bool:
    return any(update.status == "False" or update.reason == UNHEALTHY_REASON for update in updates)


def _to_tell(status: StatusInput, updates: Sequence[ConditionUpdate]) -> Sequence[ConditionUpdate]:
    """Return the updates that need an Event; a rollout in progress needs none, because most rollouts succeed."""
    if not status.is_underway:
        return updates
    return [update for update in updates if update.type not in (ConditionType.DEPLOYMENT, ConditionType.READY)]


def _news(old: Sequence[Condition], updates: Sequence[ConditionUpdate]) -> list[ConditionUpdate]:
    """Return the updates that are new to the status, without a Ready that only repeats another condition."""
    before = {condition.type: _as_update(condition) for condition in old}
    own = [update for update in updates if update.type not in INFORMATIVE | SUMMARY]
    said = {(update.reason, update.message) for update in own}
    whole = [
        update
        for update in updates
        if update.type is ConditionType.READY
        and (update.reason, update.message) not in said
        and not any(each.status == update.status for each in own)
    ]
    return [update for update in [*own, *whole] if before.get(update.type) != update]


def _not_reached(
    status: StatusInput, old: Sequence[Condition], updates: Sequence[ConditionUpdate]
) -> tuple[ConditionUpdate, ...]:
    """Return a waiting update for each condition that no run has reached yet."""
    known = {update.type for update in updates} | {condition.type for condition in old}
    return tuple(
        ConditionUpdate(type=kind, status="Unknown", reason="Waiting", message="a step before it has to succeed first")
        for kind in status.unreached
        if kind not in known
    )


def _addresses(custom_object: CustomObject, target: Target | None, updates: Sequence[ConditionUpdate]) -> Json:
    """Return url, namespace and end for the status; the url only when its Ingress is ready."""
    addresses: Json = _end(custom_object)
    if target is None:
        return addresses
    if any(update.type is ConditionType.INGRESS and update.status == "True" for update in updates):
        addresses["url"] = target.names.url
    if target.is_preview:
        addresses["namespace"] = target.names.namespace
    return addresses


def _end(custom_object: CustomObject) -> Json:
    """Return when a preview ends; it also ends when it is refused or its parent is missing."""
    if custom_object.kind is not Kind.PREVIEW:
        return {}
    try:
        end = expires_at(custom_object.metadata.creation_timestamp, preview_ttl(custom_object.spec))
    except InvalidSpec:
        return {}
    return {"expiresAt": end.isoformat().replace("+00:00", "Z")}


def _as_update(condition: Condition) -> ConditionUpdate:
    return ConditionUpdate(
        type=condition.type, status=condition.status, reason=condition.reason, message=condition.message
    )
