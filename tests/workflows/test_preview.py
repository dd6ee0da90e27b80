"""PreviewLifecycle and CleanupPreview: the clock in all its states, and what moves it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError

from plattr.errors import BackendRefused, BackendUnavailable, InvalidSpec, OwnedElsewhere, ParentNotFound, Superseded
from plattr.features import Step
from plattr.status import Phase
from plattr.steps import CleanupPlan, Progress, RunResult
from tests.workflows.conftest import Stage
from tests.workflows.fakes import EVERYTHING, FakePlatform, eventually, pausing

STEPS = (Step.NAMESPACE, *EVERYTHING)
PROVISION = ["claim_object", *(f"reconcile_{step}" for step in STEPS), "await_rollout", "write_status"]
CLEANUP = [
    "plan_cleanup",
    "delete_workload",
    "delete_search",
    "delete_redis",
    "delete_auth",
    "delete_storage",
    "delete_database",
    "delete_namespace",
    "release_object",
]
EXPIRY = ["delete_expired", *CLEANUP]
WARNING = ["read_lifetime", "warn_of_expiry", "claim_object"]

# The server's timers fire within 20 ms here; a loaded machine takes its time to run what they wake.
EXACT = timedelta(seconds=1)


@pytest.fixture
def preview(stage: Stage) -> FakePlatform:
    """A preview that is provisioned once and settled at every later claim."""
    platform = stage.platform
    platform.claims = [platform.claim(steps=STEPS, environment="preview")]
    platform.claims += [platform.claim(verdict="settled") for _ in range(500)]
    return platform


async def scheduled_at(handle: WorkflowHandle[Any, Any], activity: str) -> list[datetime]:
    """Return when a run of the preview asked for an activity, by the server's clock."""
    moments = []
    async for run in handle_runs(handle):
        async for event in run.fetch_history_events():
            attributes = event.activity_task_scheduled_event_attributes
            if attributes.activity_type.name == activity:
                moments.append(event.event_time.ToDatetime(tzinfo=UTC))
    return moments


async def handle_runs(handle: WorkflowHandle[Any, Any]) -> Any:
    """Yield the runs of a handle's chain, which continue each other as new, oldest first."""
    client = handle._client
    run_id = handle.result_run_id or handle.first_execution_run_id
    while run_id:
        run = client.get_workflow_handle(handle.id, run_id=run_id)
        yield run
        events = [event async for event in run.fetch_history_events()]
        run_id = events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id


async def resting(stage: Stage, handle: WorkflowHandle[Any, Any]) -> None:
    """Wait until the run has settled and sleeps."""
    await eventually(lambda: "write_status" in stage.platform.calls)
    async with asyncio.timeout(20):
        while Progress.model_validate(await handle.query("progress")).step is not None:
            await asyncio.sleep(0.02)


async def finish(stage: Stage, handle: WorkflowHandle[Any, Any]) -> None:
    """Skip a run's time until its whole chain has ended; one that was started without skipping needs the push."""
    async with asyncio.timeout(40):
        await stage.environment.fast_forward(handle)
        await handle.result()


async def send_signal(stage: Stage, handle: WorkflowHandle[Any, Any], signal: str = "changed") -> None:
    """Signal and wait until the object has been read again."""
    before = stage.platform.calls.count("claim_object")
    await handle.signal(signal)
    await eventually(lambda: stage.platform.calls.count("claim_object") > before)


async def test_a_preview_is_provisioned_warned_of_and_taken_down(stage: Stage, preview: FakePlatform) -> None:
    handle = await stage.start("PreviewLifecycle", signal="changed")

    result = RunResult.model_validate(await handle.result())

    assert preview.calls == ["read_lifetime", *PROVISION, *WARNING, *EXPIRY]
    assert "nothing" in result.summary


@pytest.mark.parametrize(
    ("ttl", "before"),
    [
        (timedelta(hours=72), timedelta(hours=1)),
        (timedelta(days=30), timedelta(hours=1)),
        (timedelta(minutes=10), timedelta(minutes=1)),
    ],
    ids=["72h", "30d", "10m"],
)
async def test_warning_and_end_come_to_the_second(
    stage: Stage, preview: FakePlatform, ttl: timedelta, before: timedelta
) -> None:
    preview.ttl = ttl
    handle = await stage.start("PreviewLifecycle")

    await handle.result()

    (warned,), (deleted,) = await scheduled_at(handle, "warn_of_expiry"), await scheduled_at(handle, "delete_expired")
    assert timedelta(0) <= warned - (preview.expires_at - before) < EXACT
    assert timedelta(0) <= deleted - preview.expires_at < EXACT
    assert [request.is_due for request in preview.warnings] == [True]


