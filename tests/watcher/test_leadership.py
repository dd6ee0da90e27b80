import asyncio
import time

import pytest

from clients.kube import KubeClient
from clients.resources import LEASES
from watcher import leadership
from watcher.leadership import LEASE_NAME, Leadership, LeadershipLost


async def test_one_of_two_leads_and_hands_over_at_once(kube: KubeClient, namespace: str) -> None:
    first, second = Leadership(kube, namespace), Leadership(kube, namespace)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(3)
    assert (first.is_leader, second.is_leader, waiting.done()) == (True, False, False)

    released_at = time.monotonic()
    await first.release()
    await asyncio.wait_for(waiting, 5)

    assert time.monotonic() - released_at < 4
    assert (first.is_leader, second.is_leader) == (False, True)
    lease = await kube.get(LEASES, LEASE_NAME, namespace)
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == second.identity
    assert lease["spec"]["leaseDurationSeconds"] == 15


async def test_of_many_at_the_same_moment_one_leads(kube: KubeClient, namespace: str) -> None:
    replicas = [Leadership(kube, namespace) for _ in range(8)]

    tasks = [asyncio.create_task(replica.acquire()) for replica in replicas]
    await asyncio.sleep(3)

    assert [replica.is_leader for replica in replicas].count(True) == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_leader_that_died_is_succeeded_when_its_lease_has_run_out(
    kube: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "LEASE_SECONDS", 3)
    dead, heir = Leadership(kube, namespace), Leadership(kube, namespace, retry_seconds=0.2)
    await dead.acquire()
    died_at = time.monotonic()

    await asyncio.wait_for(heir.acquire(), 10)

    assert 3 <= time.monotonic() - died_at < 5


async def test_a_leader_that_was_succeeded_stops(
    kube: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "RENEW_SECONDS", 0.5)
    leader = Leadership(kube, namespace)
    await leader.acquire()
    keeping = asyncio.create_task(leader.keep())
    await asyncio.sleep(1.2)
    assert not keeping.done()

    await kube.json_patch(
        LEASES, LEASE_NAME, [{"op": "replace", "path": "/spec/holderIdentity", "value": "usurper"}], namespace
    )

    with pytest.raises(LeadershipLost, match="usurper"):
        await asyncio.wait_for(keeping, 5)
    assert not leader.is_leader


async def test_a_leader_that_cannot_renew_stops_before_its_lease_ends(
    kube: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "RENEW_SECONDS", 0.3)
    monkeypatch.setattr(leadership, "RENEW_DEADLINE_SECONDS", 1.0)
    leader = Leadership(kube, namespace)
    await leader.acquire()
    # Its API server is gone from here on.
    leader._namespace = "no-such-namespace"

    with pytest.raises(LeadershipLost):
        await asyncio.wait_for(leader.keep(), 6)


async def test_release_leaves_the_lease_of_another_alone(kube: KubeClient, namespace: str) -> None:
    leader, other = Leadership(kube, namespace), Leadership(kube, namespace)
    await leader.acquire()
    other.is_leader = True

    await other.release()

    lease = await kube.get(LEASES, LEASE_NAME, namespace)
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == leader.identity
