"""Kubernetes for the tests: the worker's own rights, the administrator as the stranger, namespaces and objects."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from activities.claim import ClaimActivities
from activities.loading import TargetLoader
from activities.release import ReleaseActivities
from activities.status import StatusActivities
from clients.claim_store import ClaimStore
from clients.events import EventRecorder
from clients.kube import KubeClient
from clients.resources import (
    APPLICATIONS,
    CONFIG_MAPS,
    EVENTS,
    LEASES,
    NAMESPACES,
    PREVIEWS,
    Json,
    Resource,
    custom_resource,
)
from plattr.objects import API_VERSION, CustomObject, Kind, ObjectReference
from plattr.settings import Settings
from plattr.target import OWNER_NAMESPACE_LABEL
from stack.platform import Platform
from tests.inputs import CLUSTER, at_home


def application_spec(**changes: object) -> Json:
    """Return a valid spec with every feature off."""
    features = {feature: {"enabled": False} for feature in ("database", "storage", "auth", "redis", "search")}
    return {
        "repository": "https://git.example.test/shop.git",
        "framework": "docker",
        "environment": "production",
        **features,
        **changes,
    }


def random_name() -> str:
    """Return a name that no other test uses."""
    return f"a{secrets.token_hex(4)}"


@dataclass
class Cluster:
    """The platform's Kubernetes, and what Plattr's core does in it under the worker's ServiceAccount."""

    kube: KubeClient
    admin: KubeClient
    settings: Settings
    made: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.claim_store = ClaimStore(self.kube, self.settings.lease_namespace)
        self.events = EventRecorder(self.kube)
        self.loader = TargetLoader(self.kube, self.settings)
        self.claims = ClaimActivities(self.kube, self.claim_store, self.loader, self.events)
        self.statuses = StatusActivities(self.kube, self.events, self.loader)
        self.releases = ReleaseActivities(self.kube, self.claim_store, self.events)

    async def new_namespace(self) -> str:
        name = f"core-{secrets.token_hex(4)}"
        await self.admin.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.made.append(name)
        return name

    async def remove_namespaces(self) -> None:
        """Remove all that was made; nobody runs to release the objects, so their finalizers go by force."""
        for namespace in self.made:
            for resource in (APPLICATIONS, PREVIEWS):
                for body in await self.admin.list(resource, namespace):
                    name = body["metadata"]["name"]
                    drop: list[Json] = [{"op": "add", "path": "/metadata/finalizers", "value": []}]
                    await self.admin.json_patch(resource, name, drop, namespace)
            for lease in await self.leases(namespace):
                await self.admin.delete(LEASES, lease["metadata"]["name"], self.settings.lease_namespace)
            await self.admin.delete(NAMESPACES, namespace)
        self.made.clear()

    async def leases(self, owner_namespace: str) -> list[Json]:
        selector = f"{OWNER_NAMESPACE_LABEL}={owner_namespace}"
        return await self.admin.list(LEASES, self.settings.lease_namespace, label_selector=selector)

    async def events_about(self, custom_object: CustomObject) -> list[Json]:
        selector = f"involvedObject.uid={custom_object.metadata.uid}"
        return await self.admin.list(EVENTS, custom_object.metadata.namespace, field_selector=selector)

    async def apply(
        self,
        namespace: str,
        name: str,
        spec: Json | None = None,
        *,
        kind: Kind = Kind.APPLICATION,
        metadata: Json | None = None,
    ) -> CustomObject:
        body = {
            "apiVersion": API_VERSION,
            "kind": kind.value,
            "metadata": {"name": name, "namespace": namespace, **(metadata or {})},
            "spec": spec or application_spec(),
        }
        custom_object = CustomObject.from_api(kind, await self.admin.apply(custom_resource(kind), body, namespace))
        return await at_home(self.admin, custom_object)

    async def preview(self, namespace: str, name: str, parent: str, **changes: object) -> CustomObject:
        spec = {"applicationRef": parent, "pullRequest": 7, "branch": "topic", **changes}
        return await self.apply(namespace, name, spec, kind=Kind.PREVIEW)

    async def body(self, reference: ObjectReference) -> Json | None:
        return await self.admin.get(custom_resource(reference.kind), reference.name, reference.namespace)

    async def read(self, reference: ObjectReference) -> CustomObject:
        body = await self.body(reference)
        assert body is not None, f"{reference} is gone"
        return await at_home(self.admin, CustomObject.from_api(reference.kind, body))

    async def set_status(self, custom_object: CustomObject, **status: object) -> CustomObject:
        body = await self.body(custom_object.reference)
        assert body is not None
        changed = {**body, "status": {**body.get("status", {}), **status}}
        resource = custom_resource(custom_object.kind)
        changed = await self.admin.replace_status(resource, changed, custom_object.metadata.namespace)
        return await at_home(self.admin, CustomObject.from_api(custom_object.kind, changed))

    async def settle(self, custom_object: CustomObject) -> CustomObject:
        return await self.set_status(
            custom_object, phase="Running", observedGeneration=custom_object.metadata.generation
        )

    async def delete(self, reference: ObjectReference) -> None:
        await self.admin.delete(custom_resource(reference.kind), reference.name, reference.namespace)

    async def force_away(self, reference: ObjectReference) -> None:
        """Remove the object together with its finalizers, as an impatient person does."""
        await self.let_go(reference)
        await self.delete(reference)

    async def let_go(self, reference: ObjectReference) -> None:
        """Take every finalizer off, so that a deleted object goes."""
        drop: list[Json] = [{"op": "add", "path": "/metadata/finalizers", "value": []}]
        await self.admin.json_patch(custom_resource(reference.kind), reference.name, drop, reference.namespace)


