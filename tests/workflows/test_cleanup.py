"""CleanupApplication: order, persistence, and an object that comes back."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import WorkflowExecutionStatus

from plattr.claims import Claim
from plattr.errors import BackendUnavailable, HeldByDependents, StillDeleting
from plattr.features import ClaimKind, ConditionType
from plattr.steps import CASCADE_SIGNAL, PURGE_SIGNAL, CleanupPlan, Progress, RunResult
from tests.workflows.conftest import Stage
from tests.workflows.fakes import UID, eventually, timers_of
from workflows.details import describe_progress

IN_ORDER = [
    "plan_cleanup",
    "delete_workload",
    "delete_search",
    "delete_redis",
    "delete_auth",
    "delete_storage",
    "delete_database",
    "release_object",
]


async def test_everything_goes_in_order_and_the_finalizer_last(stage: Stage) -> None:
    result = RunResult.model_validate(await (await stage.start("CleanupApplication")).result())

    assert stage.platform.calls == IN_ORDER
    assert result.phase is None


async def test_cleanup_never_gives_up_and_says_that_it_is_stuck(stage: Stage) -> None:
    stage.platform.failures["delete_database"] = [BackendUnavailable("cannot reach it") for _ in range(4 * 10)]

    await (await stage.start("CleanupApplication")).result()

    assert stage.platform.calls[-1] == "release_object"
    assert len(stage.platform.stuck) == 10
    assert stage.platform.stuck[0].updates[0].reason == "BackendUnavailable"
    assert stage.platform.calls.count("release_object") == 1


@pytest.mark.attack
@pytest.mark.parametrize("retain", [False, True], ids=["delete", "retain"])
async def test_a_stuck_deletion_says_what_is_gone_already(stage: Stage, *, retain: bool) -> None:
    stage.platform.plans = [CleanupPlan(verdict="proceed", uid=UID, retain=retain)]
    stage.platform.failures["delete_storage"] = [BackendUnavailable("cannot reach it")] * 4

    await (await stage.start("CleanupApplication")).result()

    (told,) = stage.platform.stuck
    assert {update.type: (update.status, update.reason) for update in told.removed} == {
        "DeploymentReady": ("False", "Removed"),
        "SearchReady": ("False", "Retained" if retain else "Removed"),
        "RedisReady": ("False", "Retained" if retain else "Removed"),
        "AuthReady": ("False", "Retained" if retain else "Removed"),
    }


async def test_what_a_deletion_leaves_since_nothing_says_whose_it_is_is_said(stage: Stage) -> None:
    stage.platform.left = {"delete_search": "what is called prod_app-*"}
    stage.platform.failures["delete_storage"] = [BackendUnavailable("cannot reach it")] * 4

    result = RunResult.model_validate(await (await stage.start("CleanupApplication")).result())

    (told,) = stage.platform.stuck
    assert {update.type: update.reason for update in told.removed}[ConditionType.SEARCH] == "Left"
    assert "what is called prod_app-*" in result.summary


async def test_what_a_deletion_waits_for_is_said_once(stage: Stage) -> None:
    stage.platform.waits["delete_auth"] = ["a late call", "a late call", "another"]
    seen: list[Progress] = []

    async def look() -> None:
        seen.append(Progress.model_validate(await handle.query("progress")))

    async def look_at_the_next() -> None:
        stage.platform.during["delete_auth"] = look

    stage.platform.during["report_stuck"] = look_at_the_next

    handle = await stage.start("CleanupApplication")
    await handle.result()

    said = [
        (status.updates[0].type, status.updates[0].message, status.retries_exhausted) for status in stage.platform.stuck
    ]
    assert said == [("AuthReady", f"waits for {what}", False) for what in ("a late call", "another")]
    steps = [call for call in stage.platform.calls if call != "report_stuck"]
    assert steps == [*IN_ORDER[:4], *["delete_auth"] * 4, *IN_ORDER[5:]]
    assert [(progress.step, progress.waiting_for) for progress in seen] == [("auth", "a late call")]
    assert "now: auth, waits for a late call" in describe_progress("app", seen[0])


async def test_what_may_come_true_late_is_looked_for_once_more_when_it_can_no_more(stage: Stage) -> None:
    stage.platform.late_calls = [datetime.now(UTC) + timedelta(minutes=5)]
    stage.platform.plans = [CleanupPlan(verdict="proceed", uid=UID), CleanupPlan(verdict="proceed")]

    handle = await stage.start("CleanupApplication")
    await handle.result()

    (slept,) = await timers_of(handle)
    assert stage.platform.calls == IN_ORDER * 2
    assert timedelta(minutes=4) < slept <= timedelta(minutes=5, seconds=1)
    assert stage.platform.stuck == []


async def test_an_object_made_anew_does_not_wait_for_the_last_look(stage: Stage) -> None:
    with stage.environment.with_time_skipping_disabled():
        stage.platform.late_calls = [datetime.now(UTC) + timedelta(hours=1)]
        handle = await stage.start("CleanupApplication")
        async with asyncio.timeout(20):
            while "never answered" not in Progress.model_validate(await handle.query("progress")).waiting_for:
                await asyncio.sleep(0.02)
        stage.platform.plans = [CleanupPlan(verdict="recreated")]
        await handle.signal("changed")
        await handle.result()

    assert "write_status" in stage.platform.calls


async def test_stuck_reports_that_fail_do_not_stop_the_cleanup(stage: Stage) -> None:
    stage.platform.failures["delete_auth"] = [StillDeleting("realm is still there") for _ in range(4)]
    stage.platform.failures["report_stuck"] = [BackendUnavailable("API server away") for _ in range(4)]

    await (await stage.start("CleanupApplication")).result()

    assert stage.platform.calls[-1] == "release_object"


async def test_by_hand_the_object_is_deleted_once_and_only_the_one_that_was_meant(stage: Stage) -> None:
    stage.platform.failures["delete_redis"] = [BackendUnavailable("cannot reach it") for _ in range(4)]

    await (await stage.start("CleanupApplication", by_hand=True, uid=UID)).result()

    asked = [(request.delete_object, request.uid, request.purge) for request in stage.platform.cleanup_inputs]
    assert asked == [(True, UID, False), (False, UID, False)]


@pytest.mark.parametrize("purge", [False, True], ids=["by-hand", "orphan"])
async def test_a_purge_stays_one_in_every_round(stage: Stage, *, purge: bool) -> None:
    stage.platform.plans = [CleanupPlan(verdict="proceed", purge=True)] * 3
    stage.platform.failures["delete_redis"] = [BackendUnavailable("cannot reach it") for _ in range(2 * 4)]

    await (await stage.start("CleanupApplication", by_hand=True, purge=purge)).result()

    # Only the first may delete an object, and none where what an object left is to go.
    asked = [(request.delete_object, request.purge) for request in stage.platform.cleanup_inputs]
    assert asked == [(not purge, purge), (False, True), (False, True)]
    assert set(stage.platform.retained) == {False}


@pytest.mark.attack
async def test_an_operator_lets_a_deletion_that_is_held_go_on(stage: Stage) -> None:
    stage.platform.failures["delete_database"] = [HeldByDependents("view v of another")]
    handle = await stage.start("CleanupApplication")
    await eventually(lambda: len(stage.platform.stuck) == 1)

    await handle.signal(CASCADE_SIGNAL)
    await handle.result()

    assert stage.platform.stuck[0].updates[0].reason == "HeldByDependents"
    assert stage.platform.cascading == [False] * 6 + [True] * 7


async def test_a_cascade_reaches_the_cleanup_that_a_provision_becomes(stage: Stage) -> None:
    stage.platform.claims = [stage.platform.claim(verdict="deleting")]

    handle = await stage.start("ProvisionApplication", signal=CASCADE_SIGNAL)
    await handle.result()

    assert set(stage.platform.cascading) == {True}


async def test_a_cascade_ends_with_the_object_that_it_was_meant_for(stage: Stage) -> None:
    stage.platform.plans = [CleanupPlan(verdict="recreated"), CleanupPlan(verdict="proceed", uid=UID)]
    stage.platform.claims = [stage.platform.claim(verdict="deleting")]

    handle = await stage.start("CleanupApplication", cascade=True)
    await handle.result()

    assert set(stage.platform.cascading) == {False}


async def test_a_purge_survives_a_new_history(stage: Stage) -> None:
    stage.platform.plans = [CleanupPlan(verdict="proceed", purge=True)] * 1000
    # Some 25 events a round: the server of the tests suggests a new history after 1,000.
    stage.platform.failures["delete_workload"] = [BackendUnavailable("cannot reach it") for _ in range(4 * 60)]

    handle = await stage.start("CleanupApplication", by_hand=True, cascade=True)
    await handle.result()

    first = await stage.environment.client.get_workflow_handle(
        handle.id, run_id=handle.first_execution_run_id
    ).describe()
    assert first.status is WorkflowExecutionStatus.CONTINUED_AS_NEW
    assert len(stage.platform.cleanup_inputs) == 61
    assert {request.purge for request in stage.platform.cleanup_inputs[1:]} == {True}
    assert [request.delete_object for request in stage.platform.cleanup_inputs] == [True] + [False] * 60
    assert set(stage.platform.cascading) == {True}


async def test_a_purge_ends_with_the_first_object_it_meets(stage: Stage) -> None:
    stage.platform.plans = [CleanupPlan(verdict="proceed", purge=True), CleanupPlan(verdict="proceed", uid=UID)]
    stage.platform.failures["delete_redis"] = [BackendUnavailable("cannot reach it") for _ in range(2 * 4)]

    await (await stage.start("CleanupApplication", by_hand=True)).result()

    assert [request.purge for request in stage.platform.cleanup_inputs] == [False, True, False]


async def test_a_purge_that_is_asked_for_meanwhile_is_not_lost(stage: Stage) -> None:
    stage.platform.plans = [CleanupPlan(verdict="proceed", uid=UID), CleanupPlan(verdict="proceed", purge=True)]
    stage.platform.failures["delete_redis"] = [BackendUnavailable("cannot reach it") for _ in range(4)]
    handle = await stage.start("CleanupApplication")
    await eventually(lambda: len(stage.platform.stuck) == 1)

    await handle.signal(PURGE_SIGNAL)
    await handle.result()

    assert [request.purge for request in stage.platform.cleanup_inputs] == [False, True]


async def test_a_provision_that_finds_its_object_gone_becomes_the_purge(stage: Stage) -> None:
    stage.platform.claims = [stage.platform.claim(verdict="gone")]
    stage.platform.plans = [CleanupPlan(verdict="proceed", purge=True)]

    handle = await stage.start("ProvisionApplication", signal=PURGE_SIGNAL)
    await handle.result()

    assert [request.purge for request in stage.platform.cleanup_inputs] == [True]


async def test_a_purge_outlasts_an_outage_of_the_api_server(stage: Stage) -> None:
    stage.platform.failures["claim_object"] = [BackendUnavailable("cannot reach it") for _ in range(4)]
    stage.platform.claims = [stage.platform.claim(verdict="gone")]
    stage.platform.plans = [CleanupPlan(verdict="proceed", purge=True)]

    handle = await stage.start("ProvisionApplication", signal=PURGE_SIGNAL)
    await handle.result()

    assert [request.purge for request in stage.platform.cleanup_inputs] == [True]


async def test_a_living_object_ends_a_purge(stage: Stage) -> None:
    stage.platform.claims = [stage.platform.claim(verdict="settled")]

    handle = await stage.start("ProvisionApplication", signal=PURGE_SIGNAL)
    result = await handle.result()

    assert result["summary"].endswith("is settled")
    assert stage.platform.cleanup_inputs == []


async def test_the_end_says_whether_data_was_retained(stage: Stage) -> None:
    outliving = (Claim(kind=ClaimKind.BUCKET, name="plattr-prod-app-files"),)
    summaries = []
    for plan in ({}, {"retain": True}, {"outliving": outliving}):
        stage.platform.plans = [CleanupPlan(verdict="proceed", uid=UID, **plan)]
        result = await (await stage.start("CleanupApplication")).result()
        summaries.append(RunResult.model_validate(result).summary)

    assert ["nothing of" in summary for summary in summaries] == [True, False, False]
    assert ["retained" in summary for summary in summaries] == [False, True, True]


async def test_retained_data_is_said_to_every_step(stage: Stage) -> None:
    stage.platform.plans = [CleanupPlan(verdict="proceed", uid=UID, retain=True)]

    await (await stage.start("CleanupApplication")).result()

    assert set(stage.platform.retained) == {True}


async def test_what_outlives_the_object_is_said_to_every_step(stage: Stage) -> None:
    outliving = (Claim(kind=ClaimKind.BUCKET, name="plattr-prod-app-files"),)
    stage.platform.plans = [CleanupPlan(verdict="proceed", uid=UID, outliving=outliving)]

    await (await stage.start("CleanupApplication")).result()

    assert set(stage.platform.outliving) == {outliving}


async def test_an_object_created_anew_is_provisioned_under_the_same_id(stage: Stage) -> None:
    stage.platform.plans = [CleanupPlan(verdict="recreated")]

    handle = await stage.start("CleanupApplication")
    await handle.result()

    assert stage.platform.calls[:2] == ["plan_cleanup", "claim_object"]
    assert "write_status" in stage.platform.calls


# What the cleanup finds itself to be for when it looks again, and from which of the steps it goes on.
SIGNALS = {
    "no change": (CleanupPlan(verdict="proceed", uid=UID), 5),
    "another": (CleanupPlan(verdict="proceed", uid="uid-2"), 1),
    "retained": (CleanupPlan(verdict="proceed", uid=UID, retain=True), 1),
    "gone": (CleanupPlan(verdict="proceed"), 1),
}


@pytest.mark.parametrize(("plan", "first"), SIGNALS.values(), ids=SIGNALS)
async def test_a_signal_begins_a_cleanup_anew_if_there_is_a_cause(stage: Stage, plan: CleanupPlan, first: int) -> None:
    async def send_signal() -> None:
        await handle.signal("changed")

    stage.platform.plans = [CleanupPlan(verdict="proceed", uid=UID), plan]
    stage.platform.during["delete_auth"] = send_signal
    handle = await stage.start("CleanupApplication")
    await handle.result()

    assert stage.platform.calls == [*IN_ORDER[:5], IN_ORDER[0], *IN_ORDER[first:]]


async def test_a_signal_during_the_last_step_is_not_lost(stage: Stage) -> None:
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("CleanupApplication")

        async def send_signal() -> None:
            await handle.signal("changed")
            stage.platform.plans = [CleanupPlan(verdict="recreated")]

        stage.platform.during["release_object"] = send_signal
        await eventually(lambda: "write_status" in stage.platform.calls)
        await handle.result()

    assert stage.platform.calls[:8] == IN_ORDER
    assert "claim_object" in stage.platform.calls


async def test_a_cleanup_takes_no_longer_than_its_pauses(stage: Stage) -> None:
    stage.platform.failures["delete_storage"] = [BackendUnavailable("cannot reach it") for _ in range(4)]

    handle = await stage.start("CleanupApplication")
    await handle.result()

    description = await handle.describe()
    assert description.close_time is not None
    assert description.execution_time is not None
    assert description.close_time - description.execution_time < timedelta(minutes=1)
