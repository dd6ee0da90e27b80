"""Who holds a cluster's id: one installation at a time, whatever was copied from it."""

import asyncio
import copy
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from clients.installation import LEASE_NAME, Installation
from clients.kube import KubeClient
from clients.postgres import PostgresClient
from clients.resources import LEASES, NAMESPACES
from plattr.errors import BackendUnavailable, ClusterHeldElsewhere
from plattr.naming import PRIVATE_SCHEMA
from tests.fix_postgres import Superuser

pytestmark = pytest.mark.attack


class Ground:
    """API servers as namespaces, each with its own Lease, and one PostgreSQL."""

    def __init__(self, kube: KubeClient, postgres: PostgresClient, superuser: Superuser) -> None:
        self.kube = copy.copy(kube)
        self.kube.cluster = f"c-{secrets.token_hex(4)}"
        self.postgres = postgres
        self.superuser = superuser
        self.made: list[str] = []

    async def api_server(self) -> str:
        name = f"installation-{secrets.token_hex(4)}"
        await self.kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.made.append(name)
        return name

    async def copied(self, api_server: str) -> str:
        """Return a copy of an API server, as a restored backup of its etcd is."""
        lease = await self.kube.get(LEASES, LEASE_NAME, api_server)
        assert lease is not None
        name = await self.api_server()
        metadata = {"name": LEASE_NAME, "namespace": name, "annotations": lease["metadata"]["annotations"]}
        await self.kube.create(LEASES, {**lease, "metadata": metadata}, name)
        return name

    def worker(self, api_server: str) -> Installation:
        return Installation(self.kube, self.postgres, api_server)

    async def row(self) -> tuple[Any, ...]:
        cursor = await self.superuser.execute(
            f"SELECT token, renewed FROM {PRIVATE_SCHEMA}.installations WHERE cluster = %s", [self.kube.cluster]
        )
        row = await cursor.fetchone()
        assert row is not None
        return row

    async def let_time_pass(self) -> None:
        await self.superuser.execute(
            f"UPDATE {PRIVATE_SCHEMA}.installations SET renewed = now() - interval '61 s' WHERE cluster = %s",
            [self.kube.cluster],
        )


@pytest.fixture
async def ground(database_kube: KubeClient, postgres: PostgresClient, superuser: Superuser) -> AsyncIterator[Ground]:
    ground = Ground(database_kube, postgres, superuser)
    yield ground
    await superuser.execute(f"DELETE FROM {PRIVATE_SCHEMA}.installations WHERE cluster = %s", [ground.kube.cluster])
    for name in ground.made:
        await database_kube.delete(NAMESPACES, name)


async def test_a_copy_is_refused_while_the_original_lives_and_writes_nothing(ground: Ground) -> None:
    original = await ground.api_server()
    first = ground.worker(original)
    await first.take()
    restored = await ground.copied(original)
    await first.renew()
    await first.renew()
    row, lease = await ground.row(), await ground.kube.get(LEASES, LEASE_NAME, restored)

    with pytest.raises(ClusterHeldElsewhere) as refusal:
        await ground.worker(restored).take()

    assert ground.kube.cluster in str(refusal.value)
    assert "CLUSTER_ID" in str(refusal.value)
    assert await ground.row() == row
    assert await ground.kube.get(LEASES, LEASE_NAME, restored) == lease
    await first.renew()


async def test_of_two_copies_that_start_at_once_exactly_one_works(ground: Ground) -> None:
    original = await ground.api_server()
    await ground.worker(original).take()
    # The original's own workers are gone: what is left are two clusters with its Lease.
    places = [await ground.copied(original), original]

    outcomes = await asyncio.gather(*(ground.worker(place).take() for place in places), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes if outcome is not None] == [ClusterHeldElsewhere]


async def test_all_workers_of_one_installation_hold_its_id_together(ground: Ground) -> None:
    place = await ground.api_server()
    workers = [ground.worker(place) for _ in range(5)]

    await asyncio.gather(*(worker.take() for worker in workers))
    for _ in range(3):
        await asyncio.gather(*(worker.renew() for worker in workers))


async def test_a_worker_that_starts_anew_takes_the_id_at_once(ground: Ground) -> None:
    place = await ground.api_server()
    await ground.worker(place).take()

    await ground.worker(place).take()


async def test_a_silent_installation_is_replaced_and_learns_of_it(ground: Ground) -> None:
    first, second = ground.worker(await ground.api_server()), ground.worker(await ground.api_server())
    await first.take()
    with pytest.raises(ClusterHeldElsewhere):
        await second.take()

    await ground.let_time_pass()
    await second.take()

    with pytest.raises(ClusterHeldElsewhere):
        await first.renew()


@pytest.mark.parametrize("crash", ["before-the-row", "after-the-row"])
async def test_a_crash_between_lease_and_row_locks_nobody_out(
    ground: Ground, crash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = await ground.api_server()
    worker = ground.worker(place)
    await worker.take()
    step = "_renew_row" if crash == "before-the-row" else "_advance"

    async def die(*_: object) -> None:
        raise BackendUnavailable("killed")

    monkeypatch.setattr(worker, step, die)
    with pytest.raises(BackendUnavailable):
        await worker.renew()

    await ground.worker(place).take()


async def test_a_lease_that_somebody_removes_is_made_again_by_whoever_remembers_it(ground: Ground) -> None:
    place = await ground.api_server()
    worker = ground.worker(place)
    await worker.take()
    await ground.kube.delete(LEASES, LEASE_NAME, place)

    await worker.renew()
    await ground.worker(place).take()
