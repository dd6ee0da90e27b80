"""The last step of a run: what is known goes into the object's status, and what went wrong into Events."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from temporalio import activity

from activities.clients.concurrency import all_of
from activities.clients.events import EventRecorder
from activities.clients.kube import KubeClient
from activities.clients.resources import Json, custom_resource
from activities.loading import TargetLoader
from activities.observation import observed
from plattr.errors import InvalidSpec, ParentNotFound, Superseded
from plattr.objects import Envelope, Kind
from plattr.probes import UNHEALTHY_REASON
from plattr.spec import preview_ttl
from plattr.status import (
    INFORMATIVE,
    SUMMARY,
    Condition,
    ConditionType,
    Finding,
    Phase,
    derive_phase,
    merge_conditions,
    summary,
)
from plattr.steps import StatusInput, StatusResult
from plattr.target import Target
from plattr.ttl import expires_at


class StatusActivities:
    """Keep the status true."""

    def __init__(self, kube: KubeClient, events: EventRecorder, loader: TargetLoader) -> None:
        self._kube = kube
        self._events = events
        self._loader = loader

    @activity.defn
    async def write_status(self, status: StatusInput) -> StatusResult:
        """Write conditions, phase, url and the generation they hold for; nothing when they say so already.

        Works for an object that was refused as well; then the conditions that the run could not look at stay.

        Raises:
            Superseded: the object is being deleted, is paused, was created anew, or has a newer spec.
            Conflict: the object changed under our hands.
        """
        resource, reference = custom_resource(status.reference.kind), status.reference
        body = await self._kube.get(resource, reference.name, reference.namespace)
        if body is None:
            return StatusResult(phase=Phase.TERMINATING, is_written=False)
        envelope = Envelope.from_api(reference.kind, body)
        _ensure_current(status, envelope)
        if status.is_underway and envelope.is_settled and not _is_alarming(status.findings):
            # An autoscaler at work, met by a resync: nothing that ran before has come to harm.
            return StatusResult(phase=Phase.RUNNING, is_written=False)
        target = await self._target_of(envelope)
        findings = await observed(self._kube, target, status.findings) if target else status.findings

        old = conditions_of(envelope)
        untouched = _untouched(status, old, findings)
        findings += _not_reached(status, old, findings)
        summed = summary(
            [*findings, *(_as_finding(condition) for condition in untouched)],
            gave_up=status.gave_up,
            is_refused=status.is_refused,
        )
        findings = (*(finding for finding in findings if finding.type not in SUMMARY), *summed)
        phase = derive_phase(summed, gave_up=status.gave_up)
        wanted = with_conditions(
            {
                **envelope.status,
                "phase": str(phase),
                "observedGeneration": envelope.metadata.generation,
                **_addresses(envelope, target, findings),
            },
            old,
            findings,
            generation=envelope.metadata.generation,
            untouched=untouched,
        )
        if wanted == envelope.status:
            return StatusResult(phase=phase, is_written=False)
        # With the status, not after it: once that is written nobody would know any more that these are news.
        told = self._tell(envelope, old, _to_tell(status, findings), phase)
        await all_of((told, self._kube.replace_status(resource, {**body, "status": wanted}, reference.namespace)))
        return StatusResult(phase=phase, is_written=True)

    async def _target_of(self, envelope: Envelope) -> Target | None:
        """Return what the object asks for; None when it is refused: the findings say why."""
        try:
            return await self._loader.target_of(envelope)
        except (InvalidSpec, ParentNotFound):
            return None

    async def _tell(
        self, envelope: Envelope, old: Sequence[Condition], findings: Sequence[Finding], phase: Phase
    ) -> None:
        for finding in _news(old, findings):
            if finding.status == "False":
                await self._events.record(
                    envelope.owner, kind_of="Warning", reason=finding.reason, message=finding.message
                )
        if phase is Phase.RUNNING and envelope.status.get("phase") != Phase.RUNNING:
            await self._events.record(
                envelope.owner,
                kind_of="Normal",
                reason="Provisioned",
                message=f"generation {envelope.metadata.generation} is running",
            )


def conditions_of(envelope: Envelope) -> tuple[Condition, ...]:
    """Return the conditions that the status holds; those of another version of Plattr are left out."""
    known = {str(kind) for kind in ConditionType}
    return tuple(
        Condition.model_validate({"observedGeneration": 0, **condition})
        for condition in envelope.status.get("conditions", [])
        if condition["type"] in known
    )


def with_conditions(
    status: Json,
    old: Sequence[Condition],
    findings: Sequence[Finding],
    *,
    generation: int,
    untouched: Iterable[Condition] = (),
) -> Json:
    """Return a status with the findings merged into its conditions, in the order of ConditionType."""
    now = datetime.now(UTC).replace(microsecond=0)
    merged = [*merge_conditions(old, findings, generation=generation, now=now), *untouched]
    order = list(ConditionType)
    merged.sort(key=lambda condition: order.index(condition.type))
    return {**status, "conditions": [condition.model_dump(mode="json", by_alias=True) for condition in merged]}


def with_summary(status: Json, old: Sequence[Condition], findings: Sequence[Finding], *, generation: int) -> Json:
    """Return a status with only the conditions that sum the others up made anew."""
    untouched = [condition for condition in old if condition.type not in SUMMARY]
    return with_conditions(status, old, findings, generation=generation, untouched=untouched)


def _ensure_current(status: StatusInput, envelope: Envelope) -> None:
    metadata = envelope.metadata
    if envelope.is_deleting:
        raise Superseded(f"cannot write the status of {status.reference}: it is being deleted")
    if status.uid not in ("", metadata.uid):
        raise Superseded(f"cannot write the status of {status.reference}: it was created anew")
    if envelope.is_paused:
        raise Superseded(f"cannot write the status of {status.reference}: it is paused")
    if status.generation not in (0, metadata.generation):
        raise Superseded(
            f"cannot write the status of generation {status.generation} of {status.reference}:"
            f" generation {metadata.generation} is newer"
        )


def _untouched(status: StatusInput, old: Sequence[Condition], findings: Sequence[Finding]) -> tuple[Condition, ...]:
    """Return the conditions of which this run learned nothing."""
    named = {finding.type for finding in findings}
    # Those that inform are others' to set and to take back.
    kept = set(status.unreached) | INFORMATIVE
    if not status.uid:
        # Refused before any step was known: what ran before runs on.
        kept = set(ConditionType) - SUMMARY
    return tuple(condition for condition in old if condition.type in kept - named)


def _is_alarming(findings: Sequence[Finding]) -> bool:
    return any(finding.status == "False" or finding.reason == UNHEALTHY_REASON for finding in findings)


def _to_tell(status: StatusInput, findings: Sequence[Finding]) -> Sequence[Finding]:
    """Return what an Event is to tell; not of a rollout that goes on, which is well in the end most of the time."""
    if not status.is_underway:
        return findings
    return [finding for finding in findings if finding.type not in (ConditionType.DEPLOYMENT, ConditionType.READY)]


def _news(old: Sequence[Condition], findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that the status does not say yet; what Ready only repeats is told by its own condition."""
    before = {condition.type: _as_finding(condition) for condition in old}
    own = [finding for finding in findings if finding.type not in INFORMATIVE | SUMMARY]
    said = {(finding.reason, finding.message) for finding in own}
    whole = [
        finding
        for finding in findings
        if finding.type is ConditionType.READY
        and (finding.reason, finding.message) not in said
        and not any(each.status == finding.status for each in own)
    ]
    return [finding for finding in [*own, *whole] if before.get(finding.type) != finding]