@pytest.mark.parametrize("hours", [2, 200], ids=["shorter", "longer"])
async def test_a_changed_ttl_moves_the_end(stage: Stage, preview: FakePlatform, hours: int) -> None:
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await resting(stage, handle)
    preview.ttl = timedelta(hours=hours)
    await stage.environment.fast_forward(handle, timedelta(hours=1))
    await handle.signal("changed")
    await finish(stage, handle)

    (deleted,) = await scheduled_at(handle, "delete_expired")
    assert timedelta(0) <= deleted - preview.expires_at < EXACT


async def test_a_ttl_cut_below_the_age_ends_the_preview_at_once(stage: Stage, preview: FakePlatform) -> None:
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await resting(stage, handle)
        preview.ttl = timedelta(seconds=0)
        await handle.signal("changed")
        await handle.result()

    assert preview.calls[-len(EXPIRY) :] == EXPIRY


async def test_a_warning_is_taken_back_when_the_ttl_grows(stage: Stage, preview: FakePlatform) -> None:
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await resting(stage, handle)
        await stage.environment.fast_forward(handle, timedelta(hours=71, minutes=30))
        await eventually(lambda: len(preview.warnings) == 1)
        first = preview.expires_at
        preview.ttl = timedelta(hours=100)
        await send_signal(stage, handle)
        await eventually(lambda: len(preview.warnings) == 2)
    await finish(stage, handle)

    (deleted,) = await scheduled_at(handle, "delete_expired")
    assert [(request.is_due, request.expires_at) for request in preview.warnings] == [
        (True, first),
        (False, preview.expires_at),
        (True, preview.expires_at),
    ]
    assert timedelta(0) <= deleted - preview.expires_at < EXACT


async def test_a_warning_names_the_new_end_when_the_ttl_grows_a_little(stage: Stage, preview: FakePlatform) -> None:
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await resting(stage, handle)
        await stage.environment.fast_forward(handle, timedelta(hours=71, minutes=30))
        await eventually(lambda: len(preview.warnings) == 1)
        preview.ttl += timedelta(minutes=10)
        await send_signal(stage, handle)
    await finish(stage, handle)

    assert [request.is_due for request in preview.warnings] == [True, True]
    assert preview.warnings[-1].expires_at == preview.expires_at


async def test_reconciles_do_not_move_the_end(stage: Stage, preview: FakePlatform) -> None:
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await resting(stage, handle)
        for signal in ("changed", "resync", "changed"):
            await send_signal(stage, handle, signal)
            await stage.environment.fast_forward(handle, timedelta(hours=10))
    await finish(stage, handle)

    (deleted,) = await scheduled_at(handle, "delete_expired")
    assert timedelta(0) <= deleted - preview.expires_at < EXACT
    assert [request.every_step for request in preview.claim_inputs[:4]] == [False, False, True, False]


async def test_a_change_of_nothing_runs_no_step(stage: Stage, preview: FakePlatform) -> None:
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await resting(stage, handle)
        await send_signal(stage, handle)
    await finish(stage, handle)

    assert preview.calls.count("reconcile_namespace") == 1


async def test_a_preview_whose_end_passed_while_nobody_worked_is_deleted_at_once(
    stage: Stage, preview: FakePlatform
) -> None:
    preview.created -= timedelta(hours=73)

    await (await stage.start("PreviewLifecycle")).result()

    assert preview.calls == ["read_lifetime", *EXPIRY]


async def test_a_preview_deleted_by_hand_becomes_its_cleanup(stage: Stage, preview: FakePlatform) -> None:
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await resting(stage, handle)
        preview.presence = "deleting"
        await handle.signal("changed")
        await handle.result()

    assert preview.deletions == []
    assert preview.calls[-len(CLEANUP) :] == CLEANUP
    assert preview.cleanup_inputs[0].delete_object is False


async def test_a_missing_parent_is_waited_for(stage: Stage, preview: FakePlatform) -> None:
    preview.failures["claim_object"] = [ParentNotFound("cannot provision") for _ in range(5)]

    handle = await stage.start("PreviewLifecycle")
    await handle.result()

    failed = preview.statuses[0]
    assert failed.retries_exhausted
    assert [(f.type, f.reason) for f in failed.updates] == [("Ready", "ParentNotFound")]
    assert not failed.is_refused
    # Not retried quickly: five failures are five rounds.
    assert len([status for status in preview.statuses if status.retries_exhausted]) == 5
    assert preview.statuses[-1].retries_exhausted is False


