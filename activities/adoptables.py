"""Find what bears an object's names and belongs to another owner, backend by backend, and take it over.

Data is taken over only from the owner that its mark names; data without a mark was never Plattr's. In Kubernetes an
object without a mark can be taken over, such as a Deployment that existed before Plattr.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from activities.families import Families
from clients.claim_store import ClaimStore
from clients.keycloak import KeycloakClient
from clients.kube import KubeClient
from clients.opensearch import OpenSearchClient
from clients.postgres import PostgresClient
from clients.postgres_transaction import Transaction
from clients.redis import RedisClient, UsersMissing
from clients.resources import (
    AUTOSCALERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    INGRESSES,
    LIMIT_RANGES,
    NAMESPACES,
    NETWORK_POLICIES,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Json,
    Resource,
    is_deleting,
)
from clients.s3 import S3Client, Standing
from plattr import realm as realms
from plattr import sql
from plattr.buckets import owner_tags, tagged_mark
from plattr.claims import claims_of
from plattr.database import DatabaseState, adopted_record, existing_records, owner_record, recorded_mark
from plattr.errors import Conflict
from plattr.features import features_of
from plattr.marks import Mark
from plattr.naming import PREVIEW_LIMITS, BucketName, storage_account
from plattr.objects import ObjectReference, Owner, parse_key
from plattr.target import Target, mark_of, owner_annotations, owner_labels


class Marked(NamedTuple):
    """One resource that bears one of the target's names, no matter who owns it."""

    what: str
    mark: Mark | None
    take: Callable[[], Awaitable[None]]
    obstacle: str = ""
    """Why it cannot be taken over."""


_NOBODYS = "it does not say whose it is, so it was never Plattr's"


async def marked_claims(claim_store: ClaimStore, target: Target) -> list[Marked]:
    """Return the claims of the target's names."""
    is_retained = target.spec.deletion_policy == "Retain"
    needed, optional = Families.claims_of(target)
    found = []
    for claim in (*claims_of(target), *needed, *optional):
        held = await claim_store.marked(claim)
        if held is not None:
            lease, mark = held
            take = partial(claim_store.take_over, claim, lease, target.owner, is_retained=is_retained)
            found.append(Marked(f"claim of {claim.kind} {claim.name!r}", mark, take))
    return found


async def marked_database(postgres: PostgresClient, target: Target) -> list[Marked]:
    """Return the schema and the roles."""
    if not target.spec.database.enabled:
        return []
    reference, names = target.owner.reference, target.names
    async with postgres.locked(reference, "look for a database to take over") as transaction:
        records = existing_records(await _state(transaction, target), target)
    schema, anon = f"schema {names.schema_name!r}", f"role {names.anon_role!r}"

    def marked(what: str, comment: str | None) -> Marked:
        mark = recorded_mark(comment)
        record = adopted_record(comment, target.owner) if what == anon else owner_record(target.owner)
        if what == schema:
            statement = sql.comment_on_schema(names.schema_name, record)
        else:
            statement = sql.comment_on_role(names.anon_role if what == anon else names.app_role, record)

        async def take() -> None:
            # Take the former owner's lock, because its cleanup may be running.
            former = parse_key(mark.key) if mark is not None else None
            async with postgres.locked(former or reference, f"take over {what}") as transaction:
                now = existing_records(await _state(transaction, target), target).get(what)
                # One comment may count for all three: the owning role's comment takes precedence over the schema's.
                if now not in (comment, record):
                    raise Conflict(f"cannot take over {what} for {reference}: it has changed since")
                await transaction.write([statement])

        return Marked(what, mark, take, "" if mark is not None else _NOBODYS)

    return [marked(what, comment) for what, comment in records.items()]


async def marked_buckets(s3: S3Client, target: Target) -> list[Marked]:
    """Return the buckets of the spec."""
    found = []
    for bucket in target.spec.storage.buckets if target.spec.storage.enabled else ():
        name = target.names.bucket(bucket.name)
        standing = await s3.locate(name)
        if standing is Standing.ABSENT:
            continue
        tags = await s3.tags(name) if standing is Standing.OURS else {}
        mark = tagged_mark(tags)
        take = partial(_take_bucket, s3, name, mark, tags | owner_tags(target.owner))
        obstacle = "it is another account's" if standing is Standing.FOREIGN else _NOBODYS if mark is None else ""
        found.append(Marked(f"bucket {name!r}", mark, take, obstacle))
    return found


async def _take_bucket(s3: S3Client, name: BucketName, mark: Mark | None, tags: dict[str, str]) -> None:
    """Take a bucket over, and remove the former owner's account, which nothing would find afterwards.

    The account's name comes from the bucket's tags, which no tenant can write. The account goes before the tags
    change, because the new tags no longer tell its name.
    """
    former = parse_key(mark.key) if mark is not None else None
    if s3.accounts is not None and mark is not None and former is not None:
        await s3.accounts.remove(storage_account(former, mark.cluster, mark.namespace_uid))
    await s3.put_tags(name, tags)


