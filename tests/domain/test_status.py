"""Conditions and the phase they add up to."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from plattr.features import ConditionType
from plattr.status import MESSAGE_LIMIT, Condition, ConditionUpdate, Phase, derive_phase, merge_conditions, summary

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def _updates(**statuses: str) -> list[ConditionUpdate]:
    return [
        ConditionUpdate.model_validate({"type": ConditionType[name], "status": status, "reason": "Tested"})
        for name, status in statuses.items()
    ]


@pytest.mark.parametrize(
    ("statuses", "retries_exhausted", "expected"),
    [
        ({}, False, Phase.PROVISIONING),
        ({"DATABASE": "True", "DEPLOYMENT": "True"}, False, Phase.RUNNING),
        ({"DATABASE": "True", "DEPLOYMENT": "True"}, True, Phase.RUNNING),
        ({"DATABASE": "True", "DEPLOYMENT": "False"}, False, Phase.PROVISIONING),
        ({"DATABASE": "True", "DEPLOYMENT": "False"}, True, Phase.FAILED),
        ({"DATABASE": "False", "DEPLOYMENT": "Unknown"}, True, Phase.FAILED),
        ({"DATABASE": "Unknown", "DEPLOYMENT": "False"}, True, Phase.FAILED),
        ({"DATABASE": "True", "DEPLOYMENT": "Unknown"}, False, Phase.PROVISIONING),
        ({"DATABASE": "True", "DEPLOYMENT": "Unknown"}, True, Phase.PROVISIONING),
        ({"READY": "False"}, True, Phase.FAILED),
        ({"READY": "False", "DATABASE": "True"}, True, Phase.FAILED),
        ({"DEPLOYMENT": "True", "EXPIRING": "True"}, False, Phase.RUNNING),
        ({"DEPLOYMENT": "True", "EXPIRING": "False"}, True, Phase.RUNNING),
        ({"EXPIRING": "True"}, False, Phase.PROVISIONING),
    ],
)
def test_phase_is_derived_from_the_conditions(
    statuses: dict[str, str], retries_exhausted: bool, expected: Phase
) -> None:
    summed = summary(_updates(**statuses), retries_exhausted=retries_exhausted, is_refused=False)

    assert derive_phase(summed, retries_exhausted=retries_exhausted) == expected


@pytest.mark.parametrize(
    ("statuses", "retries_exhausted", "is_refused", "expected"),
    [
        ({"DATABASE": "True"}, False, False, {"Ready": "True"}),
        ({"DATABASE": "True"}, True, False, {"Ready": "True"}),
        ({"DATABASE": "False"}, False, False, {"Ready": "False", "Reconciling": "True"}),
        ({"DATABASE": "False"}, True, False, {"Ready": "False", "Reconciling": "True"}),
        ({"DATABASE": "False"}, True, True, {"Ready": "False", "Stalled": "True"}),
        ({"READY": "False", "DATABASE": "True"}, True, True, {"Ready": "False", "Stalled": "True"}),
        ({"DEPLOYMENT": "Unknown"}, False, False, {"Ready": "Unknown", "Reconciling": "True"}),
    ],
)
def test_an_object_is_ready_or_reconciling_or_stalled(
    statuses: dict[str, str], retries_exhausted: bool, is_refused: bool, expected: dict[str, str]
) -> None:
    summed = summary(_updates(**statuses), retries_exhausted=retries_exhausted, is_refused=is_refused)

    assert {update.type: update.status for update in summed} == expected


def test_what_is_stalled_says_why_it_is_refused() -> None:
    cause = ConditionUpdate(type=ConditionType.READY, status="False", reason="InvalidSpec", message="cannot accept it")

    _, stalled = summary([*_updates(DATABASE="True"), cause], retries_exhausted=True, is_refused=True)

    assert (stalled.reason, stalled.message) == ("InvalidSpec", "cannot accept it")


def test_new_condition_begins_now() -> None:
    (condition,) = merge_conditions([], _updates(DATABASE="True"), generation=3, now=NOW)

    assert condition == Condition(
        type=ConditionType.DATABASE,
        status="True",
        reason="Tested",
        last_transition_time=NOW,
        observed_generation=3,
    )


def test_transition_time_stays_while_the_status_does() -> None:
    old = merge_conditions([], _updates(DATABASE="False"), generation=1, now=NOW)
    update = ConditionUpdate(type=ConditionType.DATABASE, status="False", reason="Other", message="other")

    (condition,) = merge_conditions(old, [update], generation=2, now=LATER)

    assert (condition.last_transition_time, condition.reason, condition.message) == (NOW, "Other", "other")
    assert condition.observed_generation == 2


def test_transition_time_moves_with_the_status() -> None:
    old = merge_conditions([], _updates(DATABASE="False"), generation=1, now=NOW)

    (condition,) = merge_conditions(old, _updates(DATABASE="True"), generation=1, now=LATER)

    assert condition.last_transition_time == LATER


def test_condition_that_no_finding_names_is_dropped() -> None:
    old = merge_conditions([], _updates(DATABASE="True", REDIS="True"), generation=1, now=NOW)

    merged = merge_conditions(old, _updates(REDIS="True"), generation=2, now=LATER)

    assert [condition.type for condition in merged] == [ConditionType.REDIS]


def test_second_merge_changes_nothing() -> None:
    updates = _updates(DATABASE="True", DEPLOYMENT="Unknown")
    first = merge_conditions([], updates, generation=1, now=NOW)

    second = merge_conditions(first, updates, generation=1, now=LATER)

    assert second == first


def test_later_finding_of_a_type_counts() -> None:
    updates = [*_updates(DEPLOYMENT="True"), *_updates(DEPLOYMENT="False")]

    merged = merge_conditions([], updates, generation=1, now=NOW)

    assert [(condition.type, condition.status) for condition in merged] == [(ConditionType.DEPLOYMENT, "False")]


def test_message_is_cut_to_what_the_api_server_takes() -> None:
    update = ConditionUpdate(
        type=ConditionType.DATABASE, status="False", reason="Tested", message="x" * (MESSAGE_LIMIT + 1)
    )

    (condition,) = merge_conditions([], [update], generation=1, now=NOW)

    assert len(condition.message) == MESSAGE_LIMIT


@pytest.mark.parametrize("reason", ["", "not a word", "Ends:", "Line\n", "x" * 1025], ids=repr)
def test_finding_with_a_reason_that_the_api_server_refuses_cannot_be_made(reason: str) -> None:
    with pytest.raises(ValidationError):
        ConditionUpdate(type=ConditionType.DATABASE, status="False", reason=reason)