async def test_a_preview_without_parent_ends_on_time(stage: Stage, preview: FakePlatform) -> None:
    preview.ttl = timedelta(hours=2)
    preview.failures["claim_object"] = [ParentNotFound("cannot provision") for _ in range(1000)]
    handle = await stage.start("PreviewLifecycle")

    await handle.result()

    (deleted,) = await scheduled_at(handle, "delete_expired")
    assert timedelta(0) <= deleted - preview.expires_at < EXACT
    assert "reconcile_namespace" not in preview.calls


async def test_a_change_cuts_the_wait_for_the_parent_short(stage: Stage, preview: FakePlatform) -> None:
    preview.failures["claim_object"] = [ParentNotFound("cannot provision")]
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await eventually(lambda: len(preview.statuses) == 1)
        await handle.signal("changed")
        await resting(stage, handle)
        await eventually(lambda: len(preview.statuses) == 2)
    await finish(stage, handle)

    assert preview.statuses[1].retries_exhausted is False


@pytest.mark.parametrize(
    "error",
    [OwnedElsewhere("cannot adopt"), InvalidSpec("spec.imageRef", "bad")],
    ids=["foreign-name", "invalid-spec"],
)
async def test_a_refused_preview_stays_open_and_ends_on_time(
    stage: Stage, preview: FakePlatform, error: Exception
) -> None:
    preview.failures["claim_object"] = [error, error]
    handle = await stage.start("PreviewLifecycle")

    await handle.result()

    (deleted,) = await scheduled_at(handle, "delete_expired")
    assert timedelta(0) <= deleted - preview.expires_at < EXACT
    # The second claim is the one after the warning; nothing was tried in between.
    assert preview.calls.count("claim_object") == 2


async def test_a_refused_preview_heals_with_a_change(stage: Stage, preview: FakePlatform) -> None:
    preview.failures["reconcile_database"] = [OwnedElsewhere("cannot adopt")]
    preview.claims.insert(0, preview.claims[0])
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await resting(stage, handle)
        progress = Progress.model_validate(await handle.query("progress"))
        await handle.signal("changed")
        await eventually(lambda: len(preview.statuses) == 2)
    await finish(stage, handle)

    assert progress.phase is Phase.FAILED
    assert preview.statuses[1].retries_exhausted is False


async def test_a_ttl_that_says_nothing_fails_the_run(stage: Stage, preview: FakePlatform) -> None:
    preview.failures["read_lifetime"] = [InvalidSpec("spec.ttl", "bad")]
    handle = await stage.start("PreviewLifecycle")

    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()

    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "InvalidSpec"
    assert preview.statuses[0].updates[0].type == "Ready"


@pytest.mark.parametrize("presence", ["paused", "gone"])
async def test_the_run_closes_for_an_object_that_is(stage: Stage, preview: FakePlatform, presence: Any) -> None:
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await resting(stage, handle)
        preview.presence = presence
        await handle.signal("changed")
        result = RunResult.model_validate(await handle.result())

    assert presence in result.summary
    assert preview.calls[-1] == "read_lifetime"
    assert preview.deletions == []


async def test_a_paused_preview_does_not_end(stage: Stage, preview: FakePlatform) -> None:
    preview.created -= timedelta(hours=100)
    preview.presence = "paused"

    await (await stage.start("PreviewLifecycle")).result()

    assert preview.calls == ["read_lifetime"]


@pytest.mark.parametrize("presence", ["paused", "gone"])
async def test_a_signal_while_the_run_closes_is_not_lost(stage: Stage, preview: FakePlatform, presence: Any) -> None:
    preview.presence = presence
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle", by_hand=True)

        async def come_back() -> None:
            await handle.signal("changed")

        preview.during["read_lifetime"] = come_back
        # Whether the first look or the second meets the signal, the run must look once more after it.
        await eventually(lambda: "read_lifetime" in preview.calls)
        preview.presence = "alive"
        try:
            await eventually(lambda: "write_status" in preview.calls, seconds=5)
        except TimeoutError:
            description = await handle.describe()
            assert description.close_time is None, "closed with a signal unheard"
    await finish(stage, handle)

    assert preview.calls[-len(CLEANUP) :] == CLEANUP


