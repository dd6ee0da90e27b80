"""S3 for the tests: accounts, the worker's client with its hooks, and objects that want buckets."""

import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from activities.loading import TargetLoader
from activities.storage import StorageActivities
from clients.claim_store import ClaimStore
from clients.kube import KubeClient
from clients.resources import NAMESPACES, Json, custom_resource
from clients.s3 import S3Client
from plattr.buckets import owner_tags
from plattr.claims import Claim, claims_of
from plattr.objects import API_VERSION, CustomObject, Kind, ObjectReference
from plattr.retries import CLEANUP_BUDGET
from plattr.settings import Settings
from plattr.steps import CleanupStepInput, StepInput
from stack.platform import Platform
from tests.inputs import CLUSTER, at_home, cleanup_of, step_of
from tests.s3_hooks import Hooks
from tests.s3_view import remove_bucket

S3_DOMAIN = "s3.test"

# What most tests ask for.
UPLOADS: Json = {"name": "uploads"}
PUBLIC: Json = {"name": "assets", "public": True}


@dataclass(frozen=True)
class Shop:
    """An object that wants buckets, as the API server holds it now."""

    custom_object: CustomObject

    @property
    def reference(self) -> ObjectReference:
        return self.custom_object.reference

    @property
    def name(self) -> str:
        return self.reference.name

    @property
    def tags(self) -> dict[str, str]:
        return owner_tags(self.custom_object.owner)

    @property
    def step(self) -> StepInput:
        return step_of(self.custom_object)

    def cleanup(self, *outliving: Claim, retain: bool = False) -> CleanupStepInput:
        return cleanup_of(self.custom_object, *outliving, retain=retain)

    def bucket(self, name: str) -> str:
        return f"plattr-prod-{self.name}-{name}"


@dataclass
class Shops:
    """Makes and removes Applications in one namespace, with their claims."""

    kube: KubeClient
    loader: TargetLoader
    claim_store: ClaimStore
    namespace: str
    made: list[str] = field(default_factory=list)

    async def apply(
        self, name: str = "", *buckets: Json, origins: tuple[str, ...] = (), domain: str | None = None
    ) -> Shop:
        """Create or change an Application with these buckets, and claim its names as the claim step does."""
        name = name or f"s{secrets.token_hex(4)}"
        self.made.append(name)
        spec = {
            "repository": "https://git.example.test/shop.git",
            "framework": "docker",
            "environment": "production",
            "cors": {"origins": list(origins)},
            "database": {"enabled": False},
            "storage": {"enabled": True, "buckets": list(buckets)},
            "auth": {"enabled": False},
            "redis": {"enabled": False},
            "search": {"enabled": False},
        } | ({"domain": domain} if domain else {})
        # Not paused: the steps ask. No worker runs beside these tests (tests/conftest.py, WITH_PROCESSES).
        metadata = {"name": name, "namespace": self.namespace}
        body = {"apiVersion": API_VERSION, "kind": "Application", "metadata": metadata, "spec": spec}
        held = await self.kube.apply(custom_resource(Kind.APPLICATION), body, self.namespace)
        custom_object = await at_home(self.kube, CustomObject.from_api(Kind.APPLICATION, held))
        target = await self.loader.target_of(custom_object)
        await self.claim_store.acquire(target.owner, claims_of(target))
        return Shop(custom_object)

    async def provision(self, storage: StorageActivities, *buckets: Json) -> Shop:
        """Create an Application with these buckets, and the buckets."""
        shop = await self.apply("", *buckets)
        await storage.reconcile_storage(shop.step)
        return shop

    async def delete(self, shop: Shop) -> None:
        await self.kube.delete(custom_resource(Kind.APPLICATION), shop.name, self.namespace)


@pytest.fixture(scope="session")
def s3_settings(platform: Platform) -> Settings:
    return Settings.from_mapping(platform.environment("worker") | {"BASE_DOMAIN": S3_DOMAIN, "S3_ACCOUNTS": "none"})


@pytest.fixture(scope="session")
def s3_session(platform: Platform) -> Callable[[str, str], boto3.Session]:
    """Return how to make a session with given keys."""

    def make(key: str, secret: str) -> boto3.Session:
        return boto3.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1")

    return make


