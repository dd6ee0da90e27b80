"""Many at once, and one many times at once: several workers, edits in bursts, deletions at every moment."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from clients.resources import APPLICATIONS, DEPLOYMENTS, SECRETS
from plattr.target import OWNER_UID_ANNOTATION
from stack.platform import Platform
from stack.processes import base_environment
from tests.e2e.leftovers import leftovers
from tests.e2e.view import EVERYTHING, SMALL, View, random_name

# Redis is in it, so that a ConfigMap is.
DATABASE = SMALL | {"database": {"enabled": True}}
STORAGE = DATABASE | {"storage": {"enabled": True, "buckets": [{"name": "files"}]}}
AUTH = DATABASE | {"auth": {"enabled": True}}

# What PostgreSQL says of DDL that met: SQLSTATE 40P01, XX000, 40001, 23505.
MEETINGS = ("deadlock detected", "concurrently updated", "could not serialize", "duplicate key value")


class Logs:
    """What PostgreSQL and the workers say from now on."""

    def __init__(self, platform: Platform, *more: Path) -> None:
        self._paths = [*(platform.endpoints.log_dir / name for name in ("postgres.log", "worker.log")), *more]
        self._sizes = {path: path.stat().st_size if path.exists() else 0 for path in self._paths}

    def lines_with(self, *texts: str) -> list[str]:
        found = []
        for path in self._paths:
            with path.open("rb") as file:
                file.seek(self._sizes[path])
                lines = file.read().decode(errors="replace").splitlines()
            found += [line for line in lines if any(text in line for text in texts)]
        return found


@contextlib.contextmanager
def more_workers(platform: Platform, count: int, folder: Path) -> Iterator[None]:
    """Run more workers beside the platform's own; their logs are in the folder."""
    environment = base_environment() | platform.environment("worker") | {"METRICS_PORT": "0"}
    logs = [folder / f"worker-{number}.log" for number in range(count)]
    processes = []
    try:
        for log in logs:
            with log.open("wb") as output:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "worker"],
                        env=environment,
                        cwd=Path(__file__).parents[2],
                        stdout=output,
                        stderr=output,
                    )
                )
        deadline = time.monotonic() + 60
        while not all("worker started" in log.read_text() for log in logs):
            assert time.monotonic() < deadline, [log.read_text() for log in logs]
            time.sleep(0.2)
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(60)


@pytest.fixture
async def whole(view: View) -> View:
    """A view whose platform has its worker and watcher, whatever another test left stopped."""
    view.platform.start(apps=("worker", "watcher"))
    return view


async def create(view: View, name: str, spec: dict[str, Any]) -> dict[str, Any] | None:
    """Create, never change: an object of this name that is on its way out is not touched."""
    body = {
        "apiVersion": "platform.internal/v1alpha1",
        "kind": "Application",
        "metadata": {"name": name, "namespace": view.namespace},
        "spec": spec,
    }
    return await view.kube.create(APPLICATIONS, body, view.namespace)


async def create_again(view: View, name: str, spec: dict[str, Any], *, seconds: float = 120) -> dict[str, Any]:
    """Create as soon as the one before is gone."""
    async with asyncio.timeout(seconds):
        while (created := await create(view, name, spec)) is None:
            await asyncio.sleep(0.01)
    return created


def spec_of(number: int) -> dict[str, Any]:
    """Every tenth has a bucket, another tenth a realm."""
    return STORAGE if number % 10 == 3 else AUTH if number % 10 == 7 else DATABASE


@pytest.mark.parametrize(
    ("count", "workers"),
    [(30, 2), pytest.param(100, 4, marks=pytest.mark.long)],
    ids=["30-at-2-workers", "100-at-4-workers"],
)
async def test_applications_at_once_disturb_each_other_nowhere(
    whole: View, tmp_path: Path, count: int, workers: int
) -> None:
    names = [random_name() for _ in range(count)]
    logs = Logs(whole.platform, *(tmp_path / f"worker-{number}.log" for number in range(workers - 1)))

    with more_workers(whole.platform, workers - 1, tmp_path):
        await asyncio.gather(*(create(whole, name, spec_of(number)) for number, name in enumerate(names)))
        await asyncio.gather(*(whole.wait_running(name, seconds=5 * count) for name in names))
        rows = await whole.query(f"select nspname from pg_namespace where nspname = any(array{schemas(names)})")
        await asyncio.gather(*(whole.delete(name) for name in names))
        await asyncio.gather(*(whole.wait_gone(name, seconds=5 * count) for name in names))
        workers_seen = await identities(whole, names)

    assert len(rows) == count
    assert len(workers_seen) == workers
    assert logs.lines_with(*MEETINGS, "Unexpected") == []
    assert await leftovers(whole, *names, prefix="staging") == set()


async def identities(view: View, names: list[str]) -> set[str]:
    """Return which workers ran the applications' activities."""
    histories = [await view.run_of(name).fetch_history() for name in names]
    return {
        event.activity_task_started_event_attributes.identity
        for history in histories
        for event in history.events
        if event.HasField("activity_task_started_event_attributes")
    }


def schemas(names: list[str]) -> list[str]:
    return [f"staging_{name.replace('-', '_')}" for name in names]


