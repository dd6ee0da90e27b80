import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from clients import temporal
from plattr.errors import BackendRefused, BackendUnavailable
from plattr.naming import workflow_id
from plattr.objects import Kind, ObjectReference
from tests.fix_temporal import TemporalServer
from watcher.metrics import WatcherMetrics
from watcher.reconcile_queue import ReconcileQueue, ReconcileRequest

NO_WORKER_HERE = "nobody-polls-this"


def request_for(
    name: str = "shop",
    *,
    kind: Kind = Kind.APPLICATION,
    namespace: str = "team",
    deleting: bool = False,
    signal: str = "changed",
) -> ReconcileRequest:
    reference = ObjectReference(kind=kind, namespace=namespace, name=name)
    return ReconcileRequest(reference=reference, is_deleting=deleting, signal=signal)


@asynccontextmanager
async def running(queue: ReconcileQueue) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Recorder:
    """Stands for Temporal where a test has to decide when it answers, and how."""

    def __init__(self) -> None:
        self.sent: list[ReconcileRequest] = []
        self.errors: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = 0
        self.most_under_way = 0

    async def __call__(self, request: ReconcileRequest) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self.gate.wait()
        self.under_way -= 1
        if self.errors:
            raise self.errors.pop(0)
        self.sent.append(request)


async def test_changes_that_arrive_during_a_request_become_one_more(metrics: WatcherMetrics) -> None:
    recorder = Recorder()
    queue = ReconcileQueue(recorder, metrics)

    async with running(queue):
        recorder.gate.clear()
        queue.put(request_for())
        await asyncio.sleep(0.05)
        for _ in range(50):
            queue.put(request_for())
        queue.put(request_for(deleting=True))
        recorder.gate.set()
        assert await queue.drain(5)

    assert [request.is_deleting for request in recorder.sent] == [False, True]
    assert recorder.most_under_way == 1


@pytest.mark.parametrize(
    ("first", "second", "sent"),
    [
        ("resync", "changed", "resync"),
        ("resync", "repair", "resync"),
        ("repair", "changed", "repair"),
        ("repair", "resync", "resync"),
        ("changed", "repair", "repair"),
    ],
)
async def test_the_stronger_of_two_signals_is_sent(metrics: WatcherMetrics, first: str, second: str, sent: str) -> None:
    recorder = Recorder()
    queue = ReconcileQueue(recorder, metrics)
    queue.put(request_for(signal=first))
    queue.put(request_for(signal=second))

    async with running(queue):
        assert await queue.drain(5)

    assert [request.signal for request in recorder.sent] == [sent]


async def test_concurrency_is_bounded(metrics: WatcherMetrics) -> None:
    recorder = Recorder()
    queue = ReconcileQueue(recorder, metrics, concurrency=4)
    recorder.gate.clear()
    for number in range(20):
        queue.put(request_for(f"app-{number}"))

    async with running(queue):
        await asyncio.sleep(0.05)
        assert recorder.under_way == 4
        recorder.gate.set()
        assert await queue.drain(5)

    assert len(recorder.sent) == 20
    assert recorder.most_under_way == 4


async def test_namespaces_take_turns_and_within_one_the_first_comes_first(metrics: WatcherMetrics) -> None:
    recorder = Recorder()
    queue = ReconcileQueue(recorder, metrics, concurrency=1)
    for number in range(4):
        queue.put(request_for(f"crowd-{number}", namespace="crowd"))
    queue.put(request_for("one", namespace="alone"))
    queue.put(request_for("two", namespace="alone"))

    async with running(queue):
        assert await queue.drain(5)

    sent = [request.reference.name for request in recorder.sent]
    assert sent == ["crowd-0", "one", "crowd-1", "two", "crowd-2", "crowd-3"]


async def test_a_failed_request_is_sent_again_with_what_came_after_it(metrics: WatcherMetrics) -> None:
    recorder = Recorder()
    recorder.errors = [BackendUnavailable("cannot request a reconcile: away")]
    queue = ReconcileQueue(recorder, metrics)
    queue.put(request_for())

    async with running(queue):
        await asyncio.sleep(0.05)
        assert recorder.sent == []
        assert queue.depth == 1
        queue.put(request_for(deleting=True))
        assert await queue.drain(5)

    assert [request.is_deleting for request in recorder.sent] == [True]


