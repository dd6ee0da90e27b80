"""The cleanup's finalizer: no tenant takes it off, a living object gets it back, who went without it is found."""

import asyncio
import contextlib

import pytest

from activities.vanished import find_vanished
from cli import status
from clients.resources import custom_resource
from plattr.objects import FINALIZER, CustomObject
from plattr.steps import ClaimInput, CleanupStepInput
from telemetry.metrics import VANISHED
from tests.fix_kubernetes import Cluster
from tests.fix_tenant import Tenant
from worker.vanished import keep_counting

pytestmark = pytest.mark.attack


async def claimed(cluster: Cluster, namespace: str, name: str = "shop") -> CustomObject:
    custom_object = await cluster.apply(namespace, name)
    await cluster.claims.claim_object(ClaimInput(reference=custom_object.reference))
    return await cluster.read(custom_object.reference)


def path_of(custom_object: CustomObject) -> str:
    metadata = custom_object.metadata
    plural = custom_object.kind.plural
    return f"/apis/platform.internal/v1alpha1/namespaces/{metadata.namespace}/{plural}/{metadata.name}"


async def test_a_tenants_replace_that_drops_it_is_refused_in_words(
    cluster: Cluster, namespace: str, tenant: Tenant
) -> None:
    custom_object = await claimed(cluster, namespace)
    body = await cluster.body(custom_object.reference)
    assert body is not None
    manifest = {key: body[key] for key in ("apiVersion", "kind", "spec")}
    # As kubectl does: the living object's version.
    metadata = {"name": "shop", "namespace": namespace, "resourceVersion": body["metadata"]["resourceVersion"]}

    replaced = await tenant.send("PUT", path_of(custom_object), {**manifest, "metadata": metadata | {"finalizers": []}})

    assert replaced["code"] == 403
    assert "kubectl apply" in replaced["message"]
    assert (await cluster.read(custom_object.reference)).metadata.finalizers == (FINALIZER,)


@pytest.mark.parametrize(
    ("patch", "change"),
    [
        ("json", [{"op": "remove", "path": "/metadata/finalizers"}]),
        ("json", [{"op": "add", "path": "/metadata/finalizers", "value": ["example.test/mine"]}]),
        ("merge", {"metadata": {"finalizers": None}}),
        ("merge", {"metadata": {"finalizers": []}, "spec": {"branch": "other"}}),
    ],
)
async def test_a_tenants_patch_that_drops_it_is_refused(
    cluster: Cluster, namespace: str, tenant: Tenant, patch: str, change: object
) -> None:
    custom_object = await claimed(cluster, namespace)

    refused = await tenant.send("PATCH", path_of(custom_object), change, patch=patch)

    assert refused["code"] == 403
    assert (await cluster.read(custom_object.reference)).metadata == custom_object.metadata


async def test_other_changes_and_an_emergency_are_not_hindered(
    cluster: Cluster, namespace: str, tenant: Tenant
) -> None:
    custom_object = await claimed(cluster, namespace)
    more = {"metadata": {"finalizers": [FINALIZER, "example.test/mine"]}, "spec": {"branch": "other"}}
    none = {"metadata": {"finalizers": None}}

    changed = await tenant.send("PATCH", path_of(custom_object), more, patch="merge")
    broken = await tenant.send(
        "PATCH", path_of(custom_object), none, patch="merge", groups=("platform.internal:break-glass",)
    )

    assert changed["spec"]["branch"] == "other"
    assert "finalizers" not in broken["metadata"]


async def test_the_status_subresource_cannot_take_it_off(cluster: Cluster, namespace: str) -> None:
    custom_object = await claimed(cluster, namespace)

    body = await cluster.body(custom_object.reference)
    assert body is not None
    body["metadata"]["finalizers"] = []
    resource = custom_resource(custom_object.kind)
    shown = await cluster.kube.replace_status(resource, {**body, "status": {"phase": "Running"}}, namespace)

    assert shown["status"] == {"phase": "Running"}
    assert shown["metadata"]["finalizers"] == [FINALIZER]


async def test_a_settled_object_that_has_lost_it_gets_it_back_and_nothing_else(
    cluster: Cluster, namespace: str
) -> None:
    custom_object = await cluster.settle(await claimed(cluster, namespace))
    await cluster.let_go(custom_object.reference)

    result = await cluster.claims.claim_object(ClaimInput(reference=custom_object.reference))

    assert result.verdict == "settled"
    found = await cluster.read(custom_object.reference)
    assert found.metadata.finalizers == (FINALIZER,)
    assert found.status == custom_object.status


async def test_an_object_that_vanished_is_counted_and_shown_and_one_that_retained_its_data_is_not(
    cluster: Cluster, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gone, living, retained = [await claimed(cluster, namespace, name) for name in ("gone", "living", "retained")]
    await cluster.force_away(gone.reference)
    await cluster.delete(retained.reference)
    await cluster.releases.release_object(CleanupStepInput(reference=retained.reference, uid=retained.metadata.uid))

    found = await find_vanished(cluster.kube, cluster.claim_store, namespace)
    counting = asyncio.create_task(keep_counting(cluster.kube, cluster.claim_store, period_seconds=0.05))
    async with asyncio.timeout(10):
        while not VANISHED._value.get():
            await asyncio.sleep(0.05)
    counting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await counting
    status.show_table([], found)

    assert found == [gone.reference]
    assert "plattr cleanup gone" in capsys.readouterr().out
    assert (await cluster.read(living.reference)).metadata.finalizers == (FINALIZER,)
