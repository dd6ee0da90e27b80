"""A team with Applications, and the activities that run them, for the tests of the workload."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from activities.loading import TargetLoader
from activities.namespace import NamespaceActivities
from activities.redis import RedisActivities
from activities.rollout import RolloutActivities
from activities.search import SearchActivities
from activities.workload import WorkloadActivities
from clients.claim_store import ClaimStore
from clients.kube import KubeClient
from clients.resources import (
    AUTOSCALERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    INGRESSES,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Json,
    Resource,
    custom_resource,
)
from plattr.manifests.config_map import build_config_map
from plattr.manifests.namespace import POD_SECURITY_LABEL
from plattr.manifests.secret import build_database_secret
from plattr.objects import API_VERSION, Kind, ObjectReference
from plattr.settings import Settings
from plattr.steps import CleanupStepInput, StepInput
from plattr.target import Target
from stack.platform import Platform
from tests.inputs import CLUSTER, rollout_of

WORKLOAD_KINDS = (SERVICE_ACCOUNTS, DEPLOYMENTS, SERVICES, INGRESSES, AUTOSCALERS)


EVERY_FEATURE: Json = {f: {"enabled": True} for f in ("database", "storage", "auth", "redis", "search")}


def foreign(resource: Resource, name: str) -> Json:
    """Return an object of this kind as somebody else would make it."""
    label = {"app": "foreign"}
    backend = {"service": {"name": "foreign", "port": {"number": 80}}}
    specs: dict[str, Json] = {
        "Deployment": {
            "replicas": 0,
            "selector": {"matchLabels": label},
            "template": {"metadata": {"labels": label}, "spec": {"containers": [{"name": "x", "image": "x"}]}},
        },
        "Service": {"ports": [{"port": 1}]},
        "Ingress": {"defaultBackend": backend},
        "HorizontalPodAutoscaler": {
            "maxReplicas": 1,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "foreign"},
        },
    }
    body: Json = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}}
    return body | ({"spec": specs[resource.kind]} if resource.kind in specs else {})


class Team:
    """A namespace that admits `restricted` pods only, with objects made and changed as a developer does."""

    def __init__(self, kube: KubeClient, worker: KubeClient, settings: Settings, namespace: str) -> None:
        self.kube = kube
        self.worker = worker
        self.settings = settings
        self.namespace = namespace
        self.claim_store = ClaimStore(worker, settings.lease_namespace)
        self.loader = TargetLoader(worker, settings)
        self._worker = worker
        # The activities have the worker's rights, the tests the administrator's.
        self.workload = WorkloadActivities(self.loader, worker, self.claim_store, settings)
        self.rollout = RolloutActivities(self.loader, worker)
        # Without admins: Redis and OpenSearch are started for the tests that are about them.
        self.redis = RedisActivities(self.loader, worker, None, self.claim_store, settings)
        self.search = SearchActivities(self.loader, worker, None, self.claim_store, settings)
        self.namespaces = self.bounded(settings)

    def bounded(self, settings: Settings) -> NamespaceActivities:
        """Return the activities of a platform with other settings of previews."""
        return NamespaceActivities(self.loader, self._worker, self.claim_store, settings)

    async def create(self, name: str | None = None, **spec: Any) -> StepInput:
        """Create an Application with what its other steps would have made, and return its step."""
        name = name or f"w{secrets.token_hex(4)}"
        defaults = {
            "repository": "https://git.test/w",
            "framework": "docker",
            "environment": "production",
            "imageRef": "registry.test/w:1",
        }
        step = await self._created(Kind.APPLICATION, name, defaults | spec)
        await self.prepare(step)
        return step

    async def create_preview(self, parent: str, pull_request: int) -> StepInput:
        spec = {"applicationRef": parent, "pullRequest": pull_request, "branch": "feature"}
        return await self._created(Kind.PREVIEW, f"{parent}-{pull_request}", spec)

    async def change(self, step: StepInput, **spec: Any) -> StepInput:
        """Change fields of the spec; None takes one out."""
        body = await self.kube.get(custom_resource(step.reference.kind), step.reference.name, self.namespace)
        assert body is not None
        changed = {field: value for field, value in (body["spec"] | spec).items() if value is not None}
        patched = await self.kube.json_patch(
            custom_resource(step.reference.kind),
            step.reference.name,
            [{"op": "replace", "path": "/spec", "value": changed}],
            self.namespace,
        )
        assert patched is not None
        changed_step = step.model_copy(update={"generation": patched["metadata"]["generation"]})
        await self.prepare(changed_step)
        return changed_step

    async def prepare(self, step: StepInput) -> None:
        """Make the Secret and the ConfigMaps that the steps before the workload make."""
        target = await self.target(step)
        if target.spec.database.enabled:
            secret = build_database_secret(target, {"DATABASE_URL": "postgresql://nowhere", "DB_PASSWORD": "x"})
            await self.kube.apply(SECRETS, secret, self.namespace)
        for feature in ("storage", "auth"):
            if getattr(target.spec, feature).enabled:
                config_map = build_config_map(target, feature, {f"{feature.upper()}_TEST": "1"})
                await self.kube.apply(CONFIG_MAPS, config_map, self.namespace)
        if target.spec.redis.enabled:
            await self.redis.reconcile_redis(step)
        if target.spec.search.enabled:
            await self.search.reconcile_search(step)

    async def target(self, step: StepInput) -> Target:
        return await self.loader.load(step)

    async def delete(self, step: StepInput) -> CleanupStepInput:
        """Delete the object and return the step of its cleanup."""
        await self.kube.delete(custom_resource(step.reference.kind), step.reference.name, self.namespace)
        return CleanupStepInput(reference=step.reference, uid=step.uid)

    async def get(self, resource: Resource, name: str) -> Json:
        body = await self.kube.get(resource, name, self.namespace)
        assert body is not None, f"{resource.kind} {name} is not there"
        return body

    async def names_of(self, resource: Resource, name: str) -> set[str]:
        """Return the names that begin with an Application's own."""
        bodies = await self.kube.list(resource, self.namespace)
        return {body["metadata"]["name"] for body in bodies if body["metadata"]["name"].startswith(name)}

    async def versions(self, step: StepInput) -> dict[str, str]:
        """Return the resourceVersion of everything that is there for an Application."""
        return {
            f"{resource.kind}/{body['metadata']['name']}": body["metadata"]["resourceVersion"]
            for resource in (*WORKLOAD_KINDS, SECRETS, CONFIG_MAPS, PODS)
            for body in await self.kube.list(resource, self.namespace)
            if body["metadata"]["name"].startswith(step.reference.name)
        }

    async def running(self, step: StepInput) -> StepInput:
        """Reconcile and wait until the pods run."""
        await self.workload.reconcile_workload(step)
        result = await self.rollout.await_rollout(rollout_of(step))
        assert result.is_done
        return step

    async def pods_of(self, step: StepInput) -> list[Json]:
        selector = f"app.kubernetes.io/name={step.reference.name}"
        return await self.kube.list(PODS, self.namespace, label_selector=selector)

    async def checksum(self, step: StepInput) -> str:
        deployment = await self.get(DEPLOYMENTS, step.reference.name)
        annotations = deployment["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["platform.internal/config-checksum"])

    async def _created(self, kind: Kind, name: str, spec: dict[str, Any]) -> StepInput:
        body = {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        created = await self.kube.create(custom_resource(kind), body, self.namespace)
        assert created is not None, f"{kind} {name} exists already"
        reference = ObjectReference(kind=kind, namespace=self.namespace, name=name)
        return StepInput(
            reference=reference, uid=created["metadata"]["uid"], generation=created["metadata"]["generation"]
        )


@pytest.fixture(scope="session")
async def team(platform: Platform) -> AsyncIterator[Team]:
    """One team for all tests, each with Applications of its own; all of it goes in the end."""
    kube = await KubeClient.connect(str(platform.endpoints.kubeconfig_admin), cluster=CLUSTER)
    worker = await KubeClient.connect(str(platform.endpoints.kubeconfig_worker), cluster=CLUSTER)
    namespace = f"workload-{secrets.token_hex(4)}"
    metadata = {"name": namespace, "labels": {POD_SECURITY_LABEL: "restricted"}}
    await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    environment = platform.environment("worker") | {"BASE_DOMAIN": f"{namespace}.test", "S3_ACCOUNTS": "none"}

    yield Team(kube, worker, Settings.from_mapping(environment), namespace)

    await kube.delete(NAMESPACES, namespace)
    await worker.close()
    await kube.close()
