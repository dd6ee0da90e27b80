"""Every way in which two objects would share an external name: whoever comes first keeps it, on a real API server."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients.claim_store import ClaimStore
from plattr.claims import Claim, claims_of
from plattr.errors import OwnedElsewhere
from plattr.features import ClaimKind
from plattr.marks import estate_of
from plattr.objects import CustomObject, Owner
from plattr.steps import ClaimInput
from plattr.target import Target
from tests.domain.test_claims import targets
from tests.fix_kubernetes import Cluster, application_spec, random_name
from tests.inputs import estate

HERE, THERE = "here", "there"


def _storage(*buckets: str) -> dict[str, Any]:
    return {"storage": {"enabled": True, "buckets": [{"name": bucket} for bucket in buckets]}}


def _database(schema: str = "") -> dict[str, Any]:
    return {"database": {"enabled": True} | ({"schemaName": schema} if schema else {})}


AUTH: dict[str, Any] = {"auth": {"enabled": True}}
EVERYTHING = _database() | _storage("c") | AUTH


@dataclass(frozen=True)
class App:
    """An Application; `{a}` stands for a name of the test's own."""

    name: str
    spec: dict[str, Any] = field(default_factory=dict)
    namespace: str = HERE

    async def apply(self, cluster: Cluster, namespaces: dict[str, str], token: str) -> CustomObject:
        spec = application_spec(**_filled(self.spec, token))
        return await cluster.apply(namespaces[self.namespace], self.name.format(a=token), spec)


@dataclass(frozen=True)
class Preview:
    """A PreviewEnvironment and its parent, whose own claims do not matter here."""

    parent: str
    number: int = 7
    name: str = "p"
    spec: dict[str, Any] = field(default_factory=dict)
    namespace: str = HERE

    async def apply(self, cluster: Cluster, namespaces: dict[str, str], token: str) -> CustomObject:
        namespace, parent = namespaces[self.namespace], self.parent.format(a=token)
        await cluster.apply(namespace, parent, application_spec(**self.spec))
        return await cluster.preview(namespace, self.name, parent, pullRequest=self.number)


PAIRS: dict[str, tuple[App | Preview, App | Preview]] = {
    "one-name-in-two-namespaces": (App("{a}", EVERYTHING), App("{a}", EVERYTHING, THERE)),
    "one-schema": (App("{a}", _database("{a}")), App("{a}-b", _database("{a}"), THERE)),
    "schema-of-anothers-name": (App("{a}", _database()), App("b{a}", _database("{a}"))),
    "one-role": (
        App("{a}", _database("{a}_one") | {"domain": "{a}.one.test"}),
        App("{a}", _database("{a}_two") | {"domain": "{a}.two.test"}, THERE),
    ),
    "bucket-names-that-read-two-ways": (App("{a}-b", _storage("c")), App("{a}", _storage("b-c"))),
    "realm-of-a-name-like-an-environments": (
        App("{a}", AUTH | {"environment": "staging"}),
        App("staging-{a}", AUTH, THERE),
    ),
    "realm-of-an-application-in-environment-preview": (
        App("{a}", AUTH | {"environment": "preview"}),
        App("preview-{a}", AUTH),
    ),
    "second-ingress-and-anothers-first": (App("{a}", _database()), App("{a}-api")),
    "one-domain": (App("{a}", {"domain": "{a}.test"}), App("b{a}", {"domain": "{a}.test"}, THERE)),
    "default-domain-of-another": (App("{a}"), App("b{a}", {"domain": "{a}.core.example.test"}, THERE)),
    "domain-of-another-environment": (
        App("{a}", {"environment": "uat"}),
        App("b{a}", {"domain": "{a}.uat.core.example.test"}),
    ),
    "realm-of-a-preview": (Preview("{a}", spec=AUTH), App("{a}-pr7", AUTH, THERE)),
    "bucket-of-a-preview": (
        Preview("{a}", spec=_storage("c")),
        App("{a}-pr7", _storage("c") | {"environment": "preview"}, THERE),
    ),
    "schema-of-a-preview-of-a-name-like-an-environments": (
        Preview("prod-{a}", spec=_database()),
        App("{a}-pr7", _database(), THERE),
    ),
    "one-pull-request-twice": (Preview("{a}"), Preview("{a}", name="q")),
    "one-preview-in-two-namespaces": (
        Preview("{a}", spec=EVERYTHING),
        Preview("{a}", spec=EVERYTHING, namespace=THERE),
    ),
}

NEIGHBOURS: dict[str, tuple[App | Preview, App | Preview]] = {
    "two-environments": (App("{a}", EVERYTHING), App("{a}", EVERYTHING | {"environment": "staging"}, THERE)),
    "two-environments-of-one-schema": (
        App("{a}", _database("{a}_x")),
        App("{a}", _database("{a}_x") | {"environment": "uat"}, THERE),
    ),
    "preview-and-its-parent": (Preview("{a}", spec=EVERYTHING), App("{a}", EVERYTHING)),
    "two-pull-requests": (Preview("{a}", spec=EVERYTHING), Preview("{a}", 8, "q", EVERYTHING)),
    "application-and-preview-of-one-name": (Preview("{a}", name="same"), App("same")),
    "name-that-begins-alike": (App("{a}", EVERYTHING), App("{a}-b", EVERYTHING)),
}


