"""Conditions and the phase they add up to."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from plattr.errors import REASON_PATTERN
from plattr.objects import FrozenModel

# The API server's own bound on a condition's message.
# https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/types.go
MESSAGE_LIMIT = 32768

# Checked where a finding is made, not when the API server refuses the whole status for it.
Reason = Annotated[str, StringConstraints(pattern=REASON_PATTERN, max_length=1024)]


class Phase(StrEnum):
    """Where an object stands, in one word."""

    PENDING = "Pending"
    PROVISIONING = "Provisioning"
    RUNNING = "Running"
    FAILED = "Failed"
    TERMINATING = "Terminating"


class ConditionType(StrEnum):
    """What can be true of an object.

    The first three sum the others up, as kstatus, hence Flux, Helm and Argo CD, reads them. RECONCILING and STALLED are
    there only while they are True.
    """

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DATABASE = "DatabaseReady"
    STORAGE = "StorageReady"
    AUTH = "AuthReady"
    REDIS = "RedisReady"
    SEARCH = "SearchReady"
    DEPLOYMENT = "DeploymentReady"
    INGRESS = "IngressReady"
    EXPIRING = "Expiring"


# Conditions that inform and do not decide the phase.
INFORMATIVE = frozenset({ConditionType.EXPIRING})
# Conditions that follow from the others. A finding of READY says why the object as a whole is not.
# https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
SUMMARY = frozenset({ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED})


_UNDER_WAY = "a run is under way"


class Finding(FrozenModel):
    """What a step found out: a condition without its bookkeeping."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str = ""


class Condition(FrozenModel):
    """A condition as it stands in the object's status."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str = Field(default="", max_length=MESSAGE_LIMIT)
    last_transition_time: datetime
    observed_generation: int = Field(ge=0)


def summary(findings: Iterable[Finding], *, gave_up: bool, is_refused: bool) -> tuple[Finding, ...]:
    """Return the conditions that sum the others up: Ready, and why it is not.

    Args:
        findings: every condition of the object; one of READY is the cause that counts for the whole.
        gave_up: the retries of what is False are used up.
        is_refused: no retry can mend it.
    """
    ready = _ready(list(findings))
    if ready.status == "True":
        return (ready,)
    if is_refused:
        return ready, ready.model_copy(update={"type": ConditionType.STALLED, "status": "True"})
    if gave_up:
        return ready, _reconciling("Retrying", "what failed is tried again by itself, and at every change")
    return ready, _reconciling("Provisioning", _UNDER_WAY)


def begun() -> tuple[Finding, ...]:
    """Return what sums up an object whose run has begun."""
    ready = Finding(type=ConditionType.READY, status="Unknown", reason="Provisioning", message=_UNDER_WAY)
    return ready, _reconciling("Provisioning", _UNDER_WAY)


def ending() -> tuple[Finding, ...]:
    """Return what sums up an object that is being deleted."""
    message = "it is being deleted"
    ready = Finding(type=ConditionType.READY, status="False", reason="Terminating", message=message)
    return ready, _reconciling("Terminating", message)


def derive_phase(findings: Iterable[Finding], *, gave_up: bool) -> Phase:
    """Return the phase of an object that is not being deleted.

    Args:
        findings: its conditions, among them Ready.
        gave_up: the retries of what is False are used up.

    Source: shared/spec.md, section 3.
    """
    (ready,) = (finding for finding in findings if finding.type is ConditionType.READY)
    if ready.status == "True":
        return Phase.RUNNING
    return Phase.FAILED if gave_up and ready.status == "False" else Phase.PROVISIONING


def _ready(findings: Sequence[Finding]) -> Finding:
    whole = [finding for finding in findings if finding.type is ConditionType.READY]
    if whole:
        return whole[-1]
    deciding = [finding for finding in findings if finding.type not in INFORMATIVE | SUMMARY]
    for status in ("False", "Unknown"):
        for finding in deciding:
            if finding.status == status:
                message = f"{finding.type} is {status}" + (f": {finding.message}" if finding.message else "")
                return finding.model_copy(update={"type": ConditionType.READY, "message": message})
    if not deciding:
        return Finding(type=ConditionType.READY, status="Unknown", reason="Provisioning", message=_UNDER_WAY)
    return Finding(
        type=ConditionType.READY, status="True", reason="Ready", message="all that the spec asks for is there"
    )


def _reconciling(reason: str, message: str) -> Finding:
    return Finding(type=ConditionType.RECONCILING, status="True", reason=reason, message=message)


def merge_conditions(
    old: Sequence[Condition], findings: Sequence[Finding], *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Return the new conditions, one a type; a condition that no finding names any more is dropped.

    `last_transition_time` moves only when the status changes, so that people can see since when. Of two findings
    of one type the later one counts: the API server refuses a second condition of a type.
    """
    before = {condition.type: condition for condition in old}
    latest = {finding.type: finding for finding in findings}
    merged = []
    for finding in latest.values():
        known = before.get(finding.type)
        merged.append(
            Condition(
                type=finding.type,
                status=finding.status,
                reason=finding.reason,
                message=finding.message[:MESSAGE_LIMIT],
                last_transition_time=known.last_transition_time if known and known.status == finding.status else now,
                observed_generation=generation,
            )
        )
    return tuple(merged)
