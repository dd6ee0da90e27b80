"""What the look at one settled application costs each backend, and a thousand of them in a period."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import boto3
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from clients.keycloak import KeycloakClient
from clients.kube import KubeClient
from clients.postgres import PostgresClient
from clients.redis import RedisClient
from clients.s3 import S3Client
from plattr.features import Step, cleanup_order, provision_order
from plattr.fleet import SPREAD_OF_INTERVAL
from plattr.objects import CustomObject, Kind
from plattr.settings import Settings
from plattr.status import ConditionUpdate
from plattr.steps import ClaimInput, StatusInput, StepResult
from stack.platform import Platform
from telemetry import tracing
from tests.fix_kubernetes import Cluster, application_spec, random_name
from tests.inputs import cleanup_of, step_of
from worker.registry import Clients, build_activities

FLEET = 1000
# Source: issue 4, drift.
LIMIT_PER_SECOND = 5.0
FEATURES = {
    "database": {"enabled": True},
    "storage": {"enabled": True, "buckets": [{"name": "uploads", "public": True}, {"name": "private"}]},
    "auth": {"enabled": True, "providers": ["google"]},
    "redis": {"enabled": True},
    "search": {"enabled": True},
}


class Steps:
    """Every activity by its name, on the real backends."""

    def __init__(self, activities: list[Callable[..., Any]]) -> None:
        self._by_name = {activity.__name__: activity for activity in activities}

    async def run(self, application: CustomObject) -> None:
        """Do what ProvisionApplication does for a resync."""
        await self._by_name["claim_object"](ClaimInput(reference=application.reference, every_step=True))
        step, updates = step_of(application), list[ConditionUpdate]()
        for name in provision_order(Kind.APPLICATION):
            result: StepResult = await self._by_name[f"reconcile_{name}"](step)
            updates += result.updates
        while not (result := await self._by_name["await_rollout"](step)).is_done:
            continue
        updates += result.updates
        status = StatusInput(**step.model_dump(), updates=tuple(updates))
        await self._by_name["write_status"](status)

    async def remove(self, application: CustomObject) -> None:
        for name in (*(f"delete_{step}" for step in cleanup_order(Kind.APPLICATION)), f"{Step.RELEASE}_object"):
            while not (await self._by_name[name](cleanup_of(application))).is_done:
                continue


@pytest.fixture
async def steps(redis_platform: Platform, core_settings: Settings, worker_kube: KubeClient) -> AsyncIterator[Steps]:
    postgres = await PostgresClient.connect(core_settings)
    platform = redis_platform
    account = boto3.Session(platform.endpoints.s3_key, platform.endpoints.s3_secret)
    keycloak, s3 = KeycloakClient.connect(core_settings), S3Client(core_settings, session=account)
    nothing: Any = None
    redis = RedisClient.connect(core_settings)
    clients = Clients(kube=worker_kube, postgres=postgres, s3=s3, keycloak=keycloak, redis=redis)
    yield Steps(build_activities(core_settings, clients, nothing))
    await postgres.close()
    await keycloak.close()
    s3.close()


async def test_a_thousand_applications_cost_each_backend_less_than_five_requests_a_second(
    cluster: Cluster, steps: Steps, namespace: str, core_settings: Settings
) -> None:
    application = await cluster.apply(namespace, random_name(), application_spec(**FEATURES))
    await steps.run(application)
    # Once more, so that connections, tokens and accounts are known, as in a worker that runs.
    await steps.run(application)
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    tracing.use(provider)
    await steps.run(application)
    tracing.use(None)
    await steps.remove(application)

    calls = Counter(span.name.split()[0] for span in exporter.get_finished_spans())
    seconds = core_settings.resync_interval_minutes * 60 * SPREAD_OF_INTERVAL
    rates = {backend: count * FLEET / seconds for backend, count in calls.items()}
    assert set(rates) == {"postgresql", "s3", "keycloak", "redis", "kubernetes"}
    assert max(rates.values()) < LIMIT_PER_SECOND, (rates, calls)
