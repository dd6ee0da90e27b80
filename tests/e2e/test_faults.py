"""What people fear: a backend that is away, a worker that dies half way, a deletion nobody saw."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.service import RPCError

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


@pytest.mark.parametrize(
    ("service", "spec", "condition"),
    [("postgres", DATABASE, "DatabaseReady"), ("s3", STORAGE, "StorageReady"), ("keycloak", AUTH, "AuthReady")],
    ids=["postgres", "s3", "keycloak"],
)
async def test_an_outage_is_said_retried_and_healed(
    mended: View, service: str, spec: dict[str, Any], condition: str
) -> None:
    name = random_name()
    mended.platform.stop_service(service)
    await mended.apply(name, spec)

    failed = await mended.wait_failed(name, seconds=120)
    history = await mended.run_of(name).fetch_history()
    # Asynchronously: Keycloak takes its time to come up, and Plattr must not need anybody meanwhile.
    await asyncio.to_thread(mended.platform.start_service, service)
    await mended.wait_running(name, seconds=180)

    assert conditions(failed)[condition]["status"] == "False"
    assert conditions(failed)[condition]["reason"] == "BackendUnavailable"
    started = [
        event.activity_task_started_event_attributes
        for event in history.events
        if event.HasField("activity_task_started_event_attributes")
    ]
    assert max(attributes.attempt for attributes in started) == 4


async def test_the_delays_between_attempts_are_the_seeds(mended: View) -> None:
    name = random_name()
    mended.platform.stop_service("s3")
    await mended.apply(name, STORAGE)
    delays: dict[int, float] = {}

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(delays) < 3:
        activity = await pending(mended, name)
        if activity is not None and activity.attempt > 1 and activity.HasField("current_retry_interval"):
            delays[activity.attempt - 1] = activity.current_retry_interval.ToTimedelta() / timedelta(seconds=1)
        await asyncio.sleep(0.05)
    mended.platform.start_service("s3")
    await mended.wait_running(name, seconds=120)

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


async def test_a_crashing_image_is_said_and_heals_with_the_next_one(view: View) -> None:
    name = random_name()
    await view.apply(name, SMALL | {"imageRef": "registry.example/app:sim-crashloop"})

    failed = await view.wait_failed(name, seconds=90)
    await view.apply(name, SMALL | {"imageRef": "registry.example/app:2"})
    await view.wait_running(name)

    assert conditions(failed)["DeploymentReady"]["reason"] == "CrashLoopBackOff"


async def test_failed_objects_are_found_by_their_phase(view: View) -> None:
    name = random_name()
    await view.apply(name, SMALL | {"imageRef": "registry.example/app:sim-imagepull"})
    await view.wait_failed(name, seconds=90)

    async def listed() -> str:
        query = f'PlattrPhase="Failed" and PlattrName="{name}"'
        return view.command("temporal", "workflow", "list", "--query", query).stdout

    async with asyncio.timeout(10):
        while f"application/{view.namespace}/{name}" not in await listed():
            await asyncio.sleep(0.2)


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