@pytest.fixture(scope="session")
def s3_boto(platform: Platform, s3_session: Callable[[str, str], boto3.Session]) -> Callable[[str, str], Any]:
    """Return how to look at the server with given keys, without any of Plattr's code."""

    def make(key: str, secret: str) -> Any:
        config = Config(s3={"addressing_style": "path"}, max_pool_connections=10)
        return s3_session(key, secret).client("s3", endpoint_url=platform.endpoints.s3_url, config=config)

    return make


@pytest.fixture(scope="session")
def own_account(platform: Platform, s3_boto: Callable[[str, str], Any]) -> Iterator[Any]:
    """The account the worker uses."""
    boto = s3_boto(platform.endpoints.s3_key, platform.endpoints.s3_secret)
    yield boto
    boto.close()


@pytest.fixture(scope="session")
def other_account(platform: Platform, s3_boto: Callable[[str, str], Any]) -> Iterator[Any]:
    """Another account, whose buckets are nobody else's."""
    boto = s3_boto(platform.endpoints.s3_root_key, platform.endpoints.s3_root_secret)
    yield boto
    boto.close()


@pytest.fixture
def plain_account(platform: Platform) -> Iterator[tuple[str, str]]:
    """Key and secret of a third account; unlike the other two it may not look into other accounts' buckets."""
    key, secret = f"u{secrets.token_hex(4)}", secrets.token_hex(16)
    endpoints = platform.endpoints
    admin = [str(endpoints.bin_dir / "versitygw"), "admin", "-a", endpoints.s3_root_key, "-s", endpoints.s3_root_secret]
    admin += ["--endpoint-url", endpoints.s3_url]
    subprocess.run([*admin, "create-user", "-a", key, "-s", secret, "-r", "userplus"], check=True, capture_output=True)
    yield key, secret
    subprocess.run([*admin, "delete-user", "-a", key], check=True, capture_output=True)


@pytest.fixture(scope="session")
async def s3_kube(platform: Platform) -> AsyncIterator[KubeClient]:
    kube = await KubeClient.connect(str(platform.endpoints.kubeconfig_admin), cluster=CLUSTER)
    yield kube
    await kube.close()


@pytest.fixture(scope="session")
async def s3_namespace(s3_kube: KubeClient) -> AsyncIterator[str]:
    """A namespace for the objects and their claims."""
    namespace = f"s3-{secrets.token_hex(4)}"
    await s3_kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    yield namespace
    await s3_kube.delete(NAMESPACES, namespace)


@pytest.fixture
async def shops(
    s3_kube: KubeClient, s3_settings: Settings, s3_namespace: str, own_account: Any, other_account: Any
) -> AsyncIterator[Shops]:
    loader = TargetLoader(s3_kube, s3_settings)
    shops = Shops(s3_kube, loader, ClaimStore(s3_kube, s3_namespace), s3_namespace)
    yield shops
    for entry in other_account.list_buckets()["Buckets"]:
        if any(f"-{name}-" in entry["Name"] for name in shops.made):
            try:
                remove_bucket(own_account, entry["Name"])
            except ClientError:
                remove_bucket(other_account, entry["Name"])
    for name in set(shops.made):
        await s3_kube.delete(custom_resource(Kind.APPLICATION), name, s3_namespace)


@pytest.fixture
def s3(
    platform: Platform, s3_settings: Settings, s3_session: Callable[[str, str], boto3.Session]
) -> Iterator[S3Client]:
    """The worker's client, new for each test, so that its hooks are the test's alone."""
    client = S3Client(s3_settings, session=s3_session(platform.endpoints.s3_key, platform.endpoints.s3_secret))
    yield client
    client.close()


@pytest.fixture
def hooks(s3: S3Client) -> Hooks:
    return Hooks(s3)


MakeStorage = Callable[..., StorageActivities]


@pytest.fixture
def make_storage(s3: S3Client, shops: Shops, s3_settings: Settings) -> MakeStorage:
    """Return how to make the activities, with another client or another time budget."""

    def make(client: S3Client = s3, budget: timedelta = CLEANUP_BUDGET) -> StorageActivities:
        return StorageActivities(
            shops.loader, shops.kube, client, shops.claim_store, s3_settings, cleanup_budget=budget
        )

    return make


@pytest.fixture
def storage(make_storage: MakeStorage) -> StorageActivities:
    return make_storage()
