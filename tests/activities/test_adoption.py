"""What an operator takes over for an object: after a restore, a move, or where a Deployment was there before."""

import copy
import secrets
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from clients import resources
from clients.keycloak import KeycloakClient
from clients.kube import KubeClient
from clients.postgres import PostgresClient
from clients.redis import RedisClient
from clients.resources import DEPLOYMENTS, SECRETS, Json, Resource
from clients.s3 import S3Client
from plattr.adoption import Adoption, AdoptionInput
from plattr.features import Step
from plattr.objects import GROUP, CustomObject, Kind
from plattr.settings import Settings
from plattr.steps import ClaimInput
from plattr.target import OWNER_ANNOTATION
from stack.platform import Platform
from tests.fix_kubernetes import Cluster, application_spec
from tests.inputs import CLUSTER, cleanup_of, step_of
from worker.registry import Clients, build_activities

DATA: dict[str, Any] = {
    "database": {"enabled": True},
    "storage": {"enabled": True, "buckets": [{"name": "uploads"}]},
    "auth": {"enabled": True},
    "redis": {"enabled": True},
    "search": {"enabled": True},
}
STEPS = (Step.DATABASE, Step.STORAGE, Step.AUTH, Step.REDIS, Step.SEARCH, Step.WORKLOAD)
# In which a step may leave something of its own.
RESOURCES = [
    resource
    for resource in vars(resources).values()
    # The claims are named for what they claim.
    if isinstance(resource, Resource) and resource.group not in (GROUP, "cert-manager.io", "coordination.k8s.io")
]
KINDS = {resource.kind for resource in RESOURCES}
REMOVALS = [f"delete_{step}" for step in reversed(STEPS)]


class Scene:
    """All activities of a worker, as of the tests' cluster or of another on the same backends."""

    def __init__(self, clients: Clients, settings: Settings) -> None:
        self._clients = clients
        self._settings = settings
        nothing: Any = None
        self._activities = {each.__name__: each for each in build_activities(settings, clients, nothing)}

    def of_cluster(self, name: str) -> "Scene":
        kube = copy.copy(self._clients.kube)
        kube.cluster = name
        clients = Clients(
            kube=kube,
            postgres=self._clients.postgres,
            s3=self._clients.s3,
            keycloak=self._clients.keycloak,
            redis=self._clients.redis,
        )
        return Scene(clients, self._settings)

    async def provision(self, custom_object: CustomObject) -> None:
        await self._activities["claim_object"](ClaimInput(reference=custom_object.reference, every_step=True))
        is_preview = custom_object.kind is Kind.PREVIEW
        for step in (Step.NAMESPACE, *STEPS) if is_preview else STEPS:
            await self._activities[f"reconcile_{step}"](step_of(custom_object))

    async def retire(self, custom_object: CustomObject) -> None:
        """Clean up what may go with an object that retains its data."""
        for name in (*REMOVALS, "release_object"):
            await self._activities[name](cleanup_of(custom_object, retain=True))

    async def remove(self, custom_object: CustomObject) -> None:
        spaces = ["delete_namespace"] if custom_object.kind is Kind.PREVIEW else []
        for name in (*REMOVALS, *spaces, "release_object"):
            while not (await self._activities[name](cleanup_of(custom_object))).is_done:
                continue

    async def look(self, custom_object: CustomObject) -> Adoption:
        outcome: Adoption = await self._activities["adopt_resources"](AdoptionInput(reference=custom_object.reference))
        return outcome

    async def adopt(self, custom_object: CustomObject, offer: Adoption) -> Adoption:
        request = AdoptionInput(reference=custom_object.reference, approved=offer.found)
        outcome: Adoption = await self._activities["adopt_resources"](request)
        return outcome