async def test_a_ttl_raised_in_the_last_moment_keeps_the_preview(stage: Stage, preview: FakePlatform) -> None:
    async def raise_ttl() -> None:
        preview.ttl = timedelta(hours=80)
        preview.failures["delete_expired"] = [Superseded("it lives longer now")]

    preview.during["delete_expired"] = raise_ttl
    handle = await stage.start("PreviewLifecycle")

    await handle.result()

    *_, deleted = await scheduled_at(handle, "delete_expired")
    assert timedelta(0) <= deleted - preview.expires_at < EXACT
    assert len(preview.deletions) == 1


async def test_an_api_server_that_is_away_at_the_end_only_delays_it(stage: Stage, preview: FakePlatform) -> None:
    preview.failures["delete_expired"] = [BackendUnavailable("cannot reach it") for _ in range(8)]
    preview.failures["write_status"] = []

    handle = await stage.start("PreviewLifecycle")
    await handle.result()

    *_, deleted = await scheduled_at(handle, "delete_expired")
    assert preview.calls[-len(EXPIRY) :] == EXPIRY
    # Two rounds of four attempts, and their pauses of 30 and 60 s.
    assert timedelta(seconds=90) < deleted - preview.expires_at < timedelta(seconds=130)


async def test_a_warning_that_fails_across_the_end_does_not_lose_it(stage: Stage, preview: FakePlatform) -> None:
    preview.ttl = timedelta(minutes=1)
    preview.failures["warn_of_expiry"] = [BackendUnavailable("cannot reach it") for _ in range(4)]
    handle = await stage.start("PreviewLifecycle")

    await handle.result()

    (deleted,) = await scheduled_at(handle, "delete_expired")
    assert timedelta(0) <= deleted - preview.expires_at < EXACT


async def test_a_change_while_the_failure_is_being_said_is_not_lost(stage: Stage, preview: FakePlatform) -> None:
    with stage.environment.with_time_skipping_disabled():
        preview.failures["read_lifetime"] = [OwnedElsewhere("cannot read it")]
        entered = asyncio.Event()
        go_on = asyncio.Event()

        async def slow() -> None:
            entered.set()
            await go_on.wait()

        preview.during["write_status"] = slow
        handle = await stage.start("PreviewLifecycle")
        await entered.wait()
        await handle.signal("changed")
        await asyncio.sleep(0.2)
        go_on.set()
        await eventually(lambda: "await_rollout" in preview.calls)
    await finish(stage, handle)

    assert preview.calls[-len(CLEANUP) :] == CLEANUP


async def test_the_end_waits_for_the_attempt_in_flight(stage: Stage, preview: FakePlatform) -> None:
    preview.created = datetime.now(UTC)
    preview.ttl = timedelta(seconds=2)
    finished = []

    async def slow() -> None:
        await asyncio.sleep(3)
        finished.append(list(preview.calls))

    with stage.environment.with_time_skipping_disabled():
        preview.during["reconcile_storage"] = slow
        await (await stage.start("PreviewLifecycle")).result()

    assert "delete_expired" not in finished[0]
    assert preview.calls[-len(EXPIRY) :] == EXPIRY
    assert preview.overlaps == []


async def test_a_step_that_fails_does_not_hold_up_the_end(stage: Stage, preview: FakePlatform) -> None:
    preview.claims = [preview.claim(steps=STEPS) for _ in range(1000)]
    preview.failures["reconcile_auth"] = [OwnedElsewhere("cannot adopt")]
    preview.failures["reconcile_database"] = [BackendUnavailable("cannot reach it") for _ in range(4000)]
    preview.ttl = timedelta(hours=3)
    handle = await stage.start("PreviewLifecycle")

    await handle.result()

    (deleted,) = await scheduled_at(handle, "delete_expired")
    assert timedelta(0) <= deleted - preview.expires_at < EXACT


async def test_rounds_begin_anew_once_the_preview_has_settled(stage: Stage, preview: FakePlatform) -> None:
    preview.claims.insert(0, preview.claims[0])
    preview.failures["reconcile_redis"] = [BackendUnavailable("cannot reach it") for _ in range(4)]
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        failed = await pausing(handle)
        await stage.environment.fast_forward(handle, timedelta(seconds=31))
        await resting(stage, handle)
        settled = Progress.model_validate(await handle.query("progress"))
    await finish(stage, handle)

    assert failed.next_retry is not None
    assert (settled.round, settled.phase, settled.step) == (1, Phase.RUNNING, None)