async def test_a_refused_request_does_not_hold_up_the_others(metrics: WatcherMetrics) -> None:
    recorder = Recorder()
    recorder.errors = [BackendRefused("cannot request a reconcile: unknown search attribute")]
    queue = ReconcileQueue(recorder, metrics, concurrency=1)
    queue.put(request_for("refused"))
    queue.put(request_for("other"))

    async with running(queue):
        await asyncio.sleep(0.1)
        assert [request.reference.name for request in recorder.sent] == ["other"]
        assert await queue.drain(5)

    assert [request.reference.name for request in recorder.sent] == ["other", "refused"]


async def test_a_defect_in_sending_ends_the_queue_instead_of_passing_unseen(metrics: WatcherMetrics) -> None:
    recorder = Recorder()
    recorder.errors = [KeyError("defect")]
    queue = ReconcileQueue(recorder, metrics)
    queue.put(request_for())

    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(queue.run(), 5)


async def signals_of(client: Client, reference: ObjectReference) -> list[str]:
    history = await client.get_workflow_handle(workflow_id(reference)).fetch_history()
    return [
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    ]


@pytest.mark.parametrize(
    ("kind", "deleting", "workflow"),
    [
        (Kind.APPLICATION, False, "ProvisionApplication"),
        (Kind.APPLICATION, True, "CleanupApplication"),
        (Kind.PREVIEW, False, "PreviewLifecycle"),
        (Kind.PREVIEW, True, "CleanupPreview"),
    ],
    ids=["application", "application-deleted", "preview", "preview-deleted"],
)
async def test_temporal_takes_a_request_without_any_worker(
    temporal_server: TemporalServer, kind: Kind, deleting: bool, workflow: str
) -> None:
    client = await temporal.connect_temporal(environment=temporal_server.environment)
    reference = ObjectReference(kind=kind, namespace="team", name=f"a{uuid.uuid4().hex[:8]}")

    await temporal.request_reconcile(client, reference, is_deleting=deleting, task_queue=NO_WORKER_HERE)
    first = await client.get_workflow_handle(workflow_id(reference)).describe()
    await temporal.request_reconcile(client, reference, is_deleting=True, signal="resync", task_queue=NO_WORKER_HERE)
    second = await client.get_workflow_handle(workflow_id(reference)).describe()

    assert first.workflow_type == workflow
    assert first.typed_search_attributes.get(temporal.NAME_ATTRIBUTE) == reference.name
    assert first.typed_search_attributes.get(temporal.NAMESPACE_ATTRIBUTE) == "team"
    assert second.run_id == first.run_id
    assert await signals_of(client, reference) == ["changed", "resync"]


async def test_nothing_is_lost_while_temporal_is_away(temporal_server: TemporalServer, metrics: WatcherMetrics) -> None:
    client = await temporal.connect_temporal(environment=temporal_server.environment)

    async def send(request: ReconcileRequest) -> None:
        await temporal.request_reconcile(
            client, request.reference, is_deleting=request.is_deleting, task_queue=NO_WORKER_HERE
        )

    queue = ReconcileQueue(send, metrics)
    names = [f"b{uuid.uuid4().hex[:8]}" for _ in range(60)]
    async with running(queue):
        queue.put(request_for(names[0]))
        assert await queue.drain(10)
        temporal_server.stop()
        for name in names:
            queue.put(request_for(name))
        assert not await queue.drain(3)
        assert queue.depth == 60

        await temporal_server.start()

        assert await queue.drain(60)
    for name in names:
        expected = ["changed"] * (2 if name == names[0] else 1)
        assert await signals_of(client, request_for(name).reference) == expected


async def test_a_namespace_that_is_not_there_is_a_refusal_that_names_it(temporal_server: TemporalServer) -> None:
    client = await temporal.connect_temporal(environment=temporal_server.environment | {"TEMPORAL_NAMESPACE": "none"})

    with pytest.raises(BackendRefused) as caught:
        await temporal.request_reconcile(client, request_for().reference, is_deleting=False, task_queue=NO_WORKER_HERE)

    assert "none" in str(caught.value)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    client = await temporal.connect_temporal(environment={"TEMPORAL_ADDRESS": "127.0.0.1:1"})

    with pytest.raises(BackendUnavailable):
        await temporal.request_reconcile(client, request_for().reference, is_deleting=False)
