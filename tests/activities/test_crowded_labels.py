"""A tenant copies Plattr's labels and annotations onto objects as large as the API server takes them."""

import asyncio
import secrets

import pytest

from clients import kube as kube_module
from clients.concurrency import all_of
from clients.kube_config import POOL_SIZE
from clients.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICES,
    Json,
    Resource,
)
from plattr.errors import RolloutFailed
from plattr.steps import StepInput
from tests.fix_memory import Peak
from tests.fix_workload import EVERY_FEATURE, Team
from tests.inputs import rollout_of

pytestmark = pytest.mark.attack

COPIES = 24
# 21 MB of them. With pages of 1 MiB no more than a few megabytes may be in memory at once.
LARGE = "d" * 900_000
MOST = 10_000_000


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_module, "PAGE_BYTES", 2**20)


async def marks_of(team: Team, step: StepInput) -> Json:
    metadata = (await team.get(DEPLOYMENTS, step.reference.name))["metadata"]
    return {"labels": metadata["labels"], "annotations": metadata["annotations"]}


async def copies(team: Team, resource: Resource, body: Json, count: int = COPIES) -> list[str]:
    """Create objects of this kind under names that no application has."""
    names = [f"aa-{secrets.token_hex(4)}" for _ in range(count)]
    kind = {"apiVersion": resource.api_version, "kind": resource.kind}
    bodies = [{**kind, **body, "metadata": {**body["metadata"], "name": name}} for name in names]
    await all_of(team.kube.create(resource, each, team.namespace) for each in bodies)
    return names


async def removed(team: Team, resource: Resource, names: list[str]) -> None:
    await all_of(team.kube.delete(resource, name, team.namespace) for name in names)


async def test_copies_of_labels_and_annotations_do_not_fill_the_workload_step(team: Team) -> None:
    step = await team.running(await team.create(None, **EVERY_FEATURE))
    name, marks = step.reference.name, await marks_of(team, step)
    versions = await team.versions(step)
    maps = await copies(team, CONFIG_MAPS, {"metadata": marks, "data": {"x": LARGE}})
    more = await copies(team, SECRETS, {"metadata": marks, "data": {"x": LARGE}})

    with Peak() as settled:
        await team.workload.reconcile_workload(step)
    unchanged = await team.versions(step)
    step = await team.change(step, redis={"enabled": False})
    with Peak() as changed:
        await team.workload.reconcile_workload(step)

    assert max(settled.bytes, changed.bytes) < MOST
    assert unchanged == versions
    # What is the application's own is found among them, and removed when nothing refers to it.
    assert await team.names_of(CONFIG_MAPS, f"{name}-") == {f"{name}-storage", f"{name}-auth", f"{name}-search"}
    await removed(team, CONFIG_MAPS, maps)
    await removed(team, SECRETS, more)


async def test_large_secrets_that_variables_refer_to_are_never_in_memory_together(team: Team) -> None:
    names = await copies(team, SECRETS, {"metadata": {}, "data": {"key": LARGE}}, count=48)
    references = [
        {"name": f"V{number}", "secretKeyRef": {"name": each, "key": "key"}} for number, each in enumerate(names)
    ]
    step = await team.create(envVars=references)

    with Peak() as peak:
        await team.workload.reconcile_workload(step)

    # As many as there are connections are read at once.
    assert peak.bytes < 2.5 * POOL_SIZE * len(LARGE) < len(names) * len(LARGE)
    await removed(team, SECRETS, names)


async def test_copies_do_not_fill_who_waits_for_a_rollout_and_do_not_hide_its_trouble(team: Team) -> None:
    step = await team.create(imageRef="registry.test/shop:sim-crashloop")
    await team.workload.reconcile_workload(step)
    name, selector = step.reference.name, f"app.kubernetes.io/name={step.reference.name}"
    while not (pods := await team.kube.list(PODS, team.namespace, label_selector=selector)):
        await asyncio.sleep(0.1)
    deployment = await team.get(DEPLOYMENTS, name)
    template = deployment["spec"]["template"]
    labels = deployment["spec"]["selector"]["matchLabels"]
    notes = {"example.test/notes": "n" * 250_000}
    others = {**template, "metadata": {"labels": labels | {"role": "other"}}}
    replica_sets = await copies(
        team,
        REPLICA_SETS,
        {
            "metadata": {"labels": labels, "annotations": notes},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"role": "other"}}, "template": others},
        },
    )
    event = {
        "metadata": {},
        "involvedObject": {"kind": "Pod", "uid": pods[0]["metadata"]["uid"], "namespace": team.namespace},
        "reason": "Unhealthy",
        "message": LARGE,
    }
    events = await copies(team, EVENTS, event)

    with Peak() as peak, pytest.raises(RolloutFailed, match="CrashLoopBackOff"):
        await team.rollout.await_rollout(rollout_of(step))

    assert peak.bytes < MOST
    await removed(team, REPLICA_SETS, replica_sets)
    await removed(team, EVENTS, events)


async def test_copies_do_not_fill_the_cleanup_that_removes_them(team: Team) -> None:
    step = await team.running(await team.create())
    marks = await marks_of(team, step)
    marks["annotations"] = marks["annotations"] | {"example.test/notes": "n" * 250_000}
    service = {"metadata": marks, "spec": {"ports": [{"port": 1}], "clusterIP": "None"}}
    await copies(team, SERVICES, service, count=2 * COPIES)
    cleanup = await team.delete(step)

    with Peak() as peak:
        await team.workload.delete_workload(cleanup)

    assert peak.bytes < MOST