def _not_reached(status: StatusInput, old: Sequence[Condition], findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return a word for each condition that no run has come to yet."""
    known = {finding.type for finding in findings} | {condition.type for condition in old}
    return tuple(
        Finding(type=kind, status="Unknown", reason="Waiting", message="a step before it has to succeed first")
        for kind in status.unreached
        if kind not in known
    )


def _addresses(envelope: Envelope, target: Target | None, findings: Sequence[Finding]) -> Json:
    """Return url, namespace and end as the status shows them; the url once something listens there."""
    addresses: Json = _end(envelope)
    if target is None:
        return addresses
    if any(finding.type is ConditionType.INGRESS and finding.status == "True" for finding in findings):
        addresses["url"] = target.names.url
    if target.is_preview:
        addresses["namespace"] = target.names.namespace
    return addresses


def _end(envelope: Envelope) -> Json:
    """Return when a preview ends; one that is refused, or misses its parent, ends all the same."""
    if envelope.kind is not Kind.PREVIEW:
        return {}
    try:
        end = expires_at(envelope.metadata.creation_timestamp, preview_ttl(envelope.spec))
    except InvalidSpec:
        return {}
    return {"expiresAt": end.isoformat().replace("+00:00", "Z")}


def _as_finding(condition: Condition) -> Finding:
    return Finding(type=condition.type, status=condition.status, reason=condition.reason, message=condition.message)
