"""What an application can have: one `Feature` for each backend, and everything that follows from this list.

Both orders, conditions, claims, retained data, injected variables, ConfigMaps and Secrets derive from `FEATURES`.
docs/adding-a-reconciler.md lists the few other files that a new feature needs. tests/domain/test_features.py fails
for each of these files that is forgotten. The functions read `FEATURES` at each call, so that the test can add to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from plattr.objects import Kind

if TYPE_CHECKING:
    # Specs and names import this module, because a spec refuses the variables that a feature injects.
    from collections.abc import Callable, Iterable, Mapping

    from plattr.naming import Names
    from plattr.settings import Settings
    from plattr.spec import ApplicationSpec
    from plattr.target import Target


class Step(StrEnum):
    """The steps of a run, by the names that the UI, the CLI and the history show."""

    CLAIM = "claim"
    DATABASE = "database"
    STORAGE = "storage"
    AUTH = "auth"
    REDIS = "redis"
    SEARCH = "search"
    WORKLOAD = "workload"
    ROLLOUT = "rollout"
    STATUS = "status"
    NAMESPACE = "namespace"
    LIFETIME = "lifetime"
    EXPIRY = "expiry"
    RELEASE = "release"

    @property
    def condition(self) -> ConditionType:
        """Return the condition that is False when this step fails: its feature's, or the whole object's."""
        if self is Step.ROLLOUT:
            return ConditionType.DEPLOYMENT
        feature = feature_of(self)
        return feature.condition if feature is not None else ConditionType.READY

    @property
    def blocks(self) -> bool:
        """Tell whether the steps after this one wait until it succeeds."""
        feature = feature_of(self)
        return feature is None or feature.blocks

    @property
    def keeps_data(self) -> bool:
        """Tell whether the step's feature has data that outlives an object with deletionPolicy Retain."""
        feature = feature_of(self)
        return feature is not None and feature.keeps_data


class ConditionType(StrEnum):
    """What can be true of an object.

    The first three summarize the others, as kstatus (and so Flux, Helm and Argo CD) reads them. RECONCILING and STALLED
    exist only while they are True.
    """

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DATABASE = "DatabaseReady"
    STORAGE = "StorageReady"
    AUTH = "AuthReady"
    REDIS = "RedisReady"
    SEARCH = "SearchReady"
    DEPLOYMENT = "DeploymentReady"
    INGRESS = "IngressReady"
    EXPIRING = "Expiring"


class ClaimKind(StrEnum):
    """What kind of name a claim is for."""

    SCHEMA = "schema"
    ROLES = "roles"
    BUCKET = "bucket"
    REALM = "realm"
    REDIS = "redis"
    # The number of a logical database, where each application has its own.
    REDIS_DATABASE = "redisdb"
    SEARCH = "search"
    HOST = "host"
    INGRESS = "ingress"
    NAMESPACE = "namespace"
    PREVIEWS = "previews"
    """The family of names that the previews of an application can have; its name is the application's."""

    @property
    def condition(self) -> ConditionType:
        """Return the condition that is False when another object holds the name."""
        owners = [feature.condition for feature in FEATURES if self in feature.claim_kinds]
        # The other kinds are names under which the application is served.
        return owners[0] if owners else ConditionType.INGRESS


@dataclass(frozen=True, kw_only=True)
class FeatureSecret:
    """The Secret that a feature's step makes for the pods, with the ConfigMap or instead of it."""

    name: Callable[[Names], str]
    is_optional: bool = False
    """Some platforms make none, and the pods start without it."""
    can_exist: Callable[[Settings], bool] = lambda _: True
    """By the settings. Where the Secret cannot exist, Plattr does not look for it."""
    is_made: Callable[[Mapping[str, str]], bool] = lambda _: True
    """By the values of the feature's ConfigMap. If a Secret was made, it must exist."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What an application has in one backend, and what the rest of Plattr must know about it."""

    step: Step
    """Its value is the field of the spec, and the end of the ConfigMap's name."""
    condition: ConditionType
    is_enabled: Callable[[ApplicationSpec], bool]
    kinds: frozenset[Kind] = frozenset(Kind)
    """The kinds of objects that can have the feature."""
    claim_kinds: tuple[ClaimKind, ...] = ()
    """The kinds of its claims. When data is kept, messages name the first kind."""
    claims: Callable[[Names, ApplicationSpec], Iterable[tuple[ClaimKind, str]]] = lambda _names, _spec: ()
    """The names that the feature needs for itself, when it is enabled."""
    keeps_data: bool = False
    """The claimed names stand for data. The data outlives the disabled feature and, with Retain, the object."""
    variables: tuple[str, ...] = ()
    """Patterns of the environment variables that it injects; a spec must not set them."""
    has_config_map: bool = False
    """Its step makes a ConfigMap that the pods read."""
    secret: FeatureSecret | None = None
    blocks: bool = True
    """The steps after it wait until it succeeds. If False, the pods start without its ConfigMap."""

    def is_part_of(self, target: Target) -> bool:
        """Tell whether the target has the feature."""
        return target.owner.reference.kind in self.kinds and self.is_enabled(target.spec)