@pytest.fixture
async def scene(redis_platform: Platform, core_settings: Settings, worker_kube: KubeClient) -> AsyncIterator[Scene]:
    platform = redis_platform
    postgres = await PostgresClient.connect(core_settings)
    account = boto3.Session(platform.endpoints.s3_key, platform.endpoints.s3_secret)
    keycloak, s3 = KeycloakClient.connect(core_settings), S3Client(core_settings, session=account)
    redis = RedisClient.connect(core_settings)
    yield Scene(Clients(kube=worker_kube, postgres=postgres, s3=s3, keycloak=keycloak, redis=redis), core_settings)
    await postgres.close()
    await keycloak.close()
    s3.close()


async def test_a_restore_under_another_cluster_id_takes_over_what_it_is_shown(
    scene: Scene, cluster: Cluster, namespace: str
) -> None:
    custom_object = await cluster.apply(namespace, f"a{secrets.token_hex(4)}", application_spec(**DATA))
    await scene.provision(custom_object)
    restored = scene.of_cluster("restored")
    try:
        offer = await restored.look(custom_object)
        untouched = await scene.look(custom_object)
        outcome = await restored.adopt(custom_object, offer)
        # As after the death of a worker that could not say any more what it took.
        repeated = await restored.adopt(custom_object, offer)
        again = await restored.look(custom_object)
        await restored.provision(custom_object)

        assert {each.holder for each in offer.found} == {f"{custom_object.reference.key} of cluster {CLUSTER!r}"}
        assert offer.obstacles == ()
        assert untouched == Adoption()
        assert outcome.taken == repeated.taken == offer.found
        assert again == Adoption()
        kinds = {each.what.split(" ")[0] for each in offer.found}
        assert {"claim", "schema", "role", "bucket", "realm", "Deployment", "Secret", "ConfigMap"} <= kinds
    finally:
        await restored.remove(custom_object)


@pytest.mark.parametrize("kind", Kind)
async def test_what_is_offered_of_kubernetes_is_all_that_carries_the_mark(
    scene: Scene, cluster: Cluster, namespace: str, kind: Kind
) -> None:
    name = f"a{secrets.token_hex(4)}"
    custom_object = parent = await cluster.apply(namespace, name, application_spec(**DATA))
    if kind is Kind.PREVIEW:
        custom_object = await cluster.preview(namespace, f"{name}-pr-7", parent.metadata.name)
    await scene.provision(custom_object)
    try:
        offer = await scene.of_cluster("restored").look(custom_object)

        offered = {each.what for each in offer.found}
        assert {what for what in offered if what.split(" ")[0] in KINDS} == await marked_of(cluster, custom_object)
        assert offer.obstacles == ()
    finally:
        await scene.remove(custom_object)


async def test_of_two_clusters_only_the_one_that_took_over_keeps_an_account(
    scene: Scene, cluster: Cluster, namespace: str, s3_boto: Callable[[str, str], Any]
) -> None:
    custom_object = await cluster.apply(namespace, f"a{secrets.token_hex(4)}", application_spec(**DATA))
    bucket = f"plattr-prod-{custom_object.metadata.name}-uploads"
    await scene.provision(custom_object)
    former = await keys_of(cluster, custom_object)
    restored = scene.of_cluster("restored")
    try:
        s3_boto(*former).put_object(Bucket=bucket, Key="k", Body=b"kept")
        await restored.adopt(custom_object, await restored.look(custom_object))
        await restored.provision(custom_object)

        latter = await keys_of(cluster, custom_object)
        with pytest.raises(ClientError, match="InvalidAccessKeyId"):
            s3_boto(*former).list_buckets()
        assert s3_boto(*latter).get_object(Bucket=bucket, Key="k")["Body"].read() == b"kept"
    finally:
        await restored.remove(custom_object)


