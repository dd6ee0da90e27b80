"""One trace from the watcher's reconcile request to the calls that the backends got, and nothing secret in it."""

import asyncio
import re
import uuid
from base64 import b64decode
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from temporalio import activity, workflow
from temporalio.client import WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.interceptor import AttemptGuard
from activities.metering import AttemptMeter
from clients import temporal
from clients.resources import APPLICATIONS, SECRETS, Json
from plattr.backends import Backend
from plattr.naming import workflow_id
from plattr.objects import Kind, ObjectReference
from plattr.settings import Settings
from stack.platform import Platform
from telemetry import tracing
from tests.fix_kubernetes import Cluster, application_spec, random_name
from tests.fix_temporal import TemporalServer
from tests.inputs import CLUSTER
from watcher.metrics import WatcherMetrics
from watcher.reconcile_queue import ReconcileQueue, ReconcileRequest
from worker.__main__ import build_worker
from worker.registry import Clients, connect_clients


@pytest.fixture
async def clients(
    platform: Platform, core_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Clients]:
    environment = platform.environment("worker")
    for name in ("KUBECONFIG", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, environment[name])
    clients = await connect_clients(core_settings)
    clients.kube.cluster = CLUSTER
    yield clients
    await clients.close()


@pytest.fixture
async def reference(namespace: str) -> ObjectReference:
    return ObjectReference(kind=Kind.APPLICATION, namespace=namespace, name=random_name())


async def until_phase(cluster: Cluster, reference: ObjectReference, phase: str) -> Json | None:
    async with asyncio.timeout(90):
        while (body := await cluster.body(reference)) and body.get("status", {}).get("phase") != phase:
            await asyncio.sleep(0.2)
        return body


def trace_of(spans: Sequence[ReadableSpan], request: str) -> list[Any]:
    """Return the reconcile request's trace; the test's own calls to Kubernetes each begin another."""
    (root,) = [span for span in spans if span.name == request]
    assert root.parent is None
    return [span for span in spans if span.context.trace_id == root.context.trace_id]


def ancestors(span: Any, spans: list[Any]) -> list[str]:
    by_id = {one.context.span_id: one for one in spans}
    names = []
    while span.parent is not None:
        span = by_id[span.parent.span_id]
        names.append(span.name)
    return names


async def test_one_trace_leads_from_the_request_to_every_backend_and_back_when_all_is_removed(
    cluster: Cluster,
    clients: Clients,
    core_settings: Settings,
    temporal_server: TemporalServer,
    reference: ObjectReference,
    spans: InMemorySpanExporter,
) -> None:
    task_queue = f"traces-{uuid.uuid4().hex[:8]}"
    client = await temporal.connect_temporal(lazy=False, environment=temporal_server.environment)

    async def send(request: ReconcileRequest) -> None:
        await temporal.request_reconcile(
            client, request.reference, is_deleting=request.is_deleting, signal=request.signal, task_queue=task_queue
        )

    queue = ReconcileQueue(send, WatcherMetrics(CollectorRegistry()))
    features: Json = {"database": {"enabled": True}, "auth": {"enabled": True}}
    features["storage"] = {"enabled": True, "buckets": [{"name": "files"}]}
    poking = asyncio.create_task(queue.run())
    async with build_worker(client, core_settings, clients, task_queue):
        await cluster.apply(reference.namespace, reference.name, application_spec(**features))
        queue.put(ReconcileRequest(reference=reference, is_deleting=False, signal="changed"))
        await until_phase(cluster, reference, "Running")
        # A run that is still open would become the cleanup, within its own trace.
        await client.get_workflow_handle(workflow_id(reference)).result()
        secret = await cluster.admin.get(SECRETS, f"{reference.name}-db", reference.namespace)
        provision = trace_of(spans.get_finished_spans(), "SignalWithStartWorkflow:ProvisionApplication")

        spans.clear()
        await cluster.admin.delete(APPLICATIONS, reference.name, reference.namespace)
        queue.put(ReconcileRequest(reference=reference, is_deleting=True, signal="changed"))
        assert await until_phase(cluster, reference, "none") is None
        cleanup = trace_of(spans.get_finished_spans(), "SignalWithStartWorkflow:CleanupApplication")
    poking.cancel()

    written = [span for span in provision if span.name == "postgresql write"]
    assert written
    assert ancestors(written[0], provision) == [
        "postgresql transaction",
        "RunActivity:reconcile_database",
        "StartActivity:reconcile_database",
        "SignalWithStartWorkflow:ProvisionApplication",
    ]
    assert "CREATE ROLE" in written[0].attributes["db.operation.name"]
    for trace, expected in ((provision, "reconcile"), (cleanup, "delete")):
        names = {span.name for span in trace}
        assert {f"RunActivity:{expected}_{step}" for step in ("database", "storage", "auth", "workload")} < names
        assert {"postgresql transaction", "s3 call", "keycloak request", "kubernetes request"} < names
        assert not [name for name in names if reference.name in name]

    seen = "".join(span.to_json() for span in (*provision, *cleanup))
    assert secret is not None
    assert core_settings.db_admin_url is not None
    passwords = [b64decode(secret["data"][key]).decode() for key in ("DB_PASSWORD", "DATABASE_URL")]
    passwords += [core_settings.db_admin_url.get_secret_value()]
    assert not [password for password in passwords if password in seen]
    assert not re.search(r"SCRAM-SHA-256|Bearer|PASSWORD '|IDENTIFIED", seen)


@activity.defn
async def leak() -> None:
    raise RuntimeError("ALTER ROLE x PASSWORD 'c4n4ry'")


@workflow.defn
class Leaking:
    @workflow.run
    async def run(self) -> None:
        once = RetryPolicy(maximum_attempts=1)
        await workflow.execute_activity(leak, start_to_close_timeout=timedelta(seconds=20), retry_policy=once)


async def test_a_foreign_error_is_in_the_trace_without_its_words(
    temporal_server: TemporalServer, spans: InMemorySpanExporter
) -> None:
    task_queue = f"traces-{uuid.uuid4().hex[:8]}"
    client = await temporal.connect_temporal(lazy=False, environment=temporal_server.environment)
    guards, runner = [AttemptGuard(), AttemptMeter()], UnsandboxedWorkflowRunner()
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[Leaking],
        activities=[leak],
        interceptors=guards,
        workflow_runner=runner,
    ):
        with pytest.raises(WorkflowFailureError):
            await client.execute_workflow(Leaking.run, id=task_queue, task_queue=task_queue)

    (attempt,) = [span for span in spans.get_finished_spans() if span.name == "RunActivity:leak"]
    assert not attempt.status.is_ok
    assert "RuntimeError in leak" in (attempt.status.description or "")
    assert "c4n4ry" not in "".join(span.to_json() for span in spans.get_finished_spans())


async def test_off_it_costs_no_interceptor_and_no_span() -> None:
    tracing.use(None)

    assert tracing.interceptors() == []
    assert tracing.span(Backend.S3, "call") is tracing.span(Backend.POSTGRESQL, "query")
