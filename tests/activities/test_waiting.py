"""A refusal ends with its cause: who was refused for a name is woken when it is given back."""

from collections.abc import Awaitable, Callable

import pytest

from activities.claim import ClaimActivities
from activities.release import ReleaseActivities
from activities.workload import WorkloadActivities
from clients.claim_release import SOUGHT_LABEL, waiting_for
from clients.claim_store import ClaimStore
from clients.resources import INGRESSES
from plattr.claims import Claim
from plattr.errors import OwnedElsewhere, StillDeleting
from plattr.features import ClaimKind
from plattr.objects import CustomObject, ObjectReference
from plattr.steps import ClaimInput, ClaimResult, CleanupStepInput, StepInput
from plattr.waiting_list import MOST_OF_A_NAMESPACE
from tests.fix_kubernetes import Cluster, application_spec, random_name
from tests.inputs import estate

pytestmark = pytest.mark.attack

Hook = Callable[[ObjectReference], Awaitable[None]]


class Scene:
    """What the worker does for several objects, and whom it woke."""

    def __init__(self, cluster: Cluster) -> None:
        self.woken: list[str] = []
        self.on_wake: Hook | None = None
        self.cluster = cluster
        self.claim_store = ClaimStore(cluster.kube, cluster.settings.lease_namespace, self._wake)
        self.claims = ClaimActivities(cluster.kube, self.claim_store, cluster.loader, cluster.events)
        self.releases = ReleaseActivities(cluster.kube, self.claim_store, cluster.events)
        self.workload = WorkloadActivities(cluster.loader, cluster.kube, self.claim_store, cluster.settings)

    async def _wake(self, reference: ObjectReference) -> None:
        self.woken.append(reference.name)
        if self.on_wake is not None:
            await self.on_wake(reference)

    async def ask(self, namespace: str, name: str, host: str) -> CustomObject:
        return await self.cluster.apply(namespace, name, application_spec(domain=host))

    async def claim(self, custom_object: CustomObject) -> ClaimResult:
        return await self.claims.claim_object(ClaimInput(reference=custom_object.reference))

    async def serve(self, custom_object: CustomObject) -> None:
        """Go through the whole run of an Application without features."""
        result = await self.claim(custom_object)
        step = StepInput(reference=custom_object.reference, uid=result.uid, generation=result.generation)
        await self.workload.reconcile_workload(step)

    async def go(self, custom_object: CustomObject) -> None:
        await self.releases.release_object(
            CleanupStepInput(reference=custom_object.reference, uid=custom_object.metadata.uid)
        )

    async def refuse(self, namespace: str, name: str, host: str) -> CustomObject:
        custom_object = await self.ask(namespace, name, host)
        with pytest.raises(OwnedElsewhere):
            await self.claim(custom_object)
        return custom_object

    async def waiting(self, host: str) -> list[str]:
        found = await self.claim_store.marked(Claim(kind=ClaimKind.HOST, name=host))
        assert found is not None
        lease, _ = found
        assert (SOUGHT_LABEL in lease["metadata"]["labels"]) is bool(waiting_for(lease))
        return [reference.name for reference in waiting_for(lease)]

    async def hosts(self, namespace: str) -> dict[str, str]:
        bodies = await self.cluster.kube.list(INGRESSES, namespace)
        return {body["metadata"]["name"]: body["spec"]["rules"][0]["host"] for body in bodies}


@pytest.fixture
def scene(cluster: Cluster) -> Scene:
    return Scene(cluster)


@pytest.fixture
def host() -> str:
    return f"{random_name()}.example.test"


async def test_who_was_refused_for_a_host_is_woken_when_its_holder_goes(
    scene: Scene, namespace: str, host: str
) -> None:
    holder, refused = await scene.ask(namespace, "holder", host), await scene.ask(namespace, "refused", host)
    await scene.claim(holder)
    with pytest.raises(OwnedElsewhere):
        await scene.claim(refused)
    assert scene.woken == []

    await scene.cluster.delete(holder.reference)
    await scene.go(holder)

    assert set(scene.woken) == {"refused"}
    assert (await scene.claim(refused)).verdict == "proceed"


