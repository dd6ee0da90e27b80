"""Previews from the pull request to the end of their time, on the whole platform."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from temporalio.client import Client
from temporalio.service import RPCError

from clients.kube import KubeClient
from clients.resources import CONFIG_MAPS, DEPLOYMENTS, EVENTS, INGRESSES, LEASES, NAMESPACES, PREVIEWS, Json
from clients.temporal import request_reconcile
from plattr.objects import Kind
from plattr.steps import REPAIR_SIGNAL
from plattr.target import owner_labels
from stack.platform import Platform
from tests.e2e.conftest import open_view
from tests.e2e.view import EVERYTHING, SMALL, View, conditions, random_name

DATABASE = SMALL | {"database": {"enabled": True}}
# The server fires a timer within a second of its moment, and the deletion is one call more.
EXACT = timedelta(seconds=1.5)


def preview_of(parent: str, number: int, **changes: Any) -> dict[str, Any]:
    image = f"registry.example/{parent}:pr-{number}"
    return {"applicationRef": parent, "pullRequest": number, "branch": "topic", "imageRef": image, **changes}


async def applied(view: View, name: str, spec: dict[str, Any]) -> Json:
    await view.apply(name, spec, Kind.PREVIEW)
    return await view.wait_running(name, resource=PREVIEWS)


def selector(view: View, name: str) -> str:
    return ",".join(f"{key}={value}" for key, value in owner_labels(view.reference(name, Kind.PREVIEW)).items())


async def left_of(view: View, name: str, parent: str, number: int) -> list[object]:
    """Return whatever any backend still has of a preview."""
    stem = f"{parent}-pr{number}"
    found: list[object] = []
    found += await view.schemas_and_roles(stem.replace("-", "_"))
    found += view.buckets(f"plattr-preview-{stem}-")
    found += [realm for realm in [view.realm(stem)] if realm is not None]
    found += [body for body in [await view.kube.get(NAMESPACES, f"preview-{parent}-pr-{number}")] if body is not None]
    found += await view.kube.list(LEASES, "plattr-system", label_selector=selector(view, name))
    return found


def end_of(body: Json, ttl: timedelta) -> datetime:
    return datetime.fromisoformat(body["metadata"]["creationTimestamp"]) + ttl


async def deleted_at(view: View, name: str, *, seconds: float) -> datetime:
    """Return when the API server was asked to delete the preview, by its own clock and to the millisecond by ours."""
    async with asyncio.timeout(seconds):
        while True:
            body = await view.kube.get(PREVIEWS, name, view.namespace)
            if body is None or "deletionTimestamp" in body["metadata"]:
                return datetime.now(UTC)
            await asyncio.sleep(0.02)


@pytest.fixture
async def mended(view: View) -> AsyncIterator[View]:
    """A view whose platform is whole again afterwards, whatever the test broke."""
    yield view
    view.platform.start(apps=("worker", "watcher"))


async def test_two_previews_and_their_application_share_nothing(view: View) -> None:
    parent = random_name()
    spec = EVERYTHING | {"scaling": {"min": 3, "max": 9, "targetCPU": 50}}
    await view.apply(parent, spec)
    await view.wait_running(parent)
    bodies = [await applied(view, f"{parent}-{n}", preview_of(parent, n)) for n in (1, 2)]

    secrets = [await view.secret(f"{parent}-db")]
    secrets += [await view.secret(f"{parent}-pr{n}-db", f"preview-{parent}-pr-{n}") for n in (1, 2)]
    owned = [secret for secret in secrets if secret is not None]
    for number, secret in enumerate(owned):
        await view.query(f"create table own_{number} (id int)", secret["DATABASE_URL"])

    assert len({secret["DB_SCHEMA"] for secret in owned}) == 3
    assert len({secret["DB_PASSWORD"] for secret in owned}) == 3
    for secret in owned:
        for number, other in enumerate(owned):
            statement = f"select * from {other['DB_SCHEMA']}.own_{number}"
            if other is secret:
                assert await view.query(statement, secret["DATABASE_URL"]) == []
            else:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await view.query(statement, secret["DATABASE_URL"])
    maps = [await view.config_map(f"{parent}-storage")]
    maps += [await view.config_map(f"{parent}-pr{n}-storage", f"preview-{parent}-pr-{n}") for n in (1, 2)]
    buckets = [{v for k, v in (values or {}).items() if k.startswith("S3_BUCKET_")} for values in maps]
    assert [len(names) for names in buckets] == [2, 2, 2]
    assert len(set().union(*buckets)) == 6
    assert all(view.realm(name) is not None for name in (parent, f"{parent}-pr1", f"{parent}-pr2"))
    assert [body["status"]["url"] for body in bodies] == [
        f"https://pr-{n}.{parent}.preview.platform.localhost" for n in (1, 2)
    ]
    namespace = f"preview-{parent}-pr-1"
    deployment = await view.kube.get(DEPLOYMENTS, f"{parent}-pr1", namespace)
    ingress = await view.kube.get(INGRESSES, f"{parent}-pr1", namespace)
    assert deployment is not None
    assert ingress is not None
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == f"registry.example/{parent}:pr-1"
    assert ingress["spec"]["rules"][0]["host"] == f"pr-1.{parent}.preview.platform.localhost"

    await view.delete(f"{parent}-1", PREVIEWS)
    await view.wait_gone(f"{parent}-1", resource=PREVIEWS)

    assert await left_of(view, f"{parent}-1", parent, 1) == []
    for secret in (owned[0], owned[2]):
        assert await view.query("select 1", secret["DATABASE_URL"]) == [(1,)]
    assert view.realm(parent) is not None
    assert view.buckets(f"plattr-preview-{parent}-pr2-") == buckets[2]


async def warned(view: View) -> None:
    parent, name = random_name(), random_name("pr")
    await view.apply(parent, EVERYTHING)
    body = await applied(view, name, preview_of(parent, 7, ttl="1m"))
    end = end_of(body, timedelta(minutes=1))
    assert body["status"]["expiresAt"] == f"{end:%Y-%m-%dT%H:%M:%SZ}"

    warned = await view.wait(name, lambda o: "Expiring" in conditions(o), resource=PREVIEWS, seconds=70)
    since = datetime.fromisoformat(conditions(warned)["Expiring"]["lastTransitionTime"])
    ended = await deleted_at(view, name, seconds=70)
    await view.wait_gone(name, resource=PREVIEWS)

    # The condition's time is cut to the second.
    assert end - timedelta(seconds=6) <= since <= end - timedelta(seconds=4)
    assert timedelta(0) <= ended - end < EXACT
    assert await left_of(view, name, parent, 7) == []
    selected = f"involvedObject.uid={body['metadata']['uid']}"
    events = await view.kube.list(EVENTS, view.namespace, field_selector=selected)
    assert {"ExpiresSoon", "Expired"} <= {event["reason"] for event in events}


async def raised(view: View) -> None:
    parent, name = random_name(), random_name("pr")
    await view.apply(parent, SMALL)
    spec = preview_of(parent, 8, ttl="1m")
    body = await applied(view, name, spec)
    await view.wait(name, lambda o: "Expiring" in conditions(o), resource=PREVIEWS, seconds=70)

    await view.apply(name, spec | {"ttl": "2h"}, Kind.PREVIEW)
    longer = await view.wait(name, lambda o: "Expiring" not in conditions(o), resource=PREVIEWS)
    longer = await view.wait_running(name, resource=PREVIEWS)
    past = end_of(body, timedelta(minutes=1)) + timedelta(seconds=2) - datetime.now(UTC)
    await asyncio.sleep(max(0.0, past.total_seconds()))
    still = await view.kube.get(PREVIEWS, name, view.namespace)
    await view.apply(name, spec | {"ttl": "1m"}, Kind.PREVIEW)
    await view.wait_gone(name, resource=PREVIEWS)

    assert still is not None
    assert "deletionTimestamp" not in still["metadata"]
    assert longer["status"]["expiresAt"] == f"{end_of(body, timedelta(hours=2)):%Y-%m-%dT%H:%M:%SZ}"
    assert await left_of(view, name, parent, 8) == []


async def paused(view: View) -> None:
    parent, name = random_name(), random_name("pr")
    await view.apply(parent, SMALL)
    body = await applied(view, name, preview_of(parent, 9, ttl="1m"))
    await asyncio.to_thread(view.command, "plattr", "pause", f"preview/{name}", "-n", view.namespace)
    past = end_of(body, timedelta(minutes=1)) + timedelta(seconds=3) - datetime.now(UTC)
    await asyncio.sleep(max(0.0, past.total_seconds()))
    still = await view.kube.get(PREVIEWS, name, view.namespace)

    await asyncio.to_thread(view.command, "plattr", "resume", f"preview/{name}", "-n", view.namespace)
    await view.wait_gone(name, resource=PREVIEWS)

    assert still is not None
    assert "deletionTimestamp" not in still["metadata"]
    assert await left_of(view, name, parent, 9) == []


Story = Callable[[View], Awaitable[None]]
# Each waits out a minute; side by side they are one.
STORIES: tuple[Story, ...] = (warned, raised, paused)


@pytest.fixture(scope="module")
async def told(system: Platform, admin: KubeClient, temporal: Client) -> dict[Story, BaseException | None]:
    """How each story ended, in a namespace of its own."""

    async def tell(story: Story) -> None:
        async with open_view(system, admin, temporal) as view:
            await story(view)

    return dict(zip(STORIES, await asyncio.gather(*map(tell, STORIES), return_exceptions=True), strict=True))


def check(outcome: BaseException | None) -> None:
    if outcome is not None:
        raise outcome


def test_a_preview_is_warned_of_then_ends_to_the_second_and_leaves_nothing(told: dict[Story, Any]) -> None:
    check(told[warned])


def test_a_raised_ttl_moves_the_end_and_takes_the_warning_back(told: dict[Story, Any]) -> None:
    check(told[raised])


def test_a_paused_preview_does_not_end_until_it_is_resumed(told: dict[Story, Any]) -> None:
    check(told[paused])


async def test_a_preview_waits_for_its_parent_and_outlives_it_until_it_is_cleaned_up_whole(view: View) -> None:
    parent, name = random_name(), random_name("pr")
    await view.apply(name, preview_of(parent, 3), Kind.PREVIEW)
    orphan = await view.wait(name, lambda o: o.get("status", {}).get("phase") == "Failed", resource=PREVIEWS)
    await view.apply(parent, EVERYTHING)
    await view.wait_running(parent)
    await view.wait_running(name, resource=PREVIEWS, seconds=90)

    await view.delete(parent)
    await view.wait_gone(parent)
    await view.settle(parent)
    await view.delete(name, PREVIEWS)
    await view.wait_gone(name, resource=PREVIEWS)

    assert conditions(orphan)["Ready"]["reason"] == "ParentNotFound"
    assert await left_of(view, name, parent, 3) == []


async def test_the_parents_changes_come_with_a_resync_only(view: View) -> None:
    parent, name = random_name(), random_name("pr")
    await view.apply(parent, SMALL)
    await view.wait_running(parent)
    await applied(view, name, preview_of(parent, 4))
    namespace = f"preview-{parent}-pr-4"

    await view.apply(parent, SMALL | {"search": {"enabled": True}})
    await view.wait_running(parent)
    view.command("plattr", "preview", "extend", name, "--by", "24h", "-n", view.namespace)
    await view.wait_running(name, resource=PREVIEWS)
    await repaired(view, name, f"{parent}-pr4-redis", namespace)
    by_itself = await view.config_map(f"{parent}-pr4-search", namespace)
    view.command("plattr", "resync", f"preview/{name}", "-n", view.namespace)
    async with asyncio.timeout(30):
        while await view.config_map(f"{parent}-pr4-search", namespace) is None:
            await asyncio.sleep(0.1)

    assert by_itself is None


async def repaired(view: View, name: str, config_map: str, namespace: str) -> None:
    """Have a period of ResyncFleet's look at the preview, and wait until it has mended something."""
    await view.kube.delete(CONFIG_MAPS, config_map, namespace)
    await request_reconcile(view.temporal, view.reference(name, Kind.PREVIEW), is_deleting=False, signal=REPAIR_SIGNAL)
    async with asyncio.timeout(30):
        while await view.config_map(config_map, namespace) is None:
            await asyncio.sleep(0.1)
    # The steps after it: the workload is the last that makes anything, the rollout and the status follow.
    await view.wait_running(name, resource=PREVIEWS)


