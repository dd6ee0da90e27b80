"""An object that changes faster than its runs get through is told of it at intervals, and nobody else waits for it."""

import asyncio
import time
from itertools import pairwise

import pytest

from plattr.objects import Kind, ObjectReference
from plattr.retries import Backoff
from tests.watcher.bodies import BodyFleet, custom_object
from watcher import bursts as bursts_module
from watcher.bursts import FREE, PAUSES, QUIET_SECONDS, Bursts
from watcher.metrics import WatcherMetrics
from watcher.reconcile_queue import ReconcileQueue, ReconcileRequest
from watcher.time_to_running import TimeToRunning

pytestmark = pytest.mark.attack

SHOP = ObjectReference(namespace="team", name="shop")


def test_a_churn_for_an_hour_is_told_four_times_a_minute() -> None:
    now = 100.0
    bursts = Bursts(lambda: now)
    sent = []
    while now < 3700.0:
        if bursts.wait_seconds(SHOP) == 0:
            bursts.sent(SHOP, preempts=True)
            sent.append(now)
        now += 0.5

    assert len(sent) <= 3600 / PAUSES.longest + 10
    assert max(later - earlier for earlier, later in pairwise(sent)) <= PAUSES.longest + 0.5


def test_whose_runs_get_through_never_waits() -> None:
    now = 100.0
    bursts = Bursts(lambda: now)

    for _ in range(50):
        assert bursts.wait_seconds(SHOP) == 0
        bursts.sent(SHOP, preempts=False)
        now += 2.0


def test_a_few_corrections_do_not_wait_and_a_quiet_half_minute_forgives() -> None:
    now = 100.0
    bursts = Bursts(lambda: now)
    for _ in range(FREE):
        assert bursts.wait_seconds(SHOP) == 0
        bursts.sent(SHOP, preempts=True)

    assert bursts.wait_seconds(SHOP) == PAUSES.first
    now += QUIET_SECONDS
    bursts.sent(ObjectReference(namespace="team", name="other"), preempts=True)

    assert bursts.wait_seconds(SHOP) == 0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bursts_module, "PAUSES", Backoff(first=0.3, longest=15))


async def test_the_newest_change_of_a_burst_is_told_and_a_deletion_at_once(
    metrics: WatcherMetrics, quick: None
) -> None:
    sent = []

    async def send(request: ReconcileRequest) -> None:
        sent.append((request.is_deleting, time.monotonic()))

    queue = ReconcileQueue(send, metrics)
    sending = asyncio.create_task(queue.run())
    request = ReconcileRequest(reference=SHOP, is_deleting=False, signal="changed", preempts=True)
    for _ in range(FREE):
        queue.put(request)
        assert await queue.drain(1)

    begun = time.monotonic()
    for _ in range(5):
        queue.put(request)
    await asyncio.sleep(0.1)
    # It waits, and is no backlog that anybody should be woken for.
    assert len(sent) == FREE
    assert metrics.queue_depth._value.get() == 0
    async with asyncio.timeout(2):
        while len(sent) == FREE:
            await asyncio.sleep(0.01)
    told = sent[FREE][1] - begun
    queue.put(request)
    queue.put(ReconcileRequest(reference=SHOP, is_deleting=True, signal="changed"))
    await asyncio.sleep(0.1)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)

    assert told > 0.2
    assert [is_deleting for is_deleting, _ in sent] == [False] * (FREE + 1) + [True]


async def test_a_change_before_the_last_one_settled_calls_a_run_off_and_one_after_it_does_not(
    metrics: WatcherMetrics,
) -> None:
    requests: list[ReconcileRequest] = []
    tracker = BodyFleet(requests.append, TimeToRunning(metrics))
    tracker.change(Kind.APPLICATION, "ADDED", custom_object(generation=1))
    tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(generation=1, phase="Provisioning"))
    tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(generation=2, observed=1, phase="Provisioning"))
    tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(generation=2, phase="Running"))
    tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(generation=3, observed=2, phase="Running"))

    assert [request.preempts for request in requests] == [False, True, False]