async def marked_realm(keycloak: KeycloakClient, target: Target) -> list[Marked]:
    """Return the realm."""
    realm = await keycloak.get_realm(target.names.realm) if target.spec.auth.enabled else None
    if realm is None:
        return []
    mark = realms.mark_of(realm)
    attributes = {**realm.get("attributes", {}), **realms.build_owner_attributes(target.owner)}

    async def take() -> None:
        await keycloak.update_realm(target.names.realm, {"attributes": attributes})

    return [Marked(f"realm {target.names.realm!r}", mark, take, "" if mark is not None else _NOBODYS)]


async def marked_user(redis: RedisClient | None, target: Target) -> list[Marked]:
    """Return the user of Redis.

    Taking the user over deletes it, and the next run creates it again. The keys stay: they belong to the prefix.
    """
    if redis is None or not target.spec.redis.enabled:
        return []
    client = redis
    try:
        user = await client.user(target.names.redis_user)
    except UsersMissing:
        return []
    if user is None or user.record is None:
        return []

    async def take() -> None:
        await client.delete_user(target.names.redis_user)

    return [Marked(f"user {target.names.redis_user!r} of Redis", recorded_mark(user.record), take)]


async def marked_prefix(opensearch: OpenSearchClient | None, target: Target) -> list[Marked]:
    """Return the prefix of OpenSearch, if its owner is recorded; everything that bears the prefix goes with it."""
    if opensearch is None or not target.spec.search.enabled:
        return []
    prefix = target.names.search_prefix
    record = await opensearch.record(prefix)
    if record is None:
        return []
    mark = recorded_mark(record)
    take = partial(opensearch.put_record, prefix, owner_record(target.owner), is_new=False)
    return [Marked(f"prefix {prefix!r} of OpenSearch", mark, take, "" if mark is not None else _NOBODYS)]


async def marked_objects(kube: KubeClient, target: Target) -> list[Marked]:
    """Return what Kubernetes has under the names of the target's workload."""
    names = target.names
    places: list[tuple[Resource, str]] = [
        (resource, names.stem) for resource in (SERVICE_ACCOUNTS, DEPLOYMENTS, SERVICES, INGRESSES, AUTOSCALERS)
    ]
    features = features_of(target)
    places += [(CONFIG_MAPS, names.config_map(feature.step)) for feature in features if feature.has_config_map]
    places += [(SECRETS, feature.secret.name(names)) for feature in features if feature.secret is not None]
    if target.spec.database.enabled:
        places.append((INGRESSES, names.api_ingress))
    if target.is_preview:
        places += [(resource, PREVIEW_LIMITS) for resource in (RESOURCE_QUOTAS, LIMIT_RANGES, NETWORK_POLICIES)]
        places.append((NAMESPACES, names.namespace))
    found = []
    for resource, name in places:
        namespace = names.namespace if resource.namespaced else ""
        body = await kube.get(resource, name, namespace)
        if body is not None:
            found.append(_marked_object(kube, resource, body, target))
    return found


def former_holder(marked: Marked, owner: Owner) -> ObjectReference | None:
    """Return the other object of this cluster that a resource belongs to; None when there is no such object."""
    reference = parse_key(marked.mark.key) if marked.mark is not None else None
    is_here = marked.mark is not None and marked.mark.cluster == owner.cluster
    return reference if is_here and reference != owner.reference else None


def _marked_object(kube: KubeClient, resource: Resource, body: Json, target: Target) -> Marked:
    metadata, owner = body["metadata"], target.owner
    mark = mark_of(body)
    namespace = metadata.get("namespace", "")
    operations: list[Json] = [
        {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
        {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
        {"op": "add", "path": "/metadata/labels", "value": metadata.get("labels", {}) | owner_labels(owner.reference)},
        {
            "op": "add",
            "path": "/metadata/annotations",
            "value": metadata.get("annotations", {}) | owner_annotations(owner),
        },
    ]

    async def take() -> None:
        await kube.json_patch(resource, metadata["name"], operations, namespace)

    return Marked(f"{resource.kind} {metadata['name']!r}", mark, take, _obstacle(resource, body, mark, target))


def _obstacle(resource: Resource, body: Json, mark: Mark | None, target: Target) -> str:
    if is_deleting(body):
        return "it is being deleted"
    if resource is NAMESPACES and mark is None:
        return _NOBODYS
    if resource is DEPLOYMENTS and body["spec"]["selector"].get("matchLabels") != target.selector_labels:
        return (
            "it selects its pods by other labels, and a selector cannot be changed; delete it, or only it by"
            " `kubectl delete --cascade=orphan`, and Plattr makes its own"
        )
    return ""


async def _state(transaction: Transaction, target: Target) -> DatabaseState:
    names = target.names
    rows = await transaction.fetch(
        sql.STATE, schema=names.schema_name, app=names.app_role, anon=names.anon_role, group=sql.APPLICATIONS_ROLE
    )
    return DatabaseState.model_validate(rows[0])