async def test_twenty_edits_in_a_second_end_in_the_last(whole: View) -> None:
    name = random_name()
    await whole.apply(name, DATABASE)
    begun = time.monotonic()

    for number in range(1, 21):
        operations = [{"op": "add", "path": "/spec/imageRef", "value": f"registry.example/app:{number}"}]
        await whole.kube.json_patch(APPLICATIONS, name, operations, whole.namespace)
        await asyncio.sleep(max(0.0, begun + number / 20 - time.monotonic()))
    body = await whole.wait_running(name, seconds=120)

    deployment = await whole.kube.get(DEPLOYMENTS, name, whole.namespace)
    assert deployment is not None
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/app:20"
    assert body["status"]["observedGeneration"] == body["metadata"]["generation"] == 21


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.2, 0.5, 0.9], ids=lambda seconds: f"after-{seconds}")
async def test_an_object_deleted_right_after_it_was_applied_and_applied_again_is_provisioned(
    whole: View, seconds: float
) -> None:
    name = random_name()
    first = await create(whole, name, DATABASE)
    await asyncio.sleep(seconds)
    await whole.delete(name)

    second = await create_again(whole, name, DATABASE)
    await whole.wait_running(name, seconds=120)

    assert first is not None
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    await assert_provisioned(whole, name, second["metadata"]["uid"])


async def test_an_object_removed_by_force_and_applied_again_at_once_is_provisioned(whole: View) -> None:
    name = random_name()
    await create(whole, name, DATABASE)
    await whole.wait_running(name)

    operations = [{"op": "replace", "path": "/metadata/finalizers", "value": []}]
    await whole.kube.json_patch(APPLICATIONS, name, operations, whole.namespace)
    await whole.delete(name)
    remade = await create_again(whole, name, DATABASE)
    await whole.wait_running(name, seconds=120)
    await whole.settle(name)

    await assert_provisioned(whole, name, remade["metadata"]["uid"])


async def assert_provisioned(view: View, name: str, uid: str) -> None:
    """The database works, and all of it is this incarnation's."""
    values = await view.secret(f"{name}-db")
    secret = await view.kube.get(SECRETS, f"{name}-db", view.namespace)
    assert values is not None
    assert secret is not None
    assert secret["metadata"]["annotations"][OWNER_UID_ANNOTATION] == uid
    assert await view.query("select 1", values["DATABASE_URL"]) == [(1,)]
    [(comment,)] = await view.query(
        f"select obj_description('{values['DB_SCHEMA']}'::regnamespace, 'pg_namespace')", values["DATABASE_URL"]
    )
    assert uid in comment


ACTIVITIES = (
    "claim_object",
    "reconcile_database",
    "reconcile_storage",
    "reconcile_auth",
    "reconcile_redis",
    "reconcile_search",
    "reconcile_workload",
    "await_rollout",
    "write_status",
)


# 8 times nine at once: they keep each other busy, so that quick steps take longer; what was not met has all nine.
TRIES = 8


async def when_scheduled(view: View, name: str, activity: str) -> WorkflowHandle[Any, Any]:
    """Return the object's run at the moment it asks for an activity."""
    async with asyncio.timeout(120):
        while True:
            try:
                run_id = (await view.run_of(name).describe()).run_id
                run = view.temporal.get_workflow_handle(view.run_of(name).id, run_id=run_id)
                async for event in run.fetch_history_events(wait_new_event=True):
                    if event.activity_task_scheduled_event_attributes.activity_type.name == activity:
                        return run
            except RPCError:
                # The watcher has not seen the object yet.
                await asyncio.sleep(0.01)


async def was_under_way(run: WorkflowHandle[Any, Any], activity: str, moment: datetime) -> bool:
    """Tell whether the run's first attempt at an activity had not ended at a moment."""
    events = (await run.fetch_history()).events
    scheduled = next(
        event.event_id
        for event in events
        if event.activity_task_scheduled_event_attributes.activity_type.name == activity
    )
    ended = [
        event.event_time.ToDatetime(UTC)
        for event in events
        if scheduled
        in (
            event.activity_task_completed_event_attributes.scheduled_event_id,
            event.activity_task_failed_event_attributes.scheduled_event_id,
            event.activity_task_canceled_event_attributes.scheduled_event_id,
        )
    ]
    return not ended or ended[0] > moment


async def test_a_deletion_during_any_step_leaves_nothing(whole: View) -> None:
    names: list[str] = []
    met: set[str] = set()

    async def interrupt(activity: str) -> None:
        name = random_name()
        names.append(name)
        waiting = asyncio.create_task(when_scheduled(whole, name, activity))
        await create(whole, name, EVERYTHING)
        run = await waiting
        await whole.delete(name)
        deleted = datetime.now(UTC)
        await whole.wait_gone(name, seconds=180)
        await whole.settle(name)
        if await was_under_way(run, activity, deleted):
            met.add(activity)

    # Some steps take no longer than the word of them to us and the deletion back.
    for _ in range(TRIES):
        if unmet := [activity for activity in ACTIVITIES if activity not in met]:
            await asyncio.gather(*(interrupt(activity) for activity, _ in zip(cycle(unmet), ACTIVITIES, strict=False)))

    assert await leftovers(whole, *names) == set(), names
    assert met == set(ACTIVITIES)
