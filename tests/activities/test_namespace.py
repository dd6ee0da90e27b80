"""The namespaces of previews on a real API server."""

import secrets
from collections.abc import AsyncIterator

import pytest

from activities import namespace
from activities.clients.resources import CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, PODS, Json
from plattr.claims import Claim, Holding
from plattr.errors import OwnedElsewhere, StillDeleting
from plattr.steps import StepInput
from tests.fix_workload import Team


@pytest.fixture
async def parent(team: Team) -> AsyncIterator[str]:
    """The name of an Application; the namespaces of its previews go in the end."""
    step = await team.create(f"p{secrets.token_hex(4)}", redis={"enabled": True})
    yield step.reference.name
    for body in await team.kube.list(NAMESPACES, label_selector=f"platform.internal/app={step.reference.name}"):
        await team.kube.delete(NAMESPACES, body["metadata"]["name"])


async def made(team: Team, parent: str, pull_request: int = 7) -> tuple[StepInput, Json]:
    step = await team.create_preview(parent, pull_request)
    await team.namespaces.reconcile_namespace(step)
    body = await team.kube.get(NAMESPACES, f"preview-{parent}-pr-{pull_request}")
    assert body is not None
    return step, body


async def test_the_namespace_says_what_it_is_for(team: Team, parent: str) -> None:
    _, body = await made(team, parent)

    labels = body["metadata"]["labels"]
    assert labels["platform.internal/type"] == "preview"
    assert labels["platform.internal/app"] == parent
    assert labels["platform.internal/pr"] == "7"
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


async def test_a_second_run_writes_nothing(team: Team, parent: str) -> None:
    step, before = await made(team, parent)

    await team.namespaces.reconcile_namespace(step)

    assert await team.kube.get(NAMESPACES, before["metadata"]["name"]) == before


async def test_a_preview_runs_in_its_own_namespace_and_leaves_it(team: Team, parent: str) -> None:
    step, body = await made(team, parent)
    name = body["metadata"]["name"]
    await team.config_maps.reconcile_redis(step)
    await team.workload.reconcile_workload(step)
    rollout = await team.rollout.await_rollout(step)
    deployments = await team.kube.list(DEPLOYMENTS, name)
    cleanup = await team.delete(step)

    await team.workload.delete_workload(cleanup)
    await team.config_maps.delete_redis(cleanup)

    assert rollout.is_done
    assert [each["metadata"]["name"] for each in deployments] == [f"{parent}-pr7"]
    assert await team.kube.list(DEPLOYMENTS, name) == []
    assert await team.kube.list(PODS, name) == []
    left = {each["metadata"]["name"] for each in await team.kube.list(CONFIG_MAPS, name)}
    assert left == {"kube-root-ca.crt"}


async def test_an_existing_namespace_of_somebody_else_is_refused_and_survives_the_deletion(
    team: Team, parent: str
) -> None:
    name = f"preview-{parent}-pr-7"
    labels = {"platform.internal/app": parent}
    theirs = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    await team.kube.create(NAMESPACES, theirs)
    before = await team.kube.get(NAMESPACES, name)
    step = await team.create_preview(parent, 7)

    with pytest.raises(OwnedElsewhere):
        await team.namespaces.reconcile_namespace(step)
    await team.namespaces.delete_namespace(await team.delete(step))

    assert await team.kube.get(NAMESPACES, name) == before


async def test_deletion_waits_until_the_namespace_is_gone_and_a_second_one_succeeds(team: Team, parent: str) -> None:
    step, body = await made(team, parent)
    claim = Claim(holding=Holding.NAMESPACE, name=body["metadata"]["name"])
    await team.ledger.acquire((await team.target(step)).owner, [claim])
    cleanup = await team.delete(step)

    await team.namespaces.delete_namespace(cleanup)
    await team.namespaces.delete_namespace(cleanup)

    assert await team.kube.get(NAMESPACES, body["metadata"]["name"]) is None
    assert await team.ledger.held_by(step.reference) == []


async def test_what_is_on_its_way_out_is_neither_reported_gone_nor_used_again(
    team: Team, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace, "WAIT_SECONDS", 0.5)
    step, body = await made(team, parent)
    name = body["metadata"]["name"]
    cleanup = await team.delete(step)

    with pytest.raises(StillDeleting, match=name):
        await team.namespaces.delete_namespace(cleanup)
    again = await team.create_preview(parent, 7)
    with pytest.raises(StillDeleting, match=name):
        await team.namespaces.reconcile_namespace(again)


async def test_deletion_leaves_the_namespace_of_a_new_incarnation(team: Team, parent: str) -> None:
    first, _ = await made(team, parent)
    cleanup = await team.delete(first)
    _, before = await made(team, parent)

    await team.namespaces.delete_namespace(cleanup)

    assert await team.kube.get(NAMESPACES, before["metadata"]["name"]) == before
