"""Two clusters on one PostgreSQL, S3 and Keycloak, with the same namespace and name; and a namespace made again."""

import asyncio
import copy
import secrets
from typing import Any

import pytest

from activities.auth import AuthActivities
from activities.loading import TargetLoader
from activities.storage import StorageActivities
from clients.claim_store import ClaimStore
from clients.keycloak import KeycloakClient
from clients.kube import KubeClient
from clients.postgres import PostgresClient
from clients.resources import CONFIG_MAPS, NAMESPACES, SECRETS
from clients.s3 import S3Client
from plattr.claims import claims_of
from plattr.errors import OwnedElsewhere
from plattr.objects import CustomObject
from plattr.settings import Settings
from plattr.steps import CleanupInput, CleanupStepInput
from plattr.target import OWNER_UID_ANNOTATION
from tests.fix_keycloak import Administrator, Connect, Subjects
from tests.fix_kubernetes import Cluster, application_spec
from tests.fix_postgres import Databases, Superuser, Tenants, catalogue_rows
from tests.fix_s3 import UPLOADS, Shops
from tests.inputs import CLUSTER, claim_of, cleanup_of, step_of

pytestmark = pytest.mark.attack

SECOND = "second"


def second(kube: KubeClient) -> KubeClient:
    """Return another cluster with the very same objects in it."""
    other = copy.copy(kube)
    other.cluster = SECOND
    return other


