"""ProvisionApplication: order, retries, changes on the way, refusals."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from plattr.errors import (
    BackendUnavailable,
    InvalidSpec,
    NameQuarantined,
    OwnedElsewhere,
    ProviderCredentialsMissing,
    Refusal,
    Superseded,
)
from plattr.features import ConditionType, Step
from plattr.status import Phase
from plattr.steps import ClaimResult, CleanupPlan, RunResult
from tests.workflows.conftest import Stage
from tests.workflows.fakes import EVERYTHING, UID, eventually, pausing, timers_of
from workflows.options import slow_retry_delay

IN_ORDER = [
    "claim_object",
    "reconcile_database",
    "reconcile_storage",
    "reconcile_auth",
    "reconcile_redis",
    "reconcile_search",
    "reconcile_workload",
    "await_rollout",
    "write_status",
]


async def test_steps_run_in_the_order_of_the_seed(stage: Stage) -> None:
    handle = await stage.start("ProvisionApplication", signal="changed")

    result = RunResult.model_validate(await handle.result())

    assert stage.platform.calls == IN_ORDER
    assert result.phase is Phase.RUNNING


async def test_only_enabled_steps_run(stage: Stage) -> None:
    stage.platform.claims = [stage.platform.claim(steps=(Step.REDIS, Step.WORKLOAD))]

    await (await stage.start("ProvisionApplication")).result()

    assert stage.platform.calls == [
        "claim_object",
        "reconcile_redis",
        "reconcile_workload",
        "await_rollout",
        "write_status",
    ]


@pytest.mark.parametrize("verdict", ["settled", "gone", "paused"])
async def test_nothing_runs_for_an_object_that_needs_nothing(stage: Stage, verdict: str) -> None:
    stage.platform.claims = [ClaimResult(verdict=verdict)]

    await (await stage.start("ProvisionApplication")).result()

    assert stage.platform.calls == ["claim_object"]


async def test_a_rollout_that_takes_long_is_asked_again(stage: Stage) -> None:
    stage.platform.rollout_rounds = 3

    await (await stage.start("ProvisionApplication")).result()

    assert stage.platform.calls.count("await_rollout") == 3


async def test_a_rollout_that_takes_long_is_told_of_meanwhile_with_all_that_was_done_before(stage: Stage) -> None:
    stage.platform.rollout_rounds = 2
    stage.platform.failures["reconcile_auth"] = [ProviderCredentialsMissing("no google")]

    handle = await stage.start("ProvisionApplication")
    await handle.result()

    underway, *rest = stage.platform.statuses
    by_type = {update.type: (update.status, update.reason) for update in underway.updates}
    assert underway.is_underway
    assert not any(status.is_underway for status in rest)
    assert by_type[ConditionType.DATABASE] == ("True", "Provisioned")
    assert by_type[ConditionType.AUTH] == ("False", "ProviderCredentialsMissing")
    assert by_type[ConditionType.DEPLOYMENT] == ("False", "RolloutInProgress")
    # The next call knows what was said, so that only news ends it early.
    assert [said and said.reason for said in stage.platform.said[:2]] == [None, "RolloutInProgress"]


async def test_four_attempts_then_failed_then_healed_after_half_a_minute(stage: Stage) -> None:
    stage.platform.failures["reconcile_database"] = [BackendUnavailable("cannot reach it") for _ in range(4)]

    handle = await stage.start("ProvisionApplication")
    await handle.result()

    assert stage.platform.calls.count("reconcile_database") == 5
    failed, healed = stage.platform.statuses
    assert failed.retries_exhausted
    assert [(f.type, f.status, f.reason) for f in failed.updates] == [
        (ConditionType.DATABASE, "False", "BackendUnavailable"),
        (ConditionType.READY, "False", "BackendUnavailable"),
    ]
    assert not failed.is_refused
    assert ConditionType.STORAGE in failed.unreached
    assert not healed.retries_exhausted


async def test_attempts_follow_the_seeds_table(stage: Stage) -> None:
    stage.platform.failures["reconcile_database"] = [BackendUnavailable("cannot reach it") for _ in range(4)]
    handle = await stage.start("ProvisionApplication")
    await handle.result()

    history = await handle.fetch_history()
    fourth = next(
        event.activity_task_started_event_attributes
        for event in history.events
        if event.HasField("activity_task_started_event_attributes")
        and event.activity_task_started_event_attributes.attempt > 1
    )

    assert fourth.attempt == 4
    assert fourth.last_failure.application_failure_info.type == "BackendUnavailable"


async def test_slow_retries_double_up_to_ten_minutes(stage: Stage) -> None:
    delays = [slow_retry_delay(round_number) for round_number in (1, 2, 3, 4, 5, 6, 100)]

    assert delays == [timedelta(seconds=s) for s in (30, 60, 120, 240, 480, 600, 600)]


async def test_an_outage_of_hours_heals_by_itself(stage: Stage) -> None:
    stage.platform.failures["reconcile_storage"] = [BackendUnavailable("cannot reach it") for _ in range(4 * 20)]

    result = RunResult.model_validate(await (await stage.start("ProvisionApplication")).result())

    assert result.phase is Phase.RUNNING
    assert stage.platform.calls.count("reconcile_storage") == 81


@pytest.mark.parametrize(
    ("activity", "error", "condition"),
    [
        ("claim_object", InvalidSpec("spec.domain", "bad"), ConditionType.READY),
        ("reconcile_database", OwnedElsewhere("cannot adopt"), ConditionType.DATABASE),
        ("reconcile_auth", OwnedElsewhere("cannot adopt"), ConditionType.AUTH),
    ],
    ids=["invalid-spec", "foreign-schema", "foreign-realm"],
)
async def test_a_refusal_fails_the_run_at_once(
    stage: Stage, activity: str, error: Refusal, condition: ConditionType
) -> None:
    stage.platform.failures[activity] = [error]
    handle = await stage.start("ProvisionApplication")

    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()

    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == error.reason
    assert stage.platform.calls.count(activity) == 1
    status = stage.platform.statuses[-1]
    whole = [update for update in status.updates if update.type is ConditionType.READY]
    assert status.retries_exhausted
    assert status.is_refused
    assert [(update.status, update.reason, update.message) for update in whole] == [("False", error.reason, str(error))]
    assert condition in {update.type for update in status.updates if update.status == "False"}


async def test_auth_that_fails_does_not_stop_the_workload(stage: Stage) -> None:
    stage.platform.failures["reconcile_auth"] = [ProviderCredentialsMissing("no google")]

    await (await stage.start("ProvisionApplication")).result()

    first = stage.platform.calls[: len(IN_ORDER)]
    assert first == IN_ORDER
    by_type = {update.type: update for update in stage.platform.statuses[0].updates}
    assert by_type[ConditionType.AUTH].reason == "ProviderCredentialsMissing"
    assert by_type[ConditionType.DEPLOYMENT].status == "True"
    assert stage.platform.calls.count("reconcile_auth") == 2


# What the object is when it is read again, and from which of the steps its run goes on.
SIGNALS = {
    "a change": ("changed", {"generation": 2}, 1),
    "made again": ("changed", {"uid": "uid-2"}, 1),
    "no change": ("changed", {}, 3),
    "a repair": ("repair", {}, 1),
    "a resync": ("resync", {}, 1),
}


@pytest.mark.parametrize(("signal", "difference", "first"), SIGNALS.values(), ids=SIGNALS)
async def test_a_signal_waits_for_the_attempt_in_flight_and_begins_anew_if_there_is_a_cause(
    stage: Stage, signal: str, difference: dict[str, object], first: int
) -> None:
    stage.platform.claims = [stage.platform.claim(), stage.platform.claim(**difference)]
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        entered.set()
        await go_on.wait()

    with stage.environment.with_time_skipping_disabled():
        stage.platform.during["reconcile_storage"] = slow
        handle = await stage.start("ProvisionApplication")
        await entered.wait()
        await handle.signal(signal)
        await asyncio.sleep(0.5)
        in_between = list(stage.platform.calls)
        go_on.set()
        await handle.result()

    assert in_between == IN_ORDER[:3]
    assert stage.platform.calls == [*IN_ORDER[:3], IN_ORDER[0], *IN_ORDER[first:]]
    assert stage.platform.overlaps == []


async def test_signals_at_every_step_do_not_keep_a_run_at_the_first(stage: Stage) -> None:
    async def send_signal() -> None:
        await handle.signal("changed")

    stage.platform.during = {name: send_signal for name in IN_ORDER if name not in ("claim_object", "write_status")}
    handle = await stage.start("ProvisionApplication")
    await handle.result()

    calls = [name for name in stage.platform.calls if name.startswith("reconcile_")]
    assert calls == [name for name in IN_ORDER if name.startswith("reconcile_")]


async def test_a_step_that_a_failed_pass_had_done_is_done_again(stage: Stage) -> None:
    stage.platform.failures["reconcile_search"] = [ProviderCredentialsMissing("not yet")]

    await (await stage.start("ProvisionApplication")).result()

    assert stage.platform.calls.count("reconcile_database") == 2


async def test_a_change_calls_retries_off(stage: Stage) -> None:
    stage.platform.failures["reconcile_database"] = [BackendUnavailable("cannot reach it") for _ in range(2)]
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("ProvisionApplication")
        await eventually(lambda: stage.platform.calls.count("reconcile_database") == 1)
        stage.platform.failures["reconcile_database"] = []
        await handle.signal("changed")
        await handle.result()

    assert stage.platform.calls == IN_ORDER[:2] + IN_ORDER


async def test_resync_cuts_the_slow_pause_short(stage: Stage) -> None:
    with stage.environment.with_time_skipping_disabled():
        stage.platform.failures["reconcile_redis"] = [ProviderCredentialsMissing("not yet")]
        handle = await stage.start("ProvisionApplication")
        await eventually(lambda: len(stage.platform.statuses) == 1)
        progress = await pausing(handle)
        await handle.signal("resync")
        await handle.result()

    assert progress.phase is Phase.FAILED
    assert progress.last_error is not None
    assert progress.last_error.reason == "ProviderCredentialsMissing"
    assert stage.platform.claim_inputs[-1].every_step


async def test_a_name_in_quarantine_is_asked_for_again_when_that_ends(stage: Stage) -> None:
    error = NameQuarantined("cannot claim realm 'app' yet", datetime.now(UTC) + timedelta(minutes=5))
    stage.platform.failures["claim_object"] = [error] * 4

    handle = await stage.start("ProvisionApplication")
    await handle.result()

    slept = await timers_of(handle)
    # And the last one not 240 s.
    assert slept[:3] == [timedelta(seconds=seconds) for seconds in (30, 60, 120)]
    assert timedelta(seconds=60) < slept[3] <= timedelta(seconds=91)


async def test_a_deployment_lost_before_the_status_is_no_success(stage: Stage) -> None:
    stage.platform.phases = [Phase.PROVISIONING]

    result = RunResult.model_validate(await (await stage.start("ProvisionApplication")).result())

    assert stage.platform.calls == IN_ORDER * 2
    assert result.phase is Phase.RUNNING


async def test_an_object_that_moved_on_is_read_again(stage: Stage) -> None:
    stage.platform.failures["reconcile_search"] = [Superseded("generation 2 is newer")]
    stage.platform.claims = [stage.platform.claim(), stage.platform.claim(generation=2)]

    await (await stage.start("ProvisionApplication")).result()

    assert stage.platform.calls == IN_ORDER[:6] + IN_ORDER


async def test_deletion_during_a_run_continues_as_the_cleanup_under_the_same_id(stage: Stage) -> None:
    stage.platform.claims = [ClaimResult(verdict="deleting")]

    handle = await stage.start("ProvisionApplication")
    result = RunResult.model_validate(await handle.result())

    assert "nothing" in result.summary
    assert stage.platform.cleanup_inputs[0].delete_object is False
    description = await stage.environment.client.get_workflow_handle(handle.id).describe()
    assert description.workflow_type == "CleanupApplication"


async def test_cancelling_the_run_waits_for_the_attempt_in_flight(stage: Stage) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        entered.set()
        await go_on.wait()

    with stage.environment.with_time_skipping_disabled():
        stage.platform.during["reconcile_workload"] = slow
        handle = await stage.start("ProvisionApplication")
        await entered.wait()
        await handle.cancel()
        await asyncio.sleep(0.5)
        still_open = (await handle.describe()).close_time is None
        go_on.set()
        with pytest.raises(WorkflowFailureError):
            await handle.result()

    assert still_open
    assert "await_rollout" not in stage.platform.calls


async def test_unexpected_errors_keep_their_words_to_themselves(stage: Stage) -> None:
    stage.platform.failures["reconcile_database"] = [RuntimeError("PASSWORD 'c4n4ry'") for _ in range(4)]
    handle = await stage.start("ProvisionApplication")
    await handle.result()

    history = await handle.fetch_history()

    assert "c4n4ry" not in history.to_json()
    assert "RuntimeError" in history.to_json()


def test_the_fakes_cover_every_step() -> None:
    assert set(EVERYTHING) <= set(Step)
    assert CleanupPlan(verdict="proceed", uid=UID).retain is False
