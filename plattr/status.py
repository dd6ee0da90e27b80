"""Conditions, and the phase that summarizes them."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from plattr.errors import REASON_PATTERN
from plattr.features import ConditionType
from plattr.objects import CustomObject, FrozenModel

# The API server's own limit on a condition's message.
# https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/types.go
MESSAGE_LIMIT = 32768

# Checked when an update is created. Otherwise the API server would refuse the whole status later.
Reason = Annotated[str, StringConstraints(pattern=REASON_PATTERN, max_length=1024)]


class Phase(StrEnum):
    """Where an object stands, in one word."""

    PENDING = "Pending"
    PROVISIONING = "Provisioning"
    RUNNING = "Running"
    FAILED = "Failed"
    TERMINATING = "Terminating"


# Conditions that inform and do not affect the phase.
INFORMATIVE = frozenset({ConditionType.EXPIRING})
# Conditions that follow from the others. An update of READY says why the object as a whole is not ready.
# https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
SUMMARY = frozenset({ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED})

_UNDER_WAY = "a run is under way"


class ConditionUpdate(FrozenModel):
    """What a step reports for one condition, without the condition's bookkeeping."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str = ""


class Condition(FrozenModel):
    """A condition as the object's status holds it."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str = Field(default="", max_length=MESSAGE_LIMIT)
    last_transition_time: datetime
    observed_generation: int = Field(ge=0)


def has_failed(custom_object: CustomObject, kind: ConditionType) -> bool:
    """Tell whether the object's status has this condition as False."""
    return any(each.get("type") == kind and each.get("status") == "False" for each in custom_object.conditions)


def summary(
    updates: Iterable[ConditionUpdate], *, retries_exhausted: bool, is_refused: bool
) -> tuple[ConditionUpdate, ...]:
    """Return the conditions that summarize the others: Ready, and why it is not True.

    Args:
        updates: every condition of the object; an update of READY among them is the cause that counts for the whole.
        retries_exhausted: the retries of the False conditions are used up.
        is_refused: no retry can help.
    """
    ready = _ready(list(updates))
    if ready.status == "True":
        return (ready,)
    if is_refused:
        return ready, ready.model_copy(update={"type": ConditionType.STALLED, "status": "True"})
    if retries_exhausted:
        return ready, _reconciling("Retrying", "what failed is tried again by itself, and at every change")
    return ready, _reconciling("Provisioning", _UNDER_WAY)


def begun() -> tuple[ConditionUpdate, ...]:
    """Return the summary of an object whose run has begun."""
    ready = ConditionUpdate(type=ConditionType.READY, status="Unknown", reason="Provisioning", message=_UNDER_WAY)
    return ready, _reconciling("Provisioning", _UNDER_WAY)


def ending() -> tuple[ConditionUpdate, ...]:
    """Return the summary of an object that is being deleted."""
    message = "it is being deleted"
    ready = ConditionUpdate(type=ConditionType.READY, status="False", reason="Terminating", message=message)
    return ready, _reconciling("Terminating", message)


def derive_phase(updates: Iterable[ConditionUpdate], *, retries_exhausted: bool) -> Phase:
    """Return the phase of an object that is not being deleted.

    Args:
        updates: its conditions, among them Ready.
        retries_exhausted: the retries of the False conditions are used up.

    Source: docs/api.md, Status.
    """
    (ready,) = (update for update in updates if update.type is ConditionType.READY)
    if ready.status == "True":
        return Phase.RUNNING
    return Phase.FAILED if retries_exhausted and ready.status == "False" else Phase.PROVISIONING


def _ready(updates: Sequence[ConditionUpdate]) -> ConditionUpdate:
    whole = [update for update in updates if update.type is ConditionType.READY]
    if whole:
        return whole[-1]
    deciding = [update for update in updates if update.type not in INFORMATIVE | SUMMARY]
    for status in ("False", "Unknown"):
        for update in deciding:
            if update.status == status:
                message = f"{update.type} is {status}" + (f": {update.message}" if update.message else "")
                return update.model_copy(update={"type": ConditionType.READY, "message": message})
    if not deciding:
        return ConditionUpdate(type=ConditionType.READY, status="Unknown", reason="Provisioning", message=_UNDER_WAY)
    return ConditionUpdate(
        type=ConditionType.READY, status="True", reason="Ready", message="all that the spec asks for is there"
    )


def _reconciling(reason: str, message: str) -> ConditionUpdate:
    return ConditionUpdate(type=ConditionType.RECONCILING, status="True", reason=reason, message=message)


def merge_conditions(
    old: Sequence[Condition], updates: Sequence[ConditionUpdate], *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Return the new conditions, one of each type; a condition that no update names any more is dropped.

    `last_transition_time` changes only with the status, so that people can see since when it holds. Of two updates of
    one type the later one counts, because the API server refuses a second condition of a type.
    """
    before = {condition.type: condition for condition in old}
    latest = {update.type: update for update in updates}
    merged = []
    for update in latest.values():
        known = before.get(update.type)
        merged.append(
            Condition(
                type=update.type,
                status=update.status,
                reason=update.reason,
                message=update.message[:MESSAGE_LIMIT],
                last_transition_time=known.last_transition_time if known and known.status == update.status else now,
                observed_generation=generation,
            )
        )
    return tuple(merged)