async def test_a_holder_that_is_being_deleted_is_waited_for(scene: Scene, namespace: str, host: str) -> None:
    holder, late = await scene.ask(namespace, "holder", host), await scene.ask(namespace, "late", host)
    await scene.claim(holder)
    await scene.cluster.delete(holder.reference)

    with pytest.raises(StillDeleting):
        await scene.claim(late)
    await scene.go(holder)

    assert (await scene.claim(late)).verdict == "proceed"


async def test_a_pull_request_opened_again_under_another_name_waits_for_its_predecessor(
    scene: Scene, namespace: str
) -> None:
    name = random_name()
    await scene.cluster.apply(namespace, name)
    closed = await scene.cluster.preview(namespace, f"{name}-closed", name)
    await scene.claim(closed)
    opened = await scene.cluster.preview(namespace, f"{name}-opened", name)
    with pytest.raises(OwnedElsewhere):
        await scene.claim(opened)
    await scene.cluster.delete(closed.reference)

    with pytest.raises(StillDeleting):
        await scene.claim(opened)
    await scene.go(closed)

    assert set(scene.woken) == {opened.reference.name}
    assert (await scene.claim(opened)).verdict == "proceed"


async def test_two_applications_swap_their_hosts(scene: Scene, namespace: str, host: str) -> None:
    other = f"other-{host}"
    for name, own in (("one", host), ("two", other)):
        await scene.serve(await scene.ask(namespace, name, own))
    one, two = await scene.ask(namespace, "one", other), await scene.ask(namespace, "two", host)

    for custom_object in (one, two):
        with pytest.raises(OwnedElsewhere):
            await scene.claim(custom_object)
    first, scene.woken = scene.woken, []
    await scene.serve(one)
    second = scene.woken
    await scene.serve(two)

    assert set(first) == {"one"}
    assert set(second) == {"two"}
    assert await scene.hosts(namespace) == {"one": other, "two": host}


async def test_a_domain_that_is_refused_leaves_the_old_one_as_it_is(scene: Scene, namespace: str, host: str) -> None:
    taken = f"taken-{host}"
    await scene.claim(await scene.ask(namespace, "holder", taken))
    await scene.serve(await scene.ask(namespace, "shop", host))

    with pytest.raises(OwnedElsewhere):
        await scene.claim(await scene.ask(namespace, "shop", taken))

    assert await scene.hosts(namespace) == {"shop": host}


async def test_three_applications_pass_their_hosts_on_in_a_ring(scene: Scene, namespace: str, host: str) -> None:
    names, hosts = ("one", "two", "three"), [f"{number}-{host}" for number in range(3)]
    for name, own in zip(names, hosts, strict=True):
        await scene.serve(await scene.ask(namespace, name, own))
    asking = {name: await scene.ask(namespace, name, hosts[(place + 1) % 3]) for place, name in enumerate(names)}

    refused = list(names)
    for _ in range(4):
        for name in tuple(refused):
            try:
                await scene.serve(asking[name])
                refused.remove(name)
            except OwnedElsewhere:
                continue

    assert await scene.hosts(namespace) == {name: hosts[(place + 1) % 3] for place, name in enumerate(names)}


async def test_who_waits_for_a_host_gets_none_that_its_holder_has_no_other_for(
    scene: Scene, namespace: str, host: str
) -> None:
    kept = f"kept-{host}"
    await scene.serve(await scene.ask(namespace, "third", kept))
    await scene.serve(await scene.ask(namespace, "shop", host))
    waiter = await scene.ask(namespace, "waiter", host)
    with pytest.raises(OwnedElsewhere):
        await scene.claim(waiter)

    # The holder of the host that the shop asks for does not ask for another one.
    shop = await scene.ask(namespace, "shop", kept)
    for custom_object in (shop, waiter, shop):
        with pytest.raises(OwnedElsewhere):
            await scene.claim(custom_object)

    assert await scene.hosts(namespace) == {"third": kept, "shop": host}
    assert await scene.claim_store.holder_of(Claim(kind=ClaimKind.HOST, name=host)) == shop.reference
    assert scene.woken == []


async def test_a_holder_that_wants_what_is_kept_from_it_starts_no_swap(scene: Scene, namespace: str, host: str) -> None:
    kept, wanted = f"kept-{host}", f"wanted-{host}"
    for name, own in (("keeper", kept), ("decoy", wanted), ("shop", host)):
        await scene.serve(await scene.ask(namespace, name, own))
    decoy = await scene.ask(namespace, "decoy", kept)
    waiter, shop = await scene.ask(namespace, "waiter", host), await scene.ask(namespace, "shop", wanted)

    for custom_object in (waiter, decoy, shop, decoy, waiter, shop):
        with pytest.raises(OwnedElsewhere):
            await scene.claim(custom_object)

    assert await scene.hosts(namespace) == {"keeper": kept, "decoy": wanted, "shop": host}


