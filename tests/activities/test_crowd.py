"""How many previews a namespace may have, on a real API server under the worker's rights."""

import asyncio

import pytest

from activities.claim import ClaimActivities
from plattr.errors import TooManyPreviews
from plattr.objects import FINALIZER, CustomObject
from plattr.steps import ClaimInput, CleanupStepInput
from tests.fix_kubernetes import Cluster, random_name
from tests.inputs import estate


async def claim(claims: ClaimActivities, custom_object: CustomObject) -> str:
    return (await claims.claim_object(ClaimInput(reference=custom_object.reference, every_step=True))).verdict


@pytest.fixture
def claims(cluster: Cluster) -> ClaimActivities:
    """The activities of a platform that allows two."""
    return ClaimActivities(cluster.kube, cluster.claim_store, cluster.loader, cluster.events, previews_per_namespace=2)


async def five(cluster: Cluster, namespace: str) -> list[CustomObject]:
    """Return previews by age, as the limit sees it: of one second, by their names."""
    parent = random_name()
    await cluster.apply(namespace, parent)
    return [await cluster.preview(namespace, f"p{number}", parent, pullRequest=number) for number in range(1, 6)]


@pytest.mark.attack
async def test_more_previews_than_allowed_are_refused_and_leave_nothing(
    cluster: Cluster, claims: ClaimActivities, namespace: str
) -> None:
    previews = await five(cluster, namespace)

    outcomes = await asyncio.gather(*(claim(claims, preview) for preview in previews), return_exceptions=True)

    assert outcomes[:2] == ["proceed", "proceed"]
    assert [type(outcome) for outcome in outcomes[2:]] == [TooManyPreviews] * 3
    for preview in previews[2:]:
        assert await cluster.claim_store.held_by(estate(preview.reference)) == []
        assert FINALIZER not in (await cluster.read(preview.reference)).metadata.finalizers


async def test_one_that_goes_makes_room(cluster: Cluster, claims: ClaimActivities, namespace: str) -> None:
    first, second, third, *_ = await five(cluster, namespace)
    for preview in (first, second):
        await claim(claims, preview)

    await cluster.delete(first.reference)
    with pytest.raises(TooManyPreviews):
        await claim(claims, third)
    await cluster.releases.release_object(CleanupStepInput(reference=first.reference, uid=first.metadata.uid))

    assert await claim(claims, third) == "proceed"


async def test_a_lower_limit_leaves_alone_what_is_there(
    cluster: Cluster, claims: ClaimActivities, namespace: str
) -> None:
    previews = await five(cluster, namespace)
    for preview in previews:
        await claim(cluster.claims, preview)

    assert [await claim(claims, preview) for preview in previews] == ["proceed"] * 5


async def test_other_namespaces_do_not_count(cluster: Cluster, claims: ClaimActivities) -> None:
    places = [await cluster.new_namespace() for _ in range(3)]
    previews = [(await five(cluster, place))[0] for place in places]

    assert [await claim(claims, preview) for preview in previews] == ["proceed"] * 3