async def test_a_second_cluster_neither_takes_over_nor_removes_a_database(
    databases: Databases, tenants: Tenants, postgres: PostgresClient, database_settings: Settings, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, "CREATE TABLE orders (id int)")
    first_secret = await tenants.kube.get(SECRETS, tenant.names.database_secret, tenants.namespace)
    rows = await catalogue_rows(superuser, tenant)
    # It was never in the second cluster.
    await tenants.delete_secret(tenant)
    there = Databases(second(tenants.kube), postgres, database_settings)

    with pytest.raises(OwnedElsewhere) as refusal:
        await there.reconcile_database(tenant.step)
    await there.delete_database(tenant.cleanup())
    await there.delete_database(CleanupStepInput(reference=tenant.custom_object.reference))

    assert f"of cluster '{CLUSTER}'" in str(refusal.value)
    assert await catalogue_rows(superuser, tenant) == rows
    assert first_secret is not None
    await tenants.delete_secret(tenant)
    metadata = {key: first_secret["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    await tenants.kube.create(SECRETS, {**first_secret, "metadata": metadata}, tenants.namespace)
    assert await tenants.query(tenant, "SELECT count(*) FROM orders") == [(0,)]


async def test_a_second_cluster_neither_takes_over_nor_removes_a_bucket(
    storage: StorageActivities, shops: Shops, s3: S3Client, s3_settings: Settings, own_account: Any
) -> None:
    shop = await shops.provision(storage, UPLOADS)
    bucket = shop.bucket("uploads")
    own_account.put_object(Bucket=bucket, Key="kept", Body=b"kept")
    # With its claims in its own namespace, as in its own API server.
    kube, loader = second(shops.kube), TargetLoader(second(shops.kube), s3_settings)
    claim_store = ClaimStore(kube, "default")
    there = StorageActivities(loader, kube, s3, claim_store, s3_settings)
    target = await loader.target_of(shop.custom_object)
    await claim_store.acquire(target.owner, claims_of(target))

    try:
        with pytest.raises(OwnedElsewhere) as refusal:
            await there.reconcile_storage(shop.step)
        await there.delete_storage(cleanup_of(shop.custom_object))
    finally:
        await claim_store.release(cleanup_of(shop.custom_object).estate(SECOND), claims_of(target))

    assert f"of cluster '{CLUSTER}'" in str(refusal.value)
    assert own_account.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"kept"
    # Nor what the second cluster has in Kubernetes; here it is the same.
    assert await shops.kube.get(CONFIG_MAPS, f"{shop.name}-storage", shops.namespace) is not None


async def test_a_second_cluster_neither_takes_over_nor_removes_a_realm(
    auth: AuthActivities,
    connect_auth: Connect,
    auth_kube: KubeClient,
    auth_settings: Settings,
    subjects: Subjects,
    realm_name: str,
    administrator: Administrator,
) -> None:
    subject = await subjects.apply(realm_name)
    await auth.reconcile_auth(subject.step)
    kube = second(auth_kube)
    keycloak = KeycloakClient.connect(auth_settings)
    claim_store = ClaimStore(kube, "default")
    there = AuthActivities(TargetLoader(kube, auth_settings), kube, keycloak, claim_store, auth_settings)

    try:
        with pytest.raises(OwnedElsewhere) as refusal:
            await there.reconcile_auth(subject.step)
        await there.delete_auth(cleanup_of(subject.custom_object))
    finally:
        await keycloak.close()

    assert f"of cluster '{CLUSTER}'" in str(refusal.value)
    realm = await auth._keycloak.get_realm(realm_name)
    assert realm is not None
    assert realm["attributes"]["plattr.ownerCluster"] == CLUSTER


async def test_a_second_cluster_does_not_take_claims_over(cluster: Cluster, namespace: str) -> None:
    custom_object = await cluster.apply(namespace, "shop")
    target = await cluster.loader.target_of(custom_object)
    await cluster.claim_store.acquire(target.owner, claims_of(target))
    there = ClaimStore(second(cluster.kube), cluster.settings.lease_namespace)
    foreign = target.owner.model_copy(update={"cluster": SECOND})

    with pytest.raises(OwnedElsewhere) as refusal:
        await there.acquire(foreign, claims_of(target))
    estate = cleanup_of(custom_object).estate(SECOND)
    await there.release(estate, claims_of(target))

    assert "plattr adopt" in str(refusal.value)
    assert await there.held_by(estate) == []
    assert len(await cluster.leases(namespace)) == len(claims_of(target))


@pytest.fixture
async def again(cluster: Cluster) -> tuple[CustomObject, CustomObject]:
    """An object whose data was retained when its namespace went, and that of whoever made both again."""
    namespace = await cluster.new_namespace()
    name = f"r{secrets.token_hex(4)}"
    spec = application_spec(deletionPolicy="Retain", database={"enabled": True})
    former = await cluster.apply(namespace, name, spec)
    await cluster.claims.claim_object(claim_of(former))
    await cluster.delete(former.reference)
    plan = await cluster.claims.plan_cleanup(CleanupInput(reference=former.reference))
    await cluster.releases.release_object(
        CleanupStepInput(reference=former.reference, uid=plan.uid, namespace_uid=plan.namespace_uid, retain=plan.retain)
    )
    await cluster.admin.delete(NAMESPACES, namespace)
    async with asyncio.timeout(60):
        while await cluster.admin.get(NAMESPACES, namespace) is not None:
            await asyncio.sleep(0.2)
    await cluster.admin.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    return former, await cluster.apply(namespace, name, application_spec(database={"enabled": True}))


async def claims_in(cluster: Cluster, namespace: str) -> list[tuple[str, str, str]]:
    """Return each claim, which one it is, and of which object; who waits for it may be noted on it."""
    found = [lease["metadata"] for lease in await cluster.leases(namespace)]
    return [(each["name"], each["uid"], each["annotations"][OWNER_UID_ANNOTATION]) for each in found]


async def test_whoever_makes_a_namespace_again_gets_nothing_that_was_retained_there(
    cluster: Cluster, again: tuple[CustomObject, CustomObject]
) -> None:
    former, thief = again
    retained = await claims_in(cluster, former.metadata.namespace)

    with pytest.raises(OwnedElsewhere) as refusal:
        await cluster.claims.claim_object(claim_of(thief))
    await cluster.delete(thief.reference)
    plan = await cluster.claims.plan_cleanup(CleanupInput(reference=thief.reference))
    await cluster.releases.release_object(
        CleanupStepInput(reference=thief.reference, uid=plan.uid, namespace_uid=plan.namespace_uid, retain=plan.retain)
    )

    assert retained
    assert "an earlier namespace" in str(refusal.value)
    assert "plattr adopt" in str(refusal.value)
    assert await claims_in(cluster, former.metadata.namespace) == retained


async def test_the_database_of_an_earlier_namespace_is_neither_taken_over_nor_removed(
    databases: Databases, tenants: Tenants, postgres: PostgresClient, database_settings: Settings, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    rows = await catalogue_rows(superuser, tenant)
    # It went with the namespace.
    await tenants.delete_secret(tenant)
    loader = TargetLoader(tenants.kube, database_settings)
    loader._namespace_uids[tenant.custom_object.metadata.uid] = "another"
    later = Databases(tenants.kube, postgres, database_settings, loader)

    with pytest.raises(OwnedElsewhere) as refusal:
        await later.reconcile_database(step_of(tenant.custom_object))
    await later.delete_database(tenant.cleanup().model_copy(update={"namespace_uid": "another"}))

    assert "an earlier namespace" in str(refusal.value)
    assert await catalogue_rows(superuser, tenant) == rows
