"""Secrets and ConfigMaps that pods refer to change, and the Application does not."""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from activities import references
from activities.references import ReferenceActivities
from activities.workload import WorkloadActivities
from clients.checksum_key import KEY_NAME, ChecksumKey
from clients.claim_lease import CLAIM_KIND_LABEL
from clients.resources import APPLICATIONS, CONFIG_MAPS, DEPLOYMENTS, LEASES, SECRETS, Json, Resource
from plattr.claims import claims_of
from plattr.errors import BackendRefused, PlattrError
from plattr.fleet import Member, ReferencesQuery
from plattr.objects import PAUSED_ANNOTATION
from plattr.steps import StepInput
from tests.fix_kubernetes import Cluster
from tests.fix_workload import Team

EVERYBODY = 10_000


@pytest.fixture
async def look(team: Team) -> AsyncIterator[ReferenceActivities]:
    """The look, under the worker's rights; the names that the test's applications claim go in the end."""
    yield ReferenceActivities(team.worker, team.claim_store)
    for lease in await team.kube.list(LEASES, team.settings.lease_namespace, label_selector=CLAIM_KIND_LABEL):
        if lease["metadata"]["name"].startswith(f"{team.namespace}.") or team.namespace in str(lease["spec"]):
            await team.kube.delete(LEASES, lease["metadata"]["name"], team.settings.lease_namespace)


async def running(team: Team, **spec: Any) -> StepInput:
    """Have an application run as its own runs leave it: its names claimed, its pods up, its phase written."""
    step = await team.create(**spec)
    target = await team.target(step)
    await team.claim_store.acquire(target.owner, claims_of(target))
    await team.running(step)
    await told(team, step, "Running")
    return step


