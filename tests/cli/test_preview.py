"""`plattr preview`: a pull request's environment is started, kept, extended and deleted."""

import asyncio
from datetime import timedelta

import pytest

from cli import preview as commands
from clients.resources import PREVIEWS, Json
from plattr.objects import Kind
from tests.cli.conftest import Plattr
from tests.fix_kubernetes import Cluster, random_name

HELD = {"finalizers": ["example.test/hold"]}


@pytest.fixture
async def parent(cluster: Cluster, namespace: str) -> str:
    return (await cluster.apply(namespace, random_name())).metadata.name


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every preview be made five days earlier than it was: the API server sets the time of a creation itself."""
    made = commands.created_at
    monkeypatch.setattr(commands, "created_at", lambda preview: made(preview) - timedelta(days=5))


async def spec_of(cluster: Cluster, namespace: str, name: str) -> Json:
    body = await cluster.admin.get(PREVIEWS, name, namespace)
    assert body is not None
    spec: Json = body["spec"]
    return spec


async def test_a_preview_is_started_changed_listed_extended_and_deleted(
    plattr: Plattr, cluster: Cluster, namespace: str, parent: str
) -> None:
    mine = ("--app", parent, "--pr", "12", "-n", namespace)
    started = await plattr("preview", "start", *mine, "--branch", "topic", "--ttl", "3h")
    changed = await plattr("preview", "start", *mine, "--branch", "next", "--image", "registry.test/app:2")
    listed = await plattr("preview", "list", "--app", parent)
    extended = await plattr("preview", "extend", *mine, "--by", "24h")
    too_long = await plattr("preview", "extend", f"{parent}-pr-12", "-n", namespace, "--ttl", "31d")
    spec = await spec_of(cluster, namespace, f"{parent}-pr-12")
    deleted = await plattr("preview", "delete", *mine, "--yes", "--wait")

    assert [outcome.exit_code for outcome in (started, changed, listed, extended, deleted)] == [0, 0, 0, 0, 0]
    assert f"{parent}-pr-12" in listed.stdout
    assert (spec["branch"], spec["imageRef"]) == ("next", "registry.test/app:2")
    assert spec["ttl"] == f"{(3 + 24) * 60}m"
    assert too_long.exit_code == 1
    assert "30d" in too_long.stderr
    assert await cluster.admin.get(PREVIEWS, f"{parent}-pr-12", namespace) is None


async def test_another_start_keeps_the_ttl_and_the_image_that_it_does_not_name(
    plattr: Plattr, cluster: Cluster, namespace: str, parent: str
) -> None:
    mine = ("--app", parent, "--pr", "12", "-n", namespace)
    await plattr("preview", "start", *mine, "--branch", "topic", "--image", "registry.test/app:1")
    await plattr("preview", "extend", *mine, "--ttl", "7d")

    again = await plattr("preview", "start", *mine, "--branch", "topic")
    kept = await spec_of(cluster, namespace, f"{parent}-pr-12")
    named = await plattr(
        "preview", "start", *mine, "--branch", "topic", "--ttl", "4d", "--image", "registry.test/app:2"
    )

    assert (again.exit_code, named.exit_code) == (0, 0), (again, named)
    assert (kept["ttl"], kept["imageRef"]) == ("7d", "registry.test/app:1")
    spec = await spec_of(cluster, namespace, f"{parent}-pr-12")
    assert (spec["ttl"], spec["imageRef"]) == ("4d", "registry.test/app:2")


async def test_a_first_start_without_a_ttl_is_three_days(
    plattr: Plattr, cluster: Cluster, namespace: str, parent: str
) -> None:
    await plattr("preview", "start", "--app", parent, "--pr", "12", "-n", namespace, "--branch", "topic")

    assert (await spec_of(cluster, namespace, f"{parent}-pr-12"))["ttl"] == "72h"


@pytest.mark.parametrize(
    "command", [("start", "--branch", "topic", "--ttl", "3d"), ("extend", "--ttl", "3d"), ("extend", "--by", "1h")]
)
async def test_an_end_in_the_past_needs_a_yes(
    plattr: Plattr, cluster: Cluster, namespace: str, parent: str, older: None, command: tuple[str, ...]
) -> None:
    mine = ("--app", parent, "--pr", "12", "-n", namespace)
    await plattr("preview", "start", *mine, "--branch", "topic", "--ttl", "72h")
    verb, *options = command

    refused = await plattr("preview", verb, *mine, *options)
    before = await spec_of(cluster, namespace, f"{parent}-pr-12")
    agreed = await plattr("preview", verb, *mine, *options, "--yes")

    assert (refused.exit_code, agreed.exit_code) == (1, 0), (refused, agreed)
    assert "deleted at once" in refused.stderr
    assert "--yes" in refused.stderr
    assert before["ttl"] == "72h"


async def test_a_start_does_not_run_into_an_end_that_is_over(
    plattr: Plattr, cluster: Cluster, namespace: str, parent: str, older: None
) -> None:
    mine = ("--app", parent, "--pr", "12", "-n", namespace, "--branch", "topic")
    await plattr("preview", "start", *mine)

    over = await plattr("preview", "start", *mine)
    longer = await plattr("preview", "start", *mine, "--ttl", "10d")

    assert (over.exit_code, longer.exit_code) == (1, 0), (over, longer)
    assert "deleted at once" in over.stderr


@pytest.mark.parametrize("command", [("start", "--branch", "topic"), ("extend", "--by", "1h")], ids=lambda c: c[0])
async def test_a_preview_that_is_being_deleted_is_neither_extended_nor_started(
    plattr: Plattr, cluster: Cluster, namespace: str, parent: str, command: tuple[str, ...]
) -> None:
    spec = {"applicationRef": parent, "pullRequest": 12, "branch": "topic", "ttl": "3h"}
    preview = await cluster.apply(namespace, random_name(), spec, kind=Kind.PREVIEW, metadata=HELD)
    await cluster.delete(preview.reference)
    verb, *options = command

    outcome = await plattr("preview", verb, "--app", parent, "--pr", "12", "-n", namespace, *options)

    assert outcome.exit_code == 1
    assert outcome.stdout == ""
    assert "being deleted" in outcome.stderr
    assert (await cluster.read(preview.reference)).spec["ttl"] == "3h"


async def test_with_wait_a_preview_is_made_anew_when_its_predecessor_is_gone(
    plattr: Plattr, cluster: Cluster, namespace: str, parent: str
) -> None:
    spec = {"applicationRef": parent, "pullRequest": 12, "branch": "topic", "ttl": "3h"}
    old = await cluster.apply(namespace, f"{parent}-pr-12", spec, kind=Kind.PREVIEW, metadata=HELD)
    await cluster.delete(old.reference)
    mine = ("--app", parent, "--pr", "12", "-n", namespace, "--branch", "next")
    waiting = asyncio.create_task(plattr("preview", "start", *mine, "--wait", "--timeout", "20s"))
    await asyncio.sleep(2)
    await cluster.let_go(old.reference)
    async with asyncio.timeout(10):
        while (body := await cluster.body(old.reference)) is None or body["metadata"]["uid"] == old.metadata.uid:
            await asyncio.sleep(0.1)
    new = await cluster.settle(await cluster.read(old.reference))

    outcome = await asyncio.wait_for(waiting, 20)

    assert outcome.exit_code == 0, outcome
    assert "gone after" in outcome.stdout
    assert (new.spec["branch"], new.spec["ttl"]) == ("next", "72h")


async def test_a_preview_made_by_hand_is_not_made_twice(
    plattr: Plattr, cluster: Cluster, namespace: str, parent: str
) -> None:
    by_hand = await cluster.preview(namespace, random_name(), parent)

    await plattr("preview", "start", "--app", parent, "--pr", "7", "-n", namespace, "--branch", "next")

    previews = await cluster.admin.list(PREVIEWS, namespace)
    assert [(body["metadata"]["name"], body["spec"]["branch"]) for body in previews] == [
        (by_hand.metadata.name, "next")
    ]


async def test_a_preview_of_no_application_is_refused(plattr: Plattr, namespace: str) -> None:
    outcome = await plattr("preview", "start", "--app", "nobody", "--pr", "1", "-n", namespace, "--branch", "x")

    assert outcome.exit_code == 1
    assert "nobody" in outcome.stderr


@pytest.mark.parametrize("command", [("extend", "--by", "1h"), ("delete", "--yes")], ids=lambda c: c[0])
async def test_without_a_namespace_only_the_contexts_own_is_acted_in(
    plattr: Plattr, cluster: Cluster, namespace: str, parent: str, command: tuple[str, ...]
) -> None:
    preview = await cluster.preview(namespace, random_name(), parent, ttl="3h")
    verb, *options = command

    outcome = await plattr("preview", verb, "--app", parent, "--pr", "7", *options)

    assert (outcome.exit_code, outcome.stderr.count("\n")) == (1, 1)
    assert "in namespace 'default'" in outcome.stderr
    assert "-n" in outcome.stderr
    after = await cluster.read(preview.reference)
    assert (after.is_deleting, after.spec["ttl"]) == (False, "3h")
