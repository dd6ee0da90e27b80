"""What people fear: a backend that is away, a worker that dies half way, a deletion nobody saw."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client
from temporalio.service import RPCError

from clients.kube import KubeClient
from clients.resources import Json
from stack.platform import Platform
from tests.e2e.conftest import open_view
from tests.e2e.view import EVERYTHING, SMALL, View, conditions, random_name

DATABASE = SMALL | {"database": {"enabled": True}}
STORAGE = SMALL | {"storage": {"enabled": True, "buckets": [{"name": "files"}]}}
AUTH = SMALL | {"auth": {"enabled": True}}


async def pending(view: View, name: str) -> PendingActivityInfo | None:
    try:
        description = await view.run_of(name).describe()
    except RPCError:
        return None  # the watcher has not seen the object yet
    activities = description.raw_description.pending_activities
    return activities[0] if activities else None


@pytest.fixture
async def mended(view: View) -> AsyncIterator[View]:
    """A view whose platform is whole again afterwards, whatever the test broke."""
    yield view
    view.platform.start(apps=("worker", "watcher"))


@dataclass(frozen=True)
class Outage:
    """What an application went through whose backend was away until it had failed."""

    failed: Json
    attempts: int
    delays: dict[int, float]
    """The seconds between an attempt and the next, as far as they were seen."""


NEEDS: dict[str, tuple[dict[str, Any], str]] = {
    "postgres": (DATABASE, "DatabaseReady"),
    "s3": (STORAGE, "StorageReady"),
    "keycloak": (AUTH, "AuthReady"),
}


@pytest.fixture(scope="module")
async def outages(system: Platform, admin: KubeClient, temporal: Client) -> AsyncIterator[dict[str, Outage]]:
    """Three backends away at once, and an application for each that needs it alone: side by side they are one wait."""

    async with contextlib.AsyncExitStack() as stack:
        views = [await stack.enter_async_context(open_view(system, admin, temporal)) for _ in NEEDS]
        for service in NEEDS:
            system.stop_service(service)
        try:
            found = await asyncio.gather(*map(suffer, views, NEEDS))
        finally:
            system.start(apps=("worker", "watcher"))
        yield dict(zip(NEEDS, found, strict=True))


async def suffer(view: View, service: str) -> Outage:
    """Apply what needs a backend that is away, and bring that back when it has failed."""
    name = random_name()
    await view.apply(name, NEEDS[service][0])
    watching = asyncio.create_task(delays_of(view, name))
    failed = await view.wait_failed(name, seconds=120)
    watching.cancel()
    history = await view.run_of(name).fetch_history()
    # In a thread: Keycloak takes its time to come up, and Plattr must not need anybody meanwhile.
    await asyncio.to_thread(view.platform.start_service, service)
    await view.wait_running(name, seconds=180)
    started = [
        event.activity_task_started_event_attributes.attempt
        for event in history.events
        if event.HasField("activity_task_started_event_attributes")
    ]
    return Outage(failed, max(started), await watching)


async def delays_of(view: View, name: str) -> dict[int, float]:
    """Watch a run until cancelled; return each delay before an attempt by the attempt that it follows."""
    delays: dict[int, float] = {}
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            activity = await pending(view, name)
            if activity is not None and activity.attempt > 1 and activity.HasField("current_retry_interval"):
                delays[activity.attempt - 1] = activity.current_retry_interval.ToTimedelta() / timedelta(seconds=1)
            await asyncio.sleep(0.1)
    return delays


@pytest.mark.parametrize("service", NEEDS)
def test_an_outage_is_said_retried_and_healed(outages: dict[str, Outage], service: str) -> None:
    outage = outages[service]
    condition = conditions(outage.failed)[NEEDS[service][1]]

    assert (condition["status"], condition["reason"]) == ("False", "BackendUnavailable")
    assert outage.attempts == 4


@pytest.mark.parametrize("service", NEEDS)
def test_the_delays_between_attempts_are_the_seeds(outages: dict[str, Outage], service: str) -> None:
    delays = outages[service].delays

    for attempt, delay in delays.items():
        assert 0.5 * 2 ** (attempt - 1) <= delay <= 1.5 * 2 ** (attempt - 1), (attempt, delay)
    assert delays


async def test_the_api_server_away_for_a_while_loses_nothing(mended: View) -> None:
    name = random_name()
    await mended.apply(name, DATABASE)
    await mended.wait_running(name)
    await mended.apply(name, DATABASE | {"imageRef": "registry.example/app:2"})

    mended.platform.stop_service("kube-apiserver")
    await asyncio.sleep(12)
    mended.platform.start_service("kube-apiserver")

    body = await mended.wait_running(name, seconds=120)
    assert body["spec"]["imageRef"] == "registry.example/app:2"


async def test_temporal_away_while_objects_change_loses_nothing(mended: View) -> None:
    kept, gone, new = random_name(), random_name(), random_name()
    for name in (kept, gone):
        await mended.apply(name, SMALL)
        await mended.wait_running(name)

    mended.platform.stop_service("temporal")
    await mended.apply(kept, SMALL | {"imageRef": "registry.example/app:2"})
    await mended.apply(new, SMALL)
    await mended.delete(gone)
    await asyncio.sleep(5)
    mended.platform.start_service("temporal")

    await mended.wait_running(kept, seconds=120)
    await mended.wait_running(new, seconds=120)
    await mended.wait_gone(gone, seconds=120)


async def test_a_worker_killed_half_way_is_taken_over_with_the_same_password(mended: View) -> None:
    name = random_name()
    await mended.apply(name, EVERYTHING)
    while await mended.secret(f"{name}-db") is None:
        await asyncio.sleep(0.02)
    first = await mended.secret(f"{name}-db")
    mended.platform.kill_service("worker")

    await mended.wait_running(name, seconds=120)

    second = await mended.secret(f"{name}-db")
    assert first == second
    assert second is not None
    assert await mended.query("select 1", second["DATABASE_URL"]) == [(1,)]


async def test_an_object_deleted_while_nobody_looked_is_cleaned_up(mended: View) -> None:
    name = random_name()
    await mended.apply(name, EVERYTHING)
    await mended.wait_running(name)
    await mended.settle(name)
    mended.platform.stop_service("watcher")
    mended.platform.stop_service("worker")

    await mended.delete(name)
    mended.platform.start(apps=("worker", "watcher"))
    await mended.wait_gone(name)

    assert await mended.schemas_and_roles(f"prod_{name.replace('-', '_')}") == set()
    assert mended.buckets(f"plattr-prod-{name}-") == set()
    assert mended.realm(name) is None


async def test_images_that_do_not_run_are_said_found_by_their_phase_and_heal_with_the_next_one(view: View) -> None:
    names = {"CrashLoopBackOff": random_name(), "ImagePullBackOff": random_name()}
    for name, tag in zip(names.values(), ("sim-crashloop", "sim-imagepull"), strict=True):
        await view.apply(name, SMALL | {"imageRef": f"registry.example/app:{tag}"})

    for reason, name in names.items():
        failed = await view.wait_failed(name, seconds=90)
        assert conditions(failed)["DeploymentReady"]["reason"] == reason
        query = f'PlattrPhase="Failed" and PlattrName="{name}"'
        async with asyncio.timeout(10):
            while f"application/{view.namespace}/{name}" not in listed(view, query):
                await asyncio.sleep(0.2)
    for name in names.values():
        await view.apply(name, SMALL | {"imageRef": "registry.example/app:2"})
    for name in names.values():
        await view.wait_running(name)


def listed(view: View, query: str) -> str:
    return view.command("temporal", "workflow", "list", "--query", query).stdout


async def test_the_password_is_in_no_history_log_or_event(view: View) -> None:
    name = random_name()
    await view.apply(name, EVERYTHING)
    await view.wait_running(name)
    secret = await view.secret(f"{name}-db")
    assert secret is not None
    canary = secret["DB_PASSWORD"]

    history = view.command(
        "temporal", "workflow", "show", "-w", f"application/{view.namespace}/{name}", "--output", "json"
    ).stdout
    logs = "".join(path.read_text(errors="replace") for path in view.platform.endpoints.log_dir.glob("*.log*"))
    events = view.command("kubectl", "get", "events", "-A", "-o", "json").stdout

    assert "reconcile_database" in history
    assert name in events
    assert canary not in history
    assert canary not in logs
    assert canary not in events