# In the order of provisioning (docs/decisions/0019-steps-stay-in-order.md).
FEATURES: tuple[Feature, ...] = (
    Feature(
        step=Step.NAMESPACE,
        condition=ConditionType.DEPLOYMENT,
        is_enabled=lambda _: True,
        kinds=frozenset({Kind.PREVIEW}),
        claim_kinds=(ClaimKind.NAMESPACE,),
        claims=lambda names, _: [(ClaimKind.NAMESPACE, names.namespace)],
    ),
    Feature(
        step=Step.DATABASE,
        condition=ConditionType.DATABASE,
        is_enabled=lambda spec: spec.database.enabled,
        claim_kinds=(ClaimKind.SCHEMA, ClaimKind.ROLES),
        claims=lambda names, _: [
            (ClaimKind.SCHEMA, names.schema_name),
            (ClaimKind.ROLES, names.sql_stem),
            # The only derived name that can be another application's own: `shop` has shop-api, and so has `shop-api`.
            (ClaimKind.INGRESS, f"{names.namespace}.{names.api_ingress}"),
        ],
        keeps_data=True,
        variables=(
            "DATABASE_URL",
            "DB_(HOST|PORT|NAME|USER|PASSWORD|SCHEMA|CHANNEL)",
            "POSTGREST_(URL|INTERNAL_URL)",
            "PGRST_.*",
        ),
        secret=FeatureSecret(name=lambda names: names.database_secret),
    ),
    Feature(
        step=Step.STORAGE,
        condition=ConditionType.STORAGE,
        is_enabled=lambda spec: spec.storage.enabled,
        claim_kinds=(ClaimKind.BUCKET,),
        claims=lambda names, spec: [(ClaimKind.BUCKET, names.bucket(bucket.name)) for bucket in spec.storage.buckets],
        keeps_data=True,
        variables=("S3_(ENDPOINT|REGION)", "S3_(BUCKET|MAX_FILE_SIZE)_.*"),
        has_config_map=True,
        # Only where the S3 server has accounts; on AWS the pod's role gives the credentials.
        secret=FeatureSecret(
            name=lambda names: names.storage_keys,
            is_optional=True,
            can_exist=lambda settings: settings.s3_accounts != "none",
        ),
    ),
    Feature(
        step=Step.AUTH,
        condition=ConditionType.AUTH,
        is_enabled=lambda spec: spec.auth.enabled,
        claim_kinds=(ClaimKind.REALM,),
        claims=lambda names, _: [(ClaimKind.REALM, names.realm)],
        keeps_data=True,
        variables=("AUTH_(ISSUER_URL|CLIENT_ID)",),
        has_config_map=True,
        # An application whose logins fail for a while is still better than no application.
        # Source: docs/decisions/0006-auth-failures.md.
        blocks=False,
    ),
    Feature(
        step=Step.REDIS,
        condition=ConditionType.REDIS,
        is_enabled=lambda spec: spec.redis.enabled,
        claim_kinds=(ClaimKind.REDIS, ClaimKind.REDIS_DATABASE),
        claims=lambda names, _: [(ClaimKind.REDIS, names.redis_user)],
        keeps_data=True,
        variables=("REDIS_(URL|HOST|PORT|PREFIX|USERNAME|PASSWORD)",),
        has_config_map=True,
        # Only where the platform has Redis users. The address is then in the Secret, not in the ConfigMap.
        secret=FeatureSecret(
            name=lambda names: names.redis_secret,
            is_optional=True,
            is_made=lambda values: "REDIS_URL" not in values,
        ),
    ),
    Feature(
        step=Step.SEARCH,
        condition=ConditionType.SEARCH,
        is_enabled=lambda spec: spec.search.enabled,
        claim_kinds=(ClaimKind.SEARCH,),
        claims=lambda names, _: [(ClaimKind.SEARCH, names.search_prefix)],
        keeps_data=True,
        variables=("OPENSEARCH_(URL|INDEX_PREFIX)",),
        has_config_map=True,
    ),
    Feature(
        step=Step.WORKLOAD,
        condition=ConditionType.DEPLOYMENT,
        is_enabled=lambda _: True,
        variables=("PORT",),
    ),
)


def feature_of(step: Step) -> Feature | None:
    """Return the feature that a step is for; None: the step is for the whole object."""
    return next((feature for feature in FEATURES if feature.step is step), None)


def features_of(target: Target) -> tuple[Feature, ...]:
    """Return the features that the target has, in the order of provisioning."""
    return tuple(feature for feature in FEATURES if feature.is_part_of(target))


def missing_features(target: Target) -> tuple[Feature, ...]:
    """Return the features that the target does not have, in the order of provisioning."""
    return tuple(feature for feature in FEATURES if not feature.is_part_of(target))


def secret_names(names: Names) -> tuple[str, ...]:
    """Return the name of each Secret that a feature's step can make."""
    return tuple(feature.secret.name(names) for feature in FEATURES if feature.secret is not None)


def provision_order(kind: Kind) -> tuple[Step, ...]:
    """Return the steps of every feature that an object of the kind can have."""
    return tuple(feature.step for feature in FEATURES if kind in feature.kinds)


def cleanup_order(kind: Kind) -> tuple[Step, ...]:
    """Return the same steps in the order of cleanup, which is the reverse."""
    return provision_order(kind)[::-1]


def is_data_kind(kind: ClaimKind) -> bool:
    """Tell whether the resource under a name of this kind can outlive its object."""
    return any(feature.keeps_data and kind in feature.claim_kinds for feature in FEATURES)


def is_injected(variable: str) -> bool:
    """Tell whether Plattr itself sets the environment variable."""
    return any(re.fullmatch(pattern, variable) for feature in FEATURES for pattern in feature.variables)
