"""The claim store: who holds a name keeps it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from clients import quarantine
from clients.claim_store import Acquisition
from clients.resources import LEASES
from plattr.backends import NothingPending
from plattr.claims import Claim
from plattr.errors import BackendRefused, BackendUnavailable, NameQuarantined, OwnedElsewhere, PlattrError
from plattr.features import ClaimKind, ConditionType
from plattr.objects import ObjectReference, Owner
from plattr.target import OWNER_UID_ANNOTATION
from tests.fix_kubernetes import Cluster, random_name
from tests.inputs import CLUSTER, estate


def owner_of(namespace: str, name: str = "shop", uid: str = "uid-1") -> Owner:
    return Owner(reference=ObjectReference(namespace=namespace, name=name), uid=uid, cluster=CLUSTER)


def schema(name: str) -> Claim:
    return Claim(kind=ClaimKind.SCHEMA, name=name)


async def test_a_name_that_is_held_is_refused_and_no_other_is_claimed(cluster: Cluster) -> None:
    first, second = await cluster.new_namespace(), await cluster.new_namespace()
    taken, free = schema(random_name()), schema(random_name())
    await cluster.claim_store.acquire(owner_of(first), [taken])

    with pytest.raises(OwnedElsewhere) as caught:
        await cluster.claim_store.acquire(owner_of(second), [free, taken])

    assert f"{first}/Application/shop" in str(caught.value)
    assert f"{second}/Application/shop" in str(caught.value)
    assert caught.value.condition == ConditionType.DATABASE
    assert await cluster.leases(second) == []


async def test_claiming_twice_writes_nothing(cluster: Cluster, namespace: str) -> None:
    claims = [schema(random_name()), Claim(kind=ClaimKind.HOST, name=f"{random_name()}.example.test")]
    await cluster.claim_store.acquire(owner_of(namespace), claims)
    before = await cluster.leases(namespace)

    await cluster.claim_store.acquire(owner_of(namespace), claims)

    assert await cluster.leases(namespace) == before


async def test_the_same_owner_with_a_new_uid_takes_its_claims_over(cluster: Cluster, namespace: str) -> None:
    claim = schema(random_name())
    await cluster.claim_store.acquire(owner_of(namespace, uid="uid-1"), [claim])

    await cluster.claim_store.acquire(owner_of(namespace, uid="uid-2"), [claim])

    (lease,) = await cluster.leases(namespace)
    assert lease["metadata"]["annotations"][OWNER_UID_ANNOTATION] == "uid-2"


async def test_of_many_that_claim_at_once_exactly_one_wins(cluster: Cluster, namespace: str) -> None:
    claim = schema(random_name())
    owners = [owner_of(namespace, f"shop-{index}") for index in range(8)]

    results = await asyncio.gather(
        *(cluster.claim_store.acquire(owner, [claim]) for owner in owners), return_exceptions=True
    )

    losers = [result for result in results if isinstance(result, OwnedElsewhere)]
    (lease,) = await cluster.leases(namespace)
    winner = next(owner for owner, result in zip(owners, results, strict=True) if isinstance(result, Acquisition))
    assert len(losers) == 7
    assert lease["spec"]["holderIdentity"] == winner.reference.key


async def test_a_schema_that_ends_in_an_underscore_and_a_long_host_can_be_claimed(
    cluster: Cluster, namespace: str
) -> None:
    host = ".".join(["a" * 60] * 4)
    claims = [schema(f"{random_name()}_"), Claim(kind=ClaimKind.HOST, name=host)]

    await cluster.claim_store.acquire(owner_of(namespace), claims)

    held = await cluster.claim_store.held_by(estate(owner_of(namespace).reference))
    assert {claim.claim for claim in held} == set(claims)


async def test_an_owner_holds_its_own_claims_only(cluster: Cluster, namespace: str) -> None:
    mine, theirs = schema(random_name()), schema(random_name())
    host = Claim(kind=ClaimKind.HOST, name=f"{random_name()}.example.test")
    await cluster.claim_store.acquire(owner_of(namespace), [mine, host], is_retained=True)
    await cluster.claim_store.acquire(owner_of(namespace, "other"), [theirs])

    all_held = await cluster.claim_store.held_by(estate(owner_of(namespace).reference))
    schemas = await cluster.claim_store.held_by(estate(owner_of(namespace).reference), ClaimKind.SCHEMA)

    assert {claim.claim for claim in all_held} == {mine, host}
    assert [(claim.claim, claim.owner, claim.is_retained) for claim in schemas] == [(mine, owner_of(namespace), True)]


async def test_a_release_gives_back_what_is_ours_and_nothing_else_and_may_be_repeated(
    cluster: Cluster, namespace: str
) -> None:
    mine, theirs = schema(random_name()), schema(random_name())
    await cluster.claim_store.acquire(owner_of(namespace), [mine])
    await cluster.claim_store.acquire(owner_of(namespace, "other"), [theirs])

    for _ in range(2):
        await cluster.claim_store.release(estate(owner_of(namespace).reference), [mine, theirs])

    (left,) = await cluster.leases(namespace)
    assert left["spec"]["holderIdentity"] == f"{namespace}/Application/other"


async def test_a_lease_without_a_holder_is_nobodys_to_take(cluster: Cluster, namespace: str) -> None:
    claim = schema(random_name())
    body = {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {"name": claim.lease_name},
        "spec": {},
    }
    await cluster.admin.create(LEASES, body, cluster.settings.lease_namespace)

    try:
        with pytest.raises(OwnedElsewhere):
            await cluster.claim_store.acquire(owner_of(namespace), [claim])
    finally:
        await cluster.admin.delete(LEASES, claim.lease_name, cluster.settings.lease_namespace)


async def test_of_two_that_need_the_same_names_at_once_one_gets_all_and_the_other_keeps_none(
    cluster: Cluster, namespace: str
) -> None:
    claims = [schema(random_name()) for _ in range(6)]
    one, other = owner_of(namespace, "one"), owner_of(namespace, "other")

    results = await asyncio.gather(
        cluster.claim_store.acquire(one, claims),
        cluster.claim_store.acquire(other, claims[::-1]),
        return_exceptions=True,
    )

    held = [len(await cluster.claim_store.held_by(estate(owner.reference))) for owner in (one, other)]
    assert sorted(held) == [0, 6]
    assert [isinstance(result, OwnedElsewhere) for result in results] == [count == 0 for count in held]


async def test_that_a_resource_is_being_made_is_noted_once_and_outlives_a_new_incarnation(
    cluster: Cluster, namespace: str
) -> None:
    claim, reference = schema(random_name()), owner_of(namespace).reference
    await cluster.claim_store.acquire(owner_of(namespace), [claim])
    await cluster.claim_store.note_made(estate(reference), claim)
    before = await cluster.leases(namespace)

    await cluster.claim_store.note_made(estate(reference), claim)
    await cluster.claim_store.note_made(estate(owner_of(namespace, "other").reference), claim)
    await cluster.claim_store.note_made(estate(reference), schema(random_name()))
    unchanged = await cluster.leases(namespace)
    await cluster.claim_store.acquire(owner_of(namespace, uid="uid-2"), [claim])

    assert unchanged == before
    (held,) = await cluster.claim_store.held_by(estate(reference))
    assert held.is_made
    await cluster.claim_store.release(estate(reference), [claim])
    await cluster.claim_store.acquire(owner_of(namespace), [claim])
    (held,) = await cluster.claim_store.held_by(estate(reference))
    assert not held.is_made


async def unanswered(cluster: Cluster, owner: Owner) -> list[bool]:
    return [held.unanswered_until is not None for held in await cluster.claim_store.held_by(estate(owner.reference))]


async def test_a_call_is_noted_until_it_is_answered(cluster: Cluster, namespace: str) -> None:
    owner, claim = owner_of(namespace), schema(random_name())
    await cluster.claim_store.acquire(owner, [claim])

    async with cluster.claim_store.track_call(estate(owner.reference), claim):
        during = await unanswered(cluster, owner)

    assert during == [True]
    assert await unanswered(cluster, owner) == [False]


@pytest.mark.parametrize(
    ("error", "stays"),
    [(BackendUnavailable("no answer"), True), (NothingPending("not sent"), False), (BackendRefused("no"), False)],
    ids=["lost", "not sent", "refused"],
)
async def test_a_call_whose_answer_is_lost_stays_noted(
    cluster: Cluster, namespace: str, error: PlattrError, *, stays: bool
) -> None:
    owner, claim = owner_of(namespace), schema(random_name())
    await cluster.claim_store.acquire(owner, [claim])

    with pytest.raises(type(error)):
        async with cluster.claim_store.track_call(estate(owner.reference), claim):
            raise error

    assert await unanswered(cluster, owner) == [stays]


async def test_an_answer_does_not_take_back_the_note_of_an_earlier_call(cluster: Cluster, namespace: str) -> None:
    owner, claim = owner_of(namespace), schema(random_name())
    await cluster.claim_store.acquire(owner, [claim])
    with pytest.raises(BackendUnavailable):
        async with cluster.claim_store.track_call(estate(owner.reference), claim):
            raise BackendUnavailable("no answer")

    async with cluster.claim_store.track_call(estate(owner.reference), claim):
        pass

    assert await unanswered(cluster, owner) == [True]


async def lost_call(cluster: Cluster, owner: Owner, claim: Claim) -> None:
    """Claim the name and lose the answer to a call about it."""
    await cluster.claim_store.acquire(owner, [claim])
    with pytest.raises(BackendUnavailable):
        async with cluster.claim_store.track_call(estate(owner.reference), claim):
            raise BackendUnavailable("no answer")


@pytest.mark.attack
async def test_a_name_with_a_lost_call_is_nobodys_until_that_can_come_true_no_more(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, free, owner = schema(random_name()), schema(random_name()), owner_of(namespace)
    await lost_call(cluster, owner, claim)
    before = datetime.now(UTC)

    end = await cluster.claim_store.release(estate(owner.reference), [claim])

    assert end is not None
    assert timedelta(minutes=4) < end - before <= timedelta(minutes=5)
    assert (owner.reference, end) in await cluster.claim_store.quarantined()
    for other in (owner, owner_of(namespace, uid="uid-2"), owner_of(await cluster.new_namespace())):
        with pytest.raises(NameQuarantined, match=claim.name) as caught:
            await cluster.claim_store.acquire(other, [free, claim])
        assert caught.value.again_at == end
        assert free not in [held.claim for held in await cluster.claim_store.held_by(estate(other.reference))]
    assert await cluster.claim_store.release(estate(owner.reference), [claim]) == end
    monkeypatch.setattr(quarantine, "LATE_CALL", timedelta(0))
    assert await cluster.claim_store.release(estate(owner.reference), [claim]) is None
    assert await cluster.leases(namespace) == []


async def test_the_same_owner_takes_a_name_over_when_its_quarantine_is_over(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, owner = schema(random_name()), owner_of(namespace, uid="uid-2")
    await lost_call(cluster, owner_of(namespace), claim)
    await cluster.claim_store.release(estate(owner.reference), [claim])
    monkeypatch.setattr(quarantine, "LATE_CALL", timedelta(0))

    await cluster.claim_store.acquire(owner, [claim])

    monkeypatch.undo()
    (held,) = await cluster.claim_store.held_by(estate(owner.reference))
    assert (held.owner, held.quarantined_until, held.unanswered_until) == (owner, None, None)
    assert owner.reference not in [reference for reference, _ in await cluster.claim_store.quarantined()]


async def test_an_object_made_anew_by_force_waits_for_its_predecessors_lost_call_and_the_same_one_does_not(
    cluster: Cluster, namespace: str
) -> None:
    claim = schema(random_name())
    await lost_call(cluster, owner_of(namespace), claim)

    await cluster.claim_store.acquire(owner_of(namespace), [claim])
    with pytest.raises(NameQuarantined):
        await cluster.claim_store.acquire(owner_of(namespace, uid="uid-2"), [claim])


async def test_a_call_about_anothers_name_is_not_noted(cluster: Cluster) -> None:
    first, second = owner_of(await cluster.new_namespace()), owner_of(await cluster.new_namespace())
    claim = schema(random_name())
    await cluster.claim_store.acquire(first, [claim])

    async with cluster.claim_store.track_call(estate(second.reference), claim):
        assert await unanswered(cluster, first) == [False]