async def test_a_resync_that_did_not_get_through_is_made_up_for(stage: Stage, preview: FakePlatform) -> None:
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await resting(stage, handle)
        preview.failures["claim_object"] = [BackendUnavailable("cannot reach it") for _ in range(4)]
        preview.failures["write_status"] = [BackendUnavailable("cannot reach it") for _ in range(4)]
        await handle.signal("resync")
        await eventually(lambda: not preview.failures["write_status"], seconds=40)
    await finish(stage, handle)

    assert [request.every_step for request in preview.claim_inputs] == [False, *[True] * 5, False]
    assert [request.take_over for request in preview.claim_inputs] == [False, *[True] * 5, False]


async def test_a_repair_takes_no_parent_over_and_a_resync_does(stage: Stage, preview: FakePlatform) -> None:
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await resting(stage, handle)
        for signal in ("repair", "resync", "repair"):
            await send_signal(stage, handle, signal)
    await finish(stage, handle)

    asked = [(request.every_step, request.take_over) for request in preview.claim_inputs[:4]]
    assert asked == [(False, False), (True, False), (True, True), (True, False)]


async def test_a_repair_does_not_weaken_a_resync(stage: Stage, preview: FakePlatform) -> None:
    handle = await stage.start("PreviewLifecycle", signal="resync")
    await handle.signal("repair")
    await finish(stage, handle)

    assert preview.claim_inputs[0].take_over


async def test_a_parent_that_was_taken_over_is_not_taken_again_while_a_step_is_retried(
    stage: Stage, preview: FakePlatform
) -> None:
    preview.claims = [preview.claim(steps=STEPS) for _ in range(3)]
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await resting(stage, handle)
        preview.failures["reconcile_database"] = [BackendRefused("no right")]
        await send_signal(stage, handle, "resync")
        await pausing(handle)
        await stage.environment.fast_forward(handle, timedelta(seconds=31))
        await eventually(lambda: len(preview.claim_inputs) == 3)
    await finish(stage, handle)

    asked = [(request.every_step, request.take_over) for request in preview.claim_inputs[:3]]
    assert asked == [(False, False), (True, True), (True, False)]


async def test_a_take_over_that_was_refused_is_made_up_for_at_the_next_change(
    stage: Stage, preview: FakePlatform
) -> None:
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await resting(stage, handle)
        preview.failures["claim_object"] = [InvalidSpec("spec.domain", "the parent breaks it")]
        await send_signal(stage, handle, "resync")
        await eventually(lambda: len(preview.statuses) == 2)
        await send_signal(stage, handle)
    await finish(stage, handle)

    assert [request.take_over for request in preview.claim_inputs[:3]] == [False, True, True]


async def test_a_new_history_carries_what_is_owed(stage: Stage, preview: FakePlatform) -> None:
    handle = await stage.start("PreviewLifecycle", every_step=True, take_over=True)
    await finish(stage, handle)

    assert (preview.claim_inputs[0].every_step, preview.claim_inputs[0].take_over) == (True, True)


async def test_a_long_history_is_continued_with_the_same_end(stage: Stage, preview: FakePlatform) -> None:
    with stage.environment.with_time_skipping_disabled():
        handle = await stage.start("PreviewLifecycle")
        await resting(stage, handle)
        for _ in range(100):
            await send_signal(stage, handle)
    await finish(stage, handle)

    runs = [run async for run in handle_runs(handle)]
    (deleted,) = await scheduled_at(handle, "delete_expired")
    # At least one on the way, and the cleanup.
    assert len(runs) >= 3
    assert timedelta(0) <= deleted - preview.expires_at < EXACT


async def test_a_cleanup_finds_a_new_preview_of_the_name(stage: Stage, preview: FakePlatform) -> None:
    preview.plans = [CleanupPlan(verdict="recreated")]

    handle = await stage.start("CleanupPreview")
    await handle.result()

    assert preview.calls[: len(PROVISION) + 2] == ["plan_cleanup", "read_lifetime", *PROVISION]


async def test_the_end_of_a_preview_stands_behind_what_people_wait_for(stage: Stage, preview: FakePlatform) -> None:
    handle = await stage.start("PreviewLifecycle")
    await handle.result()

    priorities: dict[str, set[int]] = {}
    async for run in handle_runs(handle):
        async for event in run.fetch_history_events():
            if event.HasField("activity_task_scheduled_event_attributes"):
                attributes = event.activity_task_scheduled_event_attributes
                priorities.setdefault(attributes.activity_type.name, set()).add(attributes.priority.priority_key)

    assert priorities["reconcile_database"] == {0}
    assert priorities["delete_expired"] == {5}
    assert {priorities[name].pop() for name in CLEANUP} == {5}
