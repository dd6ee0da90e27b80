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
    """What can be true of an object. ACCEPTED appears only while it is False: the object is refused."""

    ACCEPTED = "Accepted"
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


def derive_phase(findings: Iterable[Finding], *, is_deleting: bool, gave_up: bool) -> Phase:
    """Return the phase that the findings add up to.

    Args:
        findings: every condition of the object.
        is_deleting: the object has a deletionTimestamp.
        gave_up: the retries of what is False are used up.

    Source: shared/spec.md, section 3.
    """
    deciding = [finding for finding in findings if finding.type not in INFORMATIVE]
    if is_deleting:
        return Phase.TERMINATING
    if gave_up and any(finding.status == "False" for finding in deciding):
        return Phase.FAILED
    if deciding and all(finding.status == "True" for finding in deciding):
        return Phase.RUNNING
    return Phase.PROVISIONING


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
