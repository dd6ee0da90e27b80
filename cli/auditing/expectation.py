"""The things that a target asks for, which must exist while its object is Running."""

from cli.auditing.features import DATABASE, REDIS, STORAGE, enabled_features
from cli.auditing.inventory import Thing, ThingKind
from plattr.target import Target


def expected_things(
    target: Target, *, has_redis_users: bool = False, has_storage_keys: bool = False
) -> frozenset[Thing]:
    """Return all that the target must have, with a Redis user and an S3 key if the platform makes them."""
    names, spec = target.names, target.spec
    features = enabled_features(spec)
    # A platform without Redis users, or without S3 accounts, makes no such Secret.
    without_user = set() if has_redis_users else {REDIS}
    without_secret = without_user | (set() if has_storage_keys else {STORAGE})
    claims = [pair for feature in features for pair in feature.claims(names, spec)]
    secrets = [
        feature.secret(names) for feature in features if feature.secret is not None and feature not in without_secret
    ]
    things = [*_claims(target, claims), *_workload(target)]
    things += [
        thing for feature in features if feature not in without_user for thing in feature.in_backend(names, spec)
    ]
    things += [Thing(kind=ThingKind.SECRET, scope=names.namespace, name=name) for name in secrets]
    things += [
        Thing(kind=ThingKind.CONFIG_MAP, scope=names.namespace, name=names.config_map(feature.name))
        for feature in features
        if feature.has_config_map
    ]
    if DATABASE in features:
        things.append(Thing(kind=ThingKind.INGRESS, scope=names.namespace, name=names.api_ingress))
    return frozenset(things)


def _claims(target: Target, of_features: list[tuple[str, str]]) -> list[Thing]:
    names = target.names
    claims = [("host", names.host), ("ingress", f"{names.namespace}.{names.stem}"), *of_features]
    if target.is_preview:
        claims.append(("namespace", names.namespace))
    return [Thing(kind=ThingKind.CLAIM, scope=kind, name=name) for kind, name in claims]


def _workload(target: Target) -> list[Thing]:
    names = target.names
    kinds = (
        ThingKind.SERVICE_ACCOUNT,
        ThingKind.DEPLOYMENT,
        ThingKind.SERVICE,
        ThingKind.INGRESS,
        ThingKind.AUTOSCALER,
    )
    things = [Thing(kind=kind, scope=names.namespace, name=names.stem) for kind in kinds]
    if target.is_preview:
        things.append(Thing(kind=ThingKind.NAMESPACE, name=names.namespace))
    return things
