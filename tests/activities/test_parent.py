"""A preview is built from its parent as it was taken over; only a take-over looks at what the parent is now."""

import pytest

from clients.resources import Json
from plattr.errors import ParentNotFound
from plattr.features import Step
from plattr.objects import CustomObject, ObjectReference
from plattr.steps import ClaimInput, ClaimResult
from tests.fix_kubernetes import Cluster, application_spec, random_name
from tests.inputs import status_of, step_of

REDIS = application_spec(redis={"enabled": True})


@pytest.fixture
async def preview(cluster: Cluster, namespace: str) -> CustomObject:
    """A preview that runs, built from a parent without any feature."""
    parent = await cluster.apply(namespace, random_name())
    preview = await cluster.preview(namespace, random_name(), parent.metadata.name)
    await claimed(cluster, preview)
    return await cluster.settle(preview)


async def claimed(
    cluster: Cluster, preview: CustomObject, *, every_step: bool = False, take_over: bool = False
) -> ClaimResult:
    claim = ClaimInput(reference=preview.reference, every_step=every_step, take_over=take_over)
    return await cluster.claims.claim_object(claim)


async def change_parent(cluster: Cluster, preview: CustomObject, spec: Json = REDIS) -> CustomObject:
    return await cluster.apply(preview.metadata.namespace, str(preview.spec["applicationRef"]), spec)


async def delete_parent(cluster: Cluster, preview: CustomObject) -> None:
    name = str(preview.spec["applicationRef"])
    await cluster.delete(ObjectReference(namespace=preview.metadata.namespace, name=name))


async def is_built_with_redis(cluster: Cluster, preview: CustomObject) -> bool:
    """Tell what each step after the claim works towards."""
    return (await cluster.loader.load(step_of(await cluster.read(preview.reference)))).spec.redis.enabled


async def test_the_first_claim_keeps_what_the_preview_is_built_from(cluster: Cluster, preview: CustomObject) -> None:
    parent = await cluster.read(
        ObjectReference(namespace=preview.metadata.namespace, name=str(preview.spec["applicationRef"]))
    )

    assert preview.status["parent"] == {"uid": parent.metadata.uid, "generation": 1, "spec": parent.spec}


async def test_a_repair_builds_from_the_parent_as_it_was(cluster: Cluster, preview: CustomObject) -> None:
    await change_parent(cluster, preview)

    repaired = await claimed(cluster, preview, every_step=True)

    assert repaired.verdict == "proceed"
    assert Step.REDIS not in repaired.steps
    assert not await is_built_with_redis(cluster, preview)


async def test_a_change_of_the_preview_itself_takes_nothing_over(cluster: Cluster, preview: CustomObject) -> None:
    parent = str(preview.spec["applicationRef"])
    await change_parent(cluster, preview)
    extended = await cluster.preview(preview.metadata.namespace, preview.metadata.name, parent, ttl="96h")

    changed = await claimed(cluster, extended)

    assert (changed.verdict, changed.generation) == ("proceed", 2)
    assert Step.REDIS not in changed.steps


async def test_a_resync_takes_the_parent_over_for_good(cluster: Cluster, preview: CustomObject) -> None:
    parent = await change_parent(cluster, preview)

    resynced = await claimed(cluster, preview, every_step=True, take_over=True)
    repaired = await claimed(cluster, preview, every_step=True)

    assert Step.REDIS in resynced.steps
    assert repaired.steps == resynced.steps
    assert await is_built_with_redis(cluster, preview)
    after = await cluster.read(preview.reference)
    assert after.status["parent"]["generation"] == parent.metadata.generation == 2
    assert after.status["phase"] == "Running"


async def test_a_resync_that_brings_no_news_writes_nothing(cluster: Cluster, preview: CustomObject) -> None:
    before = await cluster.body(preview.reference)

    await claimed(cluster, preview, every_step=True, take_over=True)

    assert await cluster.body(preview.reference) == before


async def test_a_preview_outlives_its_parent_until_it_is_to_take_it_over(
    cluster: Cluster, preview: CustomObject
) -> None:
    await delete_parent(cluster, preview)

    repaired = await claimed(cluster, preview, every_step=True)

    assert repaired.verdict == "proceed"
    assert not await is_built_with_redis(cluster, preview)
    with pytest.raises(ParentNotFound):
        await claimed(cluster, preview, every_step=True, take_over=True)


async def test_a_later_status_keeps_the_parent(cluster: Cluster, preview: CustomObject) -> None:
    await cluster.statuses.write_status(status_of(preview))

    assert (await cluster.read(preview.reference)).status["parent"] == preview.status["parent"]


async def test_a_preview_of_an_older_plattr_is_given_its_parent_by_the_next_run(
    cluster: Cluster, preview: CustomObject
) -> None:
    older = await cluster.set_status(preview, parent=None)
    await change_parent(cluster, preview)

    repaired = await claimed(cluster, older, every_step=True)

    assert Step.REDIS in repaired.steps
    assert (await cluster.read(preview.reference)).status["parent"]["generation"] == 2


async def test_what_a_take_over_leaves_out_is_said(cluster: Cluster, preview: CustomObject) -> None:
    token = {"name": "TOKEN", "secretKeyRef": {"name": "tokens", "key": "token"}}
    await change_parent(cluster, preview, application_spec(envVars=[token]))

    await claimed(cluster, preview, every_step=True)
    before = await cluster.events_about(preview)
    await claimed(cluster, preview, every_step=True, take_over=True)

    assert before == []
    (event,) = await cluster.events_about(preview)
    assert event["reason"] == "VariablesNotCopied"
    assert "TOKEN" in event["message"]
