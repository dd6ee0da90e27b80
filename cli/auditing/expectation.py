"""What a target asks for, as things that must exist while its object is Running."""

from cli.auditing.inventory import Thing, ThingKind
from plattr.target import Target


def expected_things(
    target: Target, *, has_redis_users: bool = False, has_storage_keys: bool = False
) -> frozenset[Thing]:
    """Return everything that the target must have; a user of Redis and a key of S3 where the platform makes them."""
    things = [*_claims(target), *_backends(target), *_workload(target)]
    if target.spec.redis.enabled and has_redis_users:
        names = target.names
        things += [
            Thing(kind=ThingKind.REDIS_USER, name=names.redis_user),
            Thing(kind=ThingKind.SECRET, scope=names.namespace, name=names.redis_secret),
        ]
    if target.spec.storage.enabled and has_storage_keys:
        things.append(Thing(kind=ThingKind.SECRET, scope=target.names.namespace, name=target.names.storage_keys))
    return frozenset(things)


def _claims(target: Target) -> list[Thing]:
    names, spec = target.names, target.spec
    claims = [("host", names.host), ("ingress", f"{names.namespace}.{names.stem}")]
    if target.is_preview:
        claims.append(("namespace", names.namespace))
    if spec.database.enabled:
        claims += [
            ("schema", names.schema_name),
            ("roles", names.sql_stem),
            ("ingress", f"{names.namespace}.{names.api_ingress}"),
        ]
    if spec.storage.enabled:
        claims += [("bucket", names.bucket(bucket.name)) for bucket in spec.storage.buckets]
    if spec.auth.enabled:
        claims.append(("realm", names.realm))
    if spec.redis.enabled:
        claims.append(("redis", names.redis_user))
    if spec.search.enabled:
        claims.append(("search", names.search_prefix))
    return [Thing(kind=ThingKind.CLAIM, scope=kind, name=name) for kind, name in claims]


def _backends(target: Target) -> list[Thing]:
    names, spec = target.names, target.spec
    things = []
    if spec.database.enabled:
        things += [
            Thing(kind=ThingKind.SCHEMA, name=names.schema_name),
            Thing(kind=ThingKind.ROLE, name=names.app_role),
            Thing(kind=ThingKind.ROLE, name=names.anon_role),
        ]
    if spec.storage.enabled:
        things += [Thing(kind=ThingKind.BUCKET, name=names.bucket(bucket.name)) for bucket in spec.storage.buckets]
    if spec.auth.enabled:
        things += [
            Thing(kind=ThingKind.REALM, name=names.realm),
            Thing(kind=ThingKind.CLIENT, scope=names.realm, name=names.client_id),
        ]
    return things


def _workload(target: Target) -> list[Thing]:
    names, spec = target.names, target.spec
    objects = [
        (ThingKind.SERVICE_ACCOUNT, names.stem),
        (ThingKind.DEPLOYMENT, names.stem),
        (ThingKind.SERVICE, names.stem),
        (ThingKind.INGRESS, names.stem),
        (ThingKind.AUTOSCALER, names.stem),
    ]
    if spec.database.enabled:
        objects += [(ThingKind.SECRET, names.database_secret), (ThingKind.INGRESS, names.api_ingress)]
    features = [
        ("storage", spec.storage.enabled),
        ("auth", spec.auth.enabled),
        ("redis", spec.redis.enabled),
        ("search", spec.search.enabled),
    ]
    objects += [(ThingKind.CONFIG_MAP, names.config_map(feature)) for feature, is_enabled in features if is_enabled]
    things = [Thing(kind=kind, scope=names.namespace, name=name) for kind, name in objects]
    if target.is_preview:
        things.append(Thing(kind=ThingKind.NAMESPACE, name=names.namespace))
    return things