def config_map(name: str, values: dict[str, str] | None = None, **metadata: object) -> Json:
    """Return a ConfigMap's manifest."""
    return {
        "apiVersion": CONFIG_MAPS.api_version,
        "kind": CONFIG_MAPS.kind,
        "metadata": {"name": name, **metadata},
        "data": values or {},
    }


async def version_of(kube: KubeClient, resource: Resource, name: str, namespace: str) -> str:
    """Return an object's resourceVersion; it changes with each write that changes anything."""
    body = await kube.get(resource, name, namespace)
    assert body is not None
    return str(body["metadata"]["resourceVersion"])


@pytest.fixture(scope="session")
def core_settings(platform: Platform) -> Settings:
    return Settings.from_mapping(platform.environment("worker") | {"BASE_DOMAIN": "core.example.test"})


@pytest.fixture(scope="session")
async def worker_kube(platform: Platform) -> AsyncIterator[KubeClient]:
    """The worker's own client: what it may not do fails here as it would on a cluster."""
    kube = await KubeClient.connect(str(platform.endpoints.kubeconfig_worker), cluster=CLUSTER)
    yield kube
    await kube.close()


@pytest.fixture(scope="session")
async def watcher_kube(platform: Platform) -> AsyncIterator[KubeClient]:
    kube = await KubeClient.connect(str(platform.endpoints.kubeconfig_watcher), cluster=CLUSTER)
    yield kube
    await kube.close()


@pytest.fixture(scope="session")
async def admin_kube(platform: Platform) -> AsyncIterator[KubeClient]:
    kube = await KubeClient.connect(str(platform.endpoints.kubeconfig_admin), cluster=CLUSTER)
    yield kube
    await kube.close()


@pytest.fixture
async def cluster(worker_kube: KubeClient, admin_kube: KubeClient, core_settings: Settings) -> AsyncIterator[Cluster]:
    cluster = Cluster(worker_kube, admin_kube, core_settings)
    yield cluster
    await cluster.remove_namespaces()


@pytest.fixture
async def namespace(cluster: Cluster) -> str:
    return await cluster.new_namespace()