async def test_a_running_preview_outlives_its_parent(view: View) -> None:
    parent, name = random_name(), random_name("pr")
    await view.apply(parent, SMALL)
    await applied(view, name, preview_of(parent, 12))
    await view.delete(parent)
    await view.wait_gone(parent)

    await repaired(view, name, f"{parent}-pr12-redis", f"preview-{parent}-pr-12")

    body = await view.kube.get(PREVIEWS, name, view.namespace)
    assert body is not None
    assert body["status"]["phase"] == "Running"


async def test_variables_from_the_parents_secrets_are_left_out_and_said(view: View) -> None:
    parent, name = random_name(), random_name("pr")
    variables = [
        {"name": "GREETING", "value": "hello"},
        {"name": "TOKEN", "secretKeyRef": {"name": "tokens", "key": "token"}},
    ]
    await view.apply(parent, SMALL | {"envVars": variables})
    body = await applied(view, name, preview_of(parent, 5))

    deployment = await view.kube.get(DEPLOYMENTS, f"{parent}-pr5", f"preview-{parent}-pr-5")
    selected = f"involvedObject.uid={body['metadata']['uid']}"
    events = await view.kube.list(EVENTS, view.namespace, field_selector=selected)

    assert deployment is not None
    names = {each["name"] for each in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert "GREETING" in names
    assert "TOKEN" not in names
    assert [
        event["message"] for event in events if event["reason"] == "VariablesNotCopied" and "TOKEN" in event["message"]
    ]


async def test_a_second_preview_of_the_pull_request_is_refused_and_takes_nothing_along(view: View) -> None:
    parent, first, second = random_name(), random_name("pr"), random_name("pr")
    await view.apply(parent, DATABASE)
    await applied(view, first, preview_of(parent, 6))

    await view.apply(second, preview_of(parent, 6), Kind.PREVIEW)
    refused = await view.wait(second, lambda o: o.get("status", {}).get("phase") == "Failed", resource=PREVIEWS)
    await view.delete(second, PREVIEWS)
    await view.wait_gone(second, resource=PREVIEWS)

    assert "OwnedElsewhere" in {condition["reason"] for condition in conditions(refused).values()}
    secret = await view.secret(f"{parent}-pr6-db", f"preview-{parent}-pr-6")
    assert secret is not None
    assert await view.query("select 1", secret["DATABASE_URL"]) == [(1,)]


async def test_a_preview_whose_end_came_while_the_worker_was_down_goes_at_its_return(mended: View) -> None:
    parent, name = random_name(), random_name("pr")
    await mended.apply(parent, EVERYTHING)
    body = await applied(mended, name, preview_of(parent, 10, ttl="1m"))
    mended.platform.stop_service("worker")
    past = end_of(body, timedelta(minutes=1)) + timedelta(seconds=3) - datetime.now(UTC)
    await asyncio.sleep(max(0.0, past.total_seconds()))

    await asyncio.to_thread(mended.platform.start_service, "worker")
    back = datetime.now(UTC)
    ended = await deleted_at(mended, name, seconds=30)
    await mended.wait_gone(name, resource=PREVIEWS)

    # The start counts as done when the worker is ready; it may have gone to work a moment before.
    assert ended - back < timedelta(seconds=5)
    assert await left_of(mended, name, parent, 10) == []


async def test_with_temporals_database_lost_nothing_settled_runs_and_previews_end_on_time(mended: View) -> None:
    parent, name = random_name(), random_name("pr")
    await mended.apply(parent, DATABASE)
    await mended.wait_running(parent)
    body = await applied(mended, name, preview_of(parent, 11, ttl="2m"))
    end = end_of(body, timedelta(minutes=2))

    mended.platform.stop_service("temporal")
    for path in (mended.platform.folders.service("temporal")).glob("temporal.db*"):
        path.unlink()
    await asyncio.to_thread(mended.platform.start_service, "temporal")

    # Neither the watcher nor the worker was restarted: the worker notices that its Schedule has gone.
    ended = await deleted_at(mended, name, seconds=150)
    await mended.wait_gone(name, resource=PREVIEWS)
    assert timedelta(0) <= ended - end < EXACT
    assert await left_of(mended, name, parent, 11) == []
    with pytest.raises(RPCError):
        await mended.run_of(parent).describe()