async def told(team: Team, step: StepInput, phase: str, *false: str) -> None:
    body = await team.get(APPLICATIONS, step.reference.name)
    moment = {"lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}
    conditions = [{"type": each, "status": "False", "reason": "Tested", "message": "", **moment} for each in false]
    status = {"phase": phase, "observedGeneration": body["metadata"]["generation"], "conditions": conditions}
    await team.kube.replace_status(APPLICATIONS, {**body, "status": status}, team.namespace)


async def found(look: ReferenceActivities, step: StepInput) -> bool:
    """Tell whether the look finds this application, page by page."""
    query = ReferencesQuery(limit=2)
    members: list[Member] = []
    while True:
        page = await look.find_changed_references(query)
        members += page.members
        if not page.after:
            return step.reference in {member.reference for member in members}
        query = ReferencesQuery(after=page.after, limit=2)


async def put(team: Team, name: str, value: str, resource: Resource = SECRETS, **metadata: object) -> None:
    data = base64.b64encode(value.encode()).decode() if resource is SECRETS else value
    body: Json = {"apiVersion": "v1", "kind": resource.kind, "metadata": {"name": name, **metadata}}
    await team.kube.apply(resource, body | {"data": {"key": data}}, team.namespace)


async def pods(team: Team, step: StepInput) -> set[str]:
    return {pod["metadata"]["uid"] for pod in await team.pods_of(step)}


def variable(name: str, secret: str) -> Json:
    return {"name": name, "secretKeyRef": {"name": secret, "key": "key"}}


@pytest.mark.attack
@pytest.mark.parametrize(
    ("resource", "suffix"),
    [(SECRETS, "mail"), (SECRETS, "env"), (CONFIG_MAPS, "env")],
    ids=["secretKeyRef", "env-secret", "env-config-map"],
)
async def test_the_pods_roll_once_when_what_they_refer_to_changes(
    team: Team, look: ReferenceActivities, resource: Resource, suffix: str
) -> None:
    name = f"w{secrets.token_hex(4)}"
    await put(team, f"{name}-mail", "old")
    step = await running(team, name=name, envVars=[variable("TOKEN", f"{name}-mail")])
    unchanged, before, checksum = await found(look, step), await pods(team, step), await team.checksum(step)

    await put(team, f"{name}-{suffix}", "new", resource)
    changed = await found(look, step)
    # What the reconcile request has the run do.
    await team.running(step)
    again, versions = await found(look, step), await team.versions(step)
    await team.running(step)

    assert (unchanged, changed, again) == (False, True, False)
    assert await team.checksum(step) != checksum
    assert before.isdisjoint(await pods(team, step))
    assert await team.versions(step) == versions


async def test_a_mark_on_a_secret_rolls_nothing_and_is_looked_at_once(team: Team, look: ReferenceActivities) -> None:
    name = f"w{secrets.token_hex(4)}"
    await put(team, f"{name}-mail", "same")
    step = await running(team, name=name, envVars=[variable("TOKEN", f"{name}-mail")])
    before = await pods(team, step)

    await put(team, f"{name}-mail", "same", labels={"colour": "red"})
    changed = await found(look, step)
    await team.running(step)

    assert (changed, await found(look, step)) == (True, False)
    assert await pods(team, step) == before


async def test_a_secret_that_appears_is_noticed(team: Team, look: ReferenceActivities) -> None:
    name = f"w{secrets.token_hex(4)}"
    step = await running(team, name=name, envVars=[variable("TOKEN", f"{name}-late")])
    before = await found(look, step)

    await put(team, f"{name}-late", "new")

    assert (before, await found(look, step)) == (False, True)


@pytest.mark.parametrize(
    ("phase", "false", "is_wanted"),
    [
        ("Running", (), True),
        # A pod that waits for its Secret.
        ("Failed", ("DeploymentReady",), True),
        # Its slow retries must not become quick ones; each of them reads afresh.
        ("Failed", ("DatabaseReady",), False),
        # Its run is under way.
        ("Provisioning", ("DeploymentReady",), False),
    ],
)
async def test_who_is_looked_after_already_is_not_requested(
    team: Team, look: ReferenceActivities, phase: str, false: tuple[str, ...], *, is_wanted: bool
) -> None:
    step = await running(team)
    await put(team, f"{step.reference.name}-env", "new")

    await told(team, step, phase, *false)

    assert await found(look, step) is is_wanted


@pytest.mark.attack
async def test_a_workload_that_is_refused_is_run_once_for_a_version(team: Team, look: ReferenceActivities) -> None:
    step = await running(team)
    name, other = step.reference.name, {"app": "other"}
    refused = await team.get(DEPLOYMENTS, name)
    await team.kube.delete(DEPLOYMENTS, name, team.namespace)
    marks = {field: refused["metadata"][field] for field in ("name", "labels", "annotations")}
    refused["spec"]["template"]["metadata"]["labels"] = other
    spec = refused["spec"] | {"selector": {"matchLabels": other}}
    # As by a policy: a selector is never changed.
    kind = {"apiVersion": DEPLOYMENTS.api_version, "kind": DEPLOYMENTS.kind}
    await team.kube.create(DEPLOYMENTS, {**kind, "metadata": marks, "spec": spec}, team.namespace)

    looks = []
    for value in ("new", "newer"):
        await put(team, f"{name}-env", value)
        looks.append(await found(look, step))
        with pytest.raises(PlattrError, match=r"Invalid in spec\.selector"):
            await team.workload.reconcile_workload(step)
        await told(team, step, "Failed", "DeploymentReady")
        looks.append(await found(look, step))

    assert looks == [True, False, True, False]


async def test_a_paused_object_is_not_requested(team: Team, look: ReferenceActivities) -> None:
    step = await running(team)
    await put(team, f"{step.reference.name}-env", "new")

    paused = [{"op": "add", "path": "/metadata/annotations", "value": {PAUSED_ANNOTATION: "true"}}]
    await team.kube.json_patch(APPLICATIONS, step.reference.name, paused, team.namespace)

    assert not await found(look, step)


@pytest.mark.attack
async def test_many_names_of_one_namespace_cost_one_list_and_a_deployments_marks_none(
    team: Team, look: ReferenceActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = await running(team, envVars=[variable(f"V{number}", f"none-{number}") for number in range(30)])
    marks = [{"op": "add", "path": "/metadata/annotations/platform.internal~1references", "value": '{"Secret/x": ""}'}]
    await team.kube.json_patch(DEPLOYMENTS, step.reference.name, marks, team.namespace)
    asked: list[str] = []
    read, pages = team.worker.get, team.worker.pages

    def counted(call: object, resource: Resource, *words: object, **more: object) -> object:
        if team.namespace in words and resource in (SECRETS, CONFIG_MAPS):
            asked.append(f"{resource.kind} {words} {more}")
        return call(resource, *words, **more)  # type: ignore[operator]  # both take the same words

    monkeypatch.setattr(team.worker, "get", lambda *words, **more: counted(read, *words, **more))
    monkeypatch.setattr(team.worker, "pages", lambda *words, **more: counted(pages, *words, **more))

    await look.find_changed_references(ReferencesQuery(limit=EVERYBODY))

    assert 0 < len(asked) <= references.LIST_FROM
    assert all("metadata_only" in each for each in asked)


async def test_of_metadata_no_value_leaves_the_api_server(cluster: Cluster, namespace: str) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mail"}, "stringData": {"key": "canary-1234"}}
    await cluster.admin.create(SECRETS, body, namespace)

    read = await cluster.kube.get(SECRETS, "mail", namespace, metadata_only=True)

    assert read is not None
    assert read["metadata"]["name"] == "mail"
    assert "data" not in read


async def test_workers_that_know_a_deleted_key_and_the_next_one_roll_the_pods_once(team: Team) -> None:
    settings = team.settings.model_copy(update={"lease_namespace": team.namespace})
    one, other = (WorkloadActivities(team.loader, team.worker, team.claim_store, settings) for _ in range(2))
    step = await team.create()
    checksums = []

    async def run(activities: WorkloadActivities) -> None:
        await activities.reconcile_workload(step)
        checksums.append(await team.checksum(step))

    await run(one)
    await run(other)
    await team.kube.delete(SECRETS, KEY_NAME, team.namespace)
    # A worker that has just begun makes the next key.
    await run(WorkloadActivities(team.loader, team.worker, team.claim_store, settings))
    await run(one)
    await run(other)
    await run(one)

    first, unchanged, *new = checksums
    assert first == unchanged
    assert set(new) == {new[0]} != {first}


class TestKey:
    @pytest.fixture
    async def place(self, cluster: Cluster) -> str:
        return await cluster.new_namespace()

    async def test_workers_that_begin_at_once_have_one_key(self, cluster: Cluster, place: str) -> None:
        keys = await asyncio.gather(*(ChecksumKey(cluster.kube, place).read() for _ in range(8)))

        assert len(set(keys)) == 1
        assert len(keys[0]) == 32

    async def test_a_secret_without_a_key_is_named(self, cluster: Cluster, place: str) -> None:
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEY_NAME}, "stringData": {"key": "short"}}
        await cluster.admin.create(SECRETS, body, place)

        with pytest.raises(BackendRefused, match=KEY_NAME):
            await ChecksumKey(cluster.kube, place).read()