async def test_an_object_that_moved_takes_over_what_the_former_one_retained(
    scene: Scene, cluster: Cluster, namespace: str
) -> None:
    name = f"a{secrets.token_hex(4)}"
    former = await cluster.apply(namespace, name, application_spec(**DATA))
    await scene.provision(former)
    moved = await cluster.apply(await cluster.new_namespace(), name, application_spec(**DATA))
    while_it_lives = await scene.look(moved)
    await scene.retire(former)
    await cluster.force_away(former.reference)
    try:
        offer = await scene.look(moved)
        await scene.adopt(moved, offer)
        await scene.provision(moved)

        assert while_it_lives.found == ()
        assert all("still exists" in obstacle for obstacle in while_it_lives.obstacles)
        assert {each.holder for each in offer.found} == {former.reference.key}
    finally:
        await scene.remove(moved)


async def test_a_deployment_that_was_there_before_is_taken_over_or_named(
    scene: Scene, cluster: Cluster, namespace: str
) -> None:
    one, other = [await cluster.apply(namespace, f"a{secrets.token_hex(4)}") for _ in range(2)]
    for custom_object, labels in ((one, selector_of(one)), (other, {"app": "mine"})):
        body = deployment(custom_object.metadata.name, labels)
        assert await cluster.admin.create(DEPLOYMENTS, body, namespace) is not None

    offer, impossible = await scene.look(one), await scene.look(other)
    await scene.adopt(one, offer)

    assert [(each.what, each.holder) for each in offer.found] == [
        (f"Deployment '{one.metadata.name}'", "nobody that Plattr knows")
    ]
    assert impossible.found == ()
    assert "a selector cannot be changed" in impossible.obstacles[0]
    assert await scene.look(one) == Adoption()


@pytest.mark.attack
async def test_what_changed_since_it_was_shown_and_what_was_not_shown_stays(
    scene: Scene, cluster: Cluster, namespace: str
) -> None:
    custom_object = await cluster.apply(namespace, f"a{secrets.token_hex(4)}")
    name = custom_object.metadata.name
    await cluster.admin.create(DEPLOYMENTS, deployment(name, selector_of(custom_object)), namespace)
    offer = await scene.look(custom_object)
    change: list[Json] = [
        {"op": "add", "path": "/metadata/annotations", "value": {"platform.internal/owner": "team/Application/other"}}
    ]
    await cluster.admin.json_patch(DEPLOYMENTS, name, change, namespace)

    outcome = await scene.adopt(custom_object, offer)

    assert outcome.taken == ()
    found = await cluster.admin.get(DEPLOYMENTS, name, namespace)
    assert found is not None
    assert found["metadata"]["annotations"]["platform.internal/owner"] == "team/Application/other"


async def keys_of(cluster: Cluster, custom_object: CustomObject) -> tuple[str, str]:
    """Return the access key of the application's account on the S3 server."""
    name = f"{custom_object.metadata.name}-storage-keys"
    body = await cluster.admin.get(SECRETS, name, custom_object.metadata.namespace)
    assert body is not None
    data = body["data"]
    return b64decode(data["AWS_ACCESS_KEY_ID"]).decode(), b64decode(data["AWS_SECRET_ACCESS_KEY"]).decode()


async def marked_of(cluster: Cluster, custom_object: CustomObject) -> set[str]:
    """Return everything that carries an object's mark, whoever made it and whatever it is called."""
    found = set()
    for resource in RESOURCES:
        for body in await cluster.admin.list(resource):
            metadata = body["metadata"]
            # What a controller made, as a ReplicaSet, copies its maker's.
            annotations = {} if "ownerReferences" in metadata else metadata.get("annotations", {})
            if annotations.get(OWNER_ANNOTATION) == custom_object.reference.key:
                found.add(f"{resource.kind} {metadata['name']!r}")
    return found


def selector_of(custom_object: CustomObject) -> dict[str, str]:
    return {"app.kubernetes.io/name": custom_object.metadata.name, "platform.internal/kind": "application"}


def deployment(name: str, labels: dict[str, str]) -> Json:
    pod = {"containers": [{"name": "app", "image": "example.test/app:1"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
