"""Applications with Redis on the local platform's own, and connections as they themselves would make them."""

from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from activities.clients.kube import KubeClient
from activities.clients.redis import RedisClient
from activities.clients.resources import CONFIG_MAPS, SECRETS
from activities.namespace import NamespaceActivities
from activities.redis import RedisActivities
from plattr.objects import Envelope
from plattr.settings import Settings
from plattr.steps import ClaimInput, StepResult
from plattr.target import Target
from stack.platform import Platform
from tests.fix_kubernetes import Cluster, application_spec, random_name
from tests.inputs import cleanup_of, step_of

REDIS = {"redis": {"enabled": True}}


class Shared:
    """Applications that share one Redis; the activities have the worker's rights."""

    def __init__(self, cluster: Cluster, namespace: str, settings: Settings) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.settings = settings
        client = RedisClient.connect(settings)
        assert client is not None
        self.client = client
        self.activities = self.activities_with(client, settings)
        self._open: list[Redis] = []
        self._made: list[Envelope] = []

    def activities_with(self, client: RedisClient | None, settings: Settings, **options: Any) -> RedisActivities:
        cluster = self.cluster
        return RedisActivities(cluster.loader, cluster.kube, client, cluster.ledger, settings, **options)

    async def application(self, name: str | None = None, **spec: Any) -> Envelope:
        return await self.claimed(
            await self.cluster.apply(self.namespace, name or random_name(), application_spec(**REDIS, **spec))
        )

    async def preview(self, parent: Envelope) -> Envelope:
        preview = await self.cluster.preview(self.namespace, random_name(), parent.metadata.name)
        await self.claimed(preview)
        cluster = self.cluster
        namespaces = NamespaceActivities(cluster.loader, cluster.kube, cluster.ledger, self.settings)
        await namespaces.reconcile_namespace(step_of(preview))
        self.cluster.made.append((await self.target(preview)).names.namespace)
        return preview

    async def claimed(self, envelope: Envelope) -> Envelope:
        await self.cluster.claims.claim_object(ClaimInput(reference=envelope.reference))
        self._made.append(envelope)
        return envelope

    async def reconcile(self, envelope: Envelope) -> StepResult:
        return await self.activities.reconcile_redis(step_of(envelope))

    async def remove(self, envelope: Envelope, *, retain: bool = False) -> StepResult:
        return await self.activities.delete_redis(cleanup_of(envelope, retain=retain))

    async def target(self, envelope: Envelope) -> Target:
        return await self.cluster.loader.load(step_of(envelope))

    async def environment(self, envelope: Envelope) -> dict[str, str]:
        """Return what the pods of an application are given."""
        names, kube = (await self.target(envelope)).names, self.cluster.admin
        config_map = await kube.get(CONFIG_MAPS, names.config_map("redis"), names.namespace) or {}
        secret = await kube.get(SECRETS, names.redis_secret, names.namespace) or {}
        return config_map.get("data", {}) | {
            key: b64decode(value).decode() for key, value in secret.get("data", {}).items()
        }

    async def tenant(self, envelope: Envelope) -> tuple[Redis, str]:
        """Return a connection of the application's own, and its prefix."""
        environment = await self.environment(envelope)
        return self.connection(environment["REDIS_URL"]), environment["REDIS_PREFIX"]

    def connection(self, url: str | None = None, **options: Any) -> Redis:
        admin = self.settings.redis_admin_url
        assert admin is not None
        redis = Redis.from_url(url or admin.get_secret_value(), decode_responses=True, protocol=2, **options)
        self._open.append(redis)
        return redis

    async def close(self) -> None:
        for envelope in self._made:
            await self.client.delete_user(await self.stem(envelope))
        for redis in self._open:
            await redis.aclose()

    async def stem(self, envelope: Envelope) -> str:
        found = await self.cluster.body(envelope.reference)
        if found is None:
            return f"prod_{envelope.metadata.name}"
        target = await self.cluster.loader.target_of(Envelope.from_api(envelope.kind, found))
        return target.names.redis_user


@pytest.fixture(scope="session")
def redis_platform(platform: Platform) -> Platform:
    """The platform with Redis, which no other test waits for."""
    platform.start(services=["redis"])
    return platform


@pytest.fixture
async def shared(
    redis_platform: Platform, cluster: Cluster, namespace: str, core_settings: Settings, worker_kube: KubeClient
) -> AsyncIterator[Shared]:
    shared = Shared(cluster, namespace, core_settings)
    yield shared
    await shared.close()