async def test_who_waits_for_a_host_of_a_swap_gets_none_of_them(scene: Scene, namespace: str, host: str) -> None:
    other = f"other-{host}"
    for name, own in (("one", host), ("two", other)):
        await scene.serve(await scene.ask(namespace, name, own))
    waiter = await scene.ask(namespace, "waiter", host)
    one, two = await scene.ask(namespace, "one", other), await scene.ask(namespace, "two", host)

    for custom_object in (waiter, one, two, waiter, one):
        with pytest.raises(OwnedElsewhere):
            await scene.claim(custom_object)
    held = await scene.hosts(namespace)
    await scene.cluster.delete(waiter.reference)
    with pytest.raises(OwnedElsewhere):
        await scene.claim(one)
    await scene.serve(two)
    await scene.serve(one)

    assert held == {"one": host, "two": other}
    assert await scene.hosts(namespace) == {"one": other, "two": host}


async def test_refused_objects_that_are_deleted_leave_their_places_to_others(
    scene: Scene, namespace: str, host: str
) -> None:
    await scene.claim(await scene.ask(namespace, "holder", host))
    refused = [await scene.refuse(namespace, f"refused-{number}", host) for number in range(MOST_OF_A_NAMESPACE)]

    for custom_object in refused:
        await scene.cluster.delete(custom_object.reference)
        await scene.go(custom_object)

    assert await scene.waiting(host) == []
    await scene.refuse(namespace, "sixth", host)
    await scene.refuse(namespace, "seventh", host)
    assert await scene.waiting(host) == ["sixth", "seventh"]


async def test_who_asks_for_another_name_waits_for_the_old_one_no_more(scene: Scene, namespace: str, host: str) -> None:
    other = f"other-{host}"
    for name, own in (("holder", host), ("keeper", other)):
        await scene.claim(await scene.ask(namespace, name, own))

    await scene.refuse(namespace, "shop", host)
    before = await scene.waiting(host)
    await scene.refuse(namespace, "shop", other)

    assert (before, await scene.waiting(host), await scene.waiting(other)) == (["shop"], [], ["shop"])


async def test_of_a_full_list_those_go_whose_object_is_gone(scene: Scene, namespace: str, host: str) -> None:
    claim = Claim(kind=ClaimKind.HOST, name=host)
    await scene.claim(await scene.ask(namespace, "holder", host))
    living = await scene.refuse(namespace, "living", host)
    # Removed by force, finalizer and all, so that no cleanup was made.
    for number in range(MOST_OF_A_NAMESPACE - 1):
        gone = ObjectReference(namespace=namespace, name=f"gone-{number}")
        await scene.claim_store.wait_for(claim, estate(gone))
    full = await scene.waiting(host)

    await scene.refuse(namespace, "late", host)

    assert len(full) == MOST_OF_A_NAMESPACE
    assert await scene.waiting(host) == [living.reference.name, "late"]


async def test_whoever_asks_while_a_name_is_given_back_is_woken_too(scene: Scene, namespace: str, host: str) -> None:
    holder, refused = await scene.ask(namespace, "holder", host), await scene.ask(namespace, "refused", host)
    late = await scene.ask(namespace, "late", host)
    await scene.claim(holder)
    with pytest.raises(OwnedElsewhere):
        await scene.claim(refused)
    outcomes: list[str] = []

    async def ask_meanwhile(_: ObjectReference) -> None:
        # In the moment between the look at who waits and the deletion, of a holder that lives on.
        if not outcomes:
            with pytest.raises(StillDeleting) as waits:
                await scene.claim(late)
            outcomes.append(waits.value.reason)

    scene.on_wake = ask_meanwhile
    await scene.claim_store.release(estate(holder.reference), [Claim(kind=ClaimKind.HOST, name=host)])

    assert outcomes == [StillDeleting.reason]
    # Before the deletion, after it, and once more for the one that came in between.
    assert scene.woken.count("refused") >= 2
    assert scene.woken.count("late") >= 2
    assert (await scene.claim(late)).verdict == "proceed"