async def _apply(cluster: Cluster, pair: Sequence[App | Preview]) -> list[CustomObject]:
    namespaces = {HERE: await cluster.new_namespace(), THERE: await cluster.new_namespace()}
    token = random_name()
    return [await each.apply(cluster, namespaces, token) for each in pair]


async def _claim(cluster: Cluster, custom_object: CustomObject) -> str:
    return (await cluster.claims.claim_object(ClaimInput(reference=custom_object.reference))).verdict


async def _held(cluster: Cluster, custom_object: CustomObject) -> list[Claim]:
    return [held.claim for held in await cluster.claim_store.held_by(estate(custom_object.reference))]


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
async def test_of_two_that_share_a_name_the_first_keeps_it_until_it_gives_it_back(
    cluster: Cluster, pair: tuple[App | Preview, App | Preview]
) -> None:
    one, other = await _apply(cluster, pair)

    for holder, late in ((one, other), (other, one)):
        assert await _claim(cluster, holder) == "proceed"
        held = await _held(cluster, holder)
        with pytest.raises(OwnedElsewhere) as refusal:
            await _claim(cluster, late)

        assert holder.reference.key in str(refusal.value)
        assert late.reference.key in str(refusal.value)
        assert await _held(cluster, late) == []
        assert await _held(cluster, holder) == held
        await cluster.claim_store.release(estate(holder.reference), held)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
async def test_of_two_that_share_a_name_at_once_exactly_one_gets_all_it_needs(
    cluster: Cluster, pair: tuple[App | Preview, App | Preview]
) -> None:
    objects = await _apply(cluster, pair)

    verdicts = await asyncio.gather(
        *(_claim(cluster, custom_object) for custom_object in objects), return_exceptions=True
    )

    [won] = [custom_object for custom_object, verdict in zip(objects, verdicts, strict=True) if verdict == "proceed"]
    [lost] = [custom_object for custom_object in objects if custom_object is not won]
    assert [type(verdict) for verdict in verdicts if verdict != "proceed"] == [OwnedElsewhere]
    # The family of its previews, which the other may hold besides, is not among the names that it needs.
    held = {claim for claim in await _held(cluster, won) if claim.kind is not ClaimKind.PREVIEWS}
    assert held == set(claims_of(await cluster.loader.target_of(won)))
    assert await _held(cluster, lost) == []


@pytest.mark.parametrize("pair", NEIGHBOURS.values(), ids=NEIGHBOURS)
async def test_neighbours_do_not_meet(cluster: Cluster, pair: tuple[App | Preview, App | Preview]) -> None:
    objects = await _apply(cluster, pair)

    verdicts = [await _claim(cluster, custom_object) for custom_object in objects]

    assert verdicts == ["proceed", "proceed"]


@pytest.fixture
async def own_claims(cluster: Cluster, namespace: str) -> ClaimStore:
    """A claim store in which nobody else writes."""
    return ClaimStore(cluster.admin, namespace)


# 25 examples of some 60 calls each.
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.lists(targets(), min_size=3, max_size=3, unique_by=lambda target: target.owner.reference.key),
    turns=st.lists(st.tuples(st.sampled_from(["claim", "release"]), st.integers(0, 2)), max_size=8),
)
async def test_every_name_has_one_holder_whoever_claims_and_releases_in_whichever_order(
    own_claims: ClaimStore, wanted: list[Target], turns: list[tuple[str, int]]
) -> None:
    holders: dict[str, str] = {}
    try:
        for turn, index in turns:
            owner = wanted[index].owner
            needed = {claim.lease_name for claim in claims_of(wanted[index])}
            if turn == "release":
                await _release(own_claims, owner)
                holders = {name: key for name, key in holders.items() if key != owner.reference.key}
            elif any(holders.get(name, owner.reference.key) != owner.reference.key for name in needed):
                with pytest.raises(OwnedElsewhere):
                    await own_claims.acquire(owner, claims_of(wanted[index]))
            else:
                await own_claims.acquire(owner, claims_of(wanted[index]))
                holders |= dict.fromkeys(needed, owner.reference.key)
            assert await _holders(own_claims, wanted) == holders
    finally:
        for target in wanted:
            await _release(own_claims, target.owner)


async def _release(claim_store: ClaimStore, owner: Owner) -> None:
    await claim_store.release(estate_of(owner), [held.claim for held in await claim_store.held_by(estate_of(owner))])


async def _holders(claim_store: ClaimStore, wanted: list[Target]) -> dict[str, str]:
    owners = [target.owner for target in wanted]
    return {
        held.claim.lease_name: owner.reference.key
        for owner in owners
        for held in await claim_store.held_by(estate_of(owner))
    }


def _filled(value: Any, token: str) -> Any:
    """Put the test's own name into every text; schemas know no hyphen, and the name holds none."""
    if isinstance(value, str):
        return value.replace("{a}", token)
    if isinstance(value, dict):
        return {key: _filled(each, token) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, token) for each in value]
    return value
