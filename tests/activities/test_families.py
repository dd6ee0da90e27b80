"""Whose the previews of an application's name are, on a real API server under the worker's rights."""

from typing import Any

import pytest

from clients.resources import LEASES
from plattr.claims import previews_claim
from plattr.errors import InvalidSpec, OwnedElsewhere
from plattr.features import ClaimKind, ConditionType
from plattr.objects import FINALIZER, CustomObject, ObjectReference
from plattr.steps import ClaimInput, CleanupStepInput
from tests.fix_kubernetes import Cluster, application_spec, random_name
from tests.inputs import estate

EVERYTHING: dict[str, Any] = {
    "database": {"enabled": True},
    "storage": {"enabled": True, "buckets": [{"name": "c"}]},
    "auth": {"enabled": True},
}


async def claim(cluster: Cluster, custom_object: CustomObject) -> str:
    return (await cluster.claims.claim_object(ClaimInput(reference=custom_object.reference, every_step=True))).verdict


async def refused(cluster: Cluster, custom_object: CustomObject) -> OwnedElsewhere:
    """Return the refusal of an object that must not have left anything."""
    with pytest.raises(OwnedElsewhere) as refusal:
        await claim(cluster, custom_object)
    assert await cluster.claim_store.held_by(estate(custom_object.reference)) == []
    assert FINALIZER not in (await cluster.read(custom_object.reference)).metadata.finalizers
    return refusal.value


async def release(cluster: Cluster, custom_object: CustomObject) -> None:
    """Delete the object and do what the last step of its cleanup does."""
    await cluster.delete(custom_object.reference)
    await cluster.releases.release_object(
        CleanupStepInput(reference=custom_object.reference, uid=custom_object.metadata.uid)
    )


async def holder(cluster: Cluster, name: str) -> ObjectReference | None:
    return await cluster.claim_store.holder_of(previews_claim(name))


@pytest.mark.attack
@pytest.mark.parametrize("environment", ["production", "staging", "uat"])
async def test_a_strangers_application_of_the_same_name_has_no_previews(cluster: Cluster, environment: str) -> None:
    name, owners, strangers = random_name(), await cluster.new_namespace(), await cluster.new_namespace()
    await claim(cluster, await cluster.apply(owners, name, application_spec(environment=environment)))
    other = "staging" if environment != "staging" else "uat"
    theirs = await cluster.apply(strangers, name, application_spec(environment=other))
    assert await claim(cluster, theirs) == "proceed"

    refusal = await refused(cluster, await cluster.preview(strangers, "pr", name, pullRequest=42))

    assert repr(owners) in str(refusal)
    assert refusal.condition == ConditionType.INGRESS
    assert await claim(cluster, await cluster.preview(owners, "pr", name, pullRequest=42)) == "proceed"


SQUATTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "realm": ("{a}-pr42", {"auth": {"enabled": True}}),
    "bucket-of-an-application-of-that-name": (
        "{a}-pr42",
        {"environment": "preview", "storage": {"enabled": True, "buckets": [{"name": "c"}]}},
    ),
    "bucket-by-another-split": (
        "{a}-pr42-x",
        {"environment": "preview", "storage": {"enabled": True, "buckets": [{"name": "pr1-c"}]}},
    ),
    "environment-preview": ("{a}", {"environment": "preview"}),
}


@pytest.mark.attack
@pytest.mark.parametrize(("squatter", "spec"), SQUATTERS.values(), ids=SQUATTERS)
async def test_a_stranger_does_not_take_a_name_that_a_preview_will_need(
    cluster: Cluster, squatter: str, spec: dict[str, Any]
) -> None:
    name, owners, strangers = random_name(), await cluster.new_namespace(), await cluster.new_namespace()
    families = [name, f"{name}-pr42-x"]
    for family in families:
        await claim(cluster, await cluster.apply(owners, family, application_spec(**EVERYTHING)))

    application = await cluster.apply(strangers, squatter.format(a=name), application_spec(**spec))

    with pytest.raises(OwnedElsewhere):
        await claim(cluster, application)
    assert await cluster.claim_store.held_by(estate(application.reference)) == []


