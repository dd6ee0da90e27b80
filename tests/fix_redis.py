"""Applications with Redis on the local platform's own, and connections as they themselves would make them."""

from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from activities.namespace import NamespaceActivities
from activities.redis import RedisActivities
from clients.kube import KubeClient
from clients.redis import RedisClient
from clients.resources import CONFIG_MAPS, SECRETS
from plattr.objects import CustomObject
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
        self._made: list[CustomObject] = []

    def activities_with(self, client: RedisClient | None, settings: Settings, **options: Any) -> RedisActivities:
        cluster = self.cluster
        return RedisActivities(cluster.loader, cluster.kube, client, cluster.claim_store, settings, **options)

    async def application(self, name: str | None = None, **spec: Any) -> CustomObject:
        return await self.claimed(
            await self.cluster.apply(self.namespace, name or random_name(), application_spec(**REDIS, **spec))
        )

    async def preview(self, parent: CustomObject) -> CustomObject:
        preview = await self.cluster.preview(self.namespace, random_name(), parent.metadata.name)
        await self.claimed(preview)
        cluster = self.cluster
        namespaces = NamespaceActivities(cluster.loader, cluster.kube, cluster.claim_store, self.settings)
        await namespaces.reconcile_namespace(step_of(preview))
        self.cluster.made.append((await self.target(preview)).names.namespace)
        return preview

    async def claimed(self, custom_object: CustomObject) -> CustomObject:
        await self.cluster.claims.claim_object(ClaimInput(reference=custom_object.reference))
        self._made.append(custom_object)
        return custom_object

    async def reconcile(self, custom_object: CustomObject) -> StepResult:
        return await self.activities.reconcile_redis(step_of(custom_object))

    async def remove(self, custom_object: CustomObject, *, retain: bool = False) -> StepResult:
        return await self.activities.delete_redis(cleanup_of(custom_object, retain=retain))

    async def target(self, custom_object: CustomObject) -> Target:
        return await self.cluster.loader.load(step_of(custom_object))

    async def environment(self, custom_object: CustomObject) -> dict[str, str]:
        """Return what the pods of an application are given."""
        names, kube = (await self.target(custom_object)).names, self.cluster.admin
        config_map = await kube.get(CONFIG_MAPS, names.config_map("redis"), names.namespace) or {}
        secret = await kube.get(SECRETS, names.redis_secret, names.namespace) or {}
        return config_map.get("data", {}) | {
            key: b64decode(value).decode() for key, value in secret.get("data", {}).items()
        }

    async def tenant(self, custom_object: CustomObject) -> tuple[Redis, str]:
        """Return a connection of the application's own, and its prefix."""
        environment = await self.environment(custom_object)
        return self.connection(environment["REDIS_URL"]), environment["REDIS_PREFIX"]

    def connection(self, url: str | None = None, **options: Any) -> Redis:
        admin = self.settings.redis_admin_url
        assert admin is not None
        redis = Redis.from_url(url or admin.get_secret_value(), decode_responses=True, protocol=2, **options)
        self._open.append(redis)
        return redis

    async def close(self) -> None:
        for custom_object in self._made:
            await self.client.delete_user(await self.stem(custom_object))
        for redis in self._open:
            await redis.aclose()

    async def stem(self, custom_object: CustomObject) -> str:
        found = await self.cluster.body(custom_object.reference)
        if found is None:
            return f"prod_{custom_object.metadata.name}"
        target = await self.cluster.loader.target_of(CustomObject.from_api(custom_object.kind, found))
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
