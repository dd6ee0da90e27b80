"""The workload's removal on a real API server."""

import pytest

from activities import workload
from clients.resources import INGRESSES, PODS, SECRETS, SERVICES
from plattr.claims import Claim
from plattr.errors import StillDeleting
from plattr.features import ClaimKind
from plattr.target import OWNER_ANNOTATION, owner_labels
from tests.fix_workload import EVERY_FEATURE, WORKLOAD_KINDS, Team, foreign
from tests.inputs import estate


async def test_deletion_takes_the_workload_its_pods_and_the_host_and_a_second_one_succeeds(team: Team) -> None:
    step = await team.create(**EVERY_FEATURE)
    target = await team.target(step)
    await team.claim_store.acquire(target.owner, [Claim(kind=ClaimKind.HOST, name=target.names.host)])
    await team.running(step)
    cleanup = await team.delete(step)

    first = await team.workload.delete_workload(cleanup)
    second = await team.workload.delete_workload(cleanup)

    assert first.is_done
    assert second.is_done
    for resource in WORKLOAD_KINDS:
        assert await team.names_of(resource, step.reference.name) == set()
    assert await team.pods_of(step) == []
    assert await team.claim_store.held_by(estate(step.reference)) == []
    assert await team.names_of(SECRETS, step.reference.name) == {f"{step.reference.name}-db"}


async def test_deletion_works_without_the_object_and_without_its_uid(team: Team) -> None:
    step = await team.create()
    await team.workload.reconcile_workload(step)
    cleanup = (await team.delete(step)).model_copy(update={"uid": ""})

    await team.workload.delete_workload(cleanup)

    for resource in WORKLOAD_KINDS:
        assert await team.names_of(resource, step.reference.name) == set()


async def test_deletion_leaves_what_another_owner_has(team: Team) -> None:
    step = await team.create()
    neighbour = await team.create(f"{step.reference.name}2")
    await team.workload.reconcile_workload(step)
    await team.running(neighbour)
    # Somebody copied the labels; the annotation says whose it is.
    theirs = foreign(SERVICES, f"{step.reference.name}-copy")
    theirs["metadata"] |= {
        "labels": owner_labels(step.reference),
        "annotations": {OWNER_ANNOTATION: neighbour.reference.key},
    }
    await team.kube.create(SERVICES, theirs, team.namespace)
    before = await team.versions(neighbour)

    await team.workload.delete_workload(await team.delete(step))

    assert await team.names_of(SERVICES, step.reference.name) == {
        neighbour.reference.name,
        f"{step.reference.name}-copy",
    }
    assert await team.versions(neighbour) == before


async def test_deletion_leaves_what_a_new_incarnation_has_adopted(team: Team) -> None:
    first = await team.running(await team.create())
    cleanup = await team.delete(first)
    second = await team.running(await team.create(first.reference.name))
    before = await team.versions(second)

    await team.workload.delete_workload(cleanup)

    assert await team.versions(second) == before


async def test_an_ingress_that_a_finalizer_holds_keeps_its_host_and_holds_up_nothing_else(team: Team) -> None:
    # As the controller of a load balancer does until that is gone: until then the host is served.
    step = await team.create()
    target = await team.target(step)
    await team.claim_store.acquire(target.owner, [Claim(kind=ClaimKind.HOST, name=target.names.host)])
    await team.workload.reconcile_workload(step)
    name = step.reference.name
    hold = [{"op": "add", "path": "/metadata/finalizers", "value": ["test.plattr/hold"]}]
    await team.kube.json_patch(INGRESSES, name, hold, team.namespace)
    cleanup = await team.delete(step)

    with pytest.raises(StillDeleting, match=f"Ingress '{name}'.*test.plattr/hold"):
        await team.workload.delete_workload(cleanup)
    left = {kind.kind for kind in WORKLOAD_KINDS if name in await team.names_of(kind, name)}
    held = await team.claim_store.held_by(estate(step.reference))
    await team.kube.json_patch(INGRESSES, name, [{"op": "remove", "path": "/metadata/finalizers"}], team.namespace)
    await team.workload.delete_workload(cleanup)

    assert left == {"Ingress"}
    assert [each.claim.kind for each in held] == [ClaimKind.HOST]
    assert await team.claim_store.held_by(estate(step.reference)) == []


async def test_deletion_waits_for_the_pods(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "WAIT_SECONDS", 0.5)
    step = await team.running(await team.create())
    (pod,) = await team.pods_of(step)
    name = pod["metadata"]["name"]
    hold = [{"op": "add", "path": "/metadata/finalizers", "value": ["test.plattr/hold"]}]
    await team.kube.json_patch(PODS, name, hold, team.namespace)
    cleanup = await team.delete(step)

    with pytest.raises(StillDeleting, match=name):
        await team.workload.delete_workload(cleanup)
    await team.kube.json_patch(PODS, name, [{"op": "remove", "path": "/metadata/finalizers"}], team.namespace)
    result = await team.workload.delete_workload(cleanup)

    assert result.is_done
    assert await team.pods_of(step) == []