@pytest.mark.attack
async def test_a_stranger_does_not_take_the_schema_of_a_name_like_an_environments(cluster: Cluster) -> None:
    name, owners, strangers = random_name(), await cluster.new_namespace(), await cluster.new_namespace()
    await claim(cluster, await cluster.apply(owners, f"prod-{name}", application_spec(**EVERYTHING)))

    spec = application_spec(database={"enabled": True, "schemaName": f"{name}_pr42"})
    refusal = await refused(cluster, await cluster.apply(strangers, f"b{name}", spec))

    assert f"'prod-{name}'" in str(refusal)


@pytest.mark.attack
async def test_a_previews_host_is_no_domain(cluster: Cluster, namespace: str) -> None:
    domain = f"pr-42.shop.preview.{cluster.settings.base_domain}"
    application = await cluster.apply(namespace, random_name(), application_spec(domain=domain))

    with pytest.raises(InvalidSpec):
        await claim(cluster, application)

    assert FINALIZER not in (await cluster.read(application.reference)).metadata.finalizers


async def test_in_one_namespace_such_names_meet_as_any_others(cluster: Cluster, namespace: str) -> None:
    name = random_name()
    await claim(cluster, await cluster.apply(namespace, name, application_spec(**EVERYTHING)))

    application = await cluster.apply(namespace, f"{name}-pr42", application_spec(**EVERYTHING))

    assert await claim(cluster, application) == "proceed"


async def test_the_family_passes_to_the_oldest_other_application_and_ends_with_the_last(cluster: Cluster) -> None:
    name = random_name()
    places = [await cluster.new_namespace() for _ in range(3)]
    environments = ["production", "staging", "uat"]
    applications = []
    for place, environment in zip(places, environments, strict=True):
        applications.append(await cluster.apply(place, name, application_spec(environment=environment)))
        await claim(cluster, applications[-1])
    first = applications[0]
    # A second may see several created.
    second, third = sorted(applications[1:], key=lambda one: (one.metadata.creation_timestamp, one.reference.key))
    # Never accepted: it has no finalizer, and would never give the family back.
    await cluster.apply(await cluster.new_namespace(), name, application_spec(environment="staging"))
    holders = [await holder(cluster, name)]

    for application in (first, second, third):
        await release(cluster, application)
        holders.append(await holder(cluster, name))

    assert holders == [first.reference, second.reference, third.reference, None]


async def test_a_second_look_at_an_application_writes_nothing(cluster: Cluster) -> None:
    name, one, other = random_name(), await cluster.new_namespace(), await cluster.new_namespace()
    first = await cluster.apply(one, name)
    await claim(cluster, first)
    second = await cluster.apply(other, name, application_spec(environment="staging"))
    await claim(cluster, second)
    before = [await cluster.leases(place) for place in (one, other)]

    await claim(cluster, first)
    await claim(cluster, second)

    assert [await cluster.leases(place) for place in (one, other)] == before
    held = [each.claim.kind for each in await cluster.claim_store.held_by(estate(second.reference))]
    assert ClaimKind.PREVIEWS not in held


async def test_a_preview_that_has_its_names_keeps_them_when_the_family_went_elsewhere(cluster: Cluster) -> None:
    name, one, other = random_name(), await cluster.new_namespace(), await cluster.new_namespace()
    parent = await cluster.apply(one, name)
    await claim(cluster, parent)
    preview = await cluster.preview(one, "pr", name)
    await claim(cluster, preview)
    await release(cluster, parent)
    await claim(cluster, await cluster.apply(other, name, application_spec(environment="staging")))

    assert await holder(cluster, name) == ObjectReference(namespace=other, name=name)
    assert await claim(cluster, preview) == "proceed"


async def test_an_operator_moves_the_family_by_removing_its_lease(cluster: Cluster) -> None:
    name, one, other = random_name(), await cluster.new_namespace(), await cluster.new_namespace()
    await claim(cluster, await cluster.apply(one, name))
    second = await cluster.apply(other, name, application_spec(environment="staging"))
    await claim(cluster, second)

    await cluster.admin.delete(LEASES, f"{name}-previews", cluster.settings.lease_namespace)
    await claim(cluster, second)

    assert await holder(cluster, name) == second.reference
