"""The auditor's own list of features. It shares only the names with the code that it audits.

A test compares the list with `plattr/features.py`. Nothing here is derived from that module.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from cli.auditing.inventory import Found, Thing, ThingKind
from cli.auditing.keycloak import KeycloakListing
from cli.auditing.opensearch import OpenSearchListing
from cli.auditing.postgres import PostgresListing
from cli.auditing.redis import RedisListing
from cli.auditing.s3 import S3Listing
from plattr import naming
from plattr.naming import Names
from plattr.settings import Settings
from plattr.spec import ApplicationSpec


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a backend needs in order to be asked."""

    settings: Settings
    environment: Mapping[str, str]
    claims: Sequence[Found] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditedFeature:
    """One feature, its backend, and what must exist for it."""

    name: str
    """The field of the spec. The ConfigMap's name ends with it."""
    part: str
    """The backend, and which part of it is checked, in the words of a report."""
    ask: Callable[[Question], list[Found] | None]
    """Return what exists in the backend; None if the platform does not have it."""
    claims: Callable[[Names, ApplicationSpec], Iterable[tuple[str, str]]]
    """What an application's claims are about, and their names."""
    in_backend: Callable[[Names, ApplicationSpec], Iterable[Thing]] = lambda _names, _spec: ()
    """What the backend must have."""
    patterns: Mapping[ThingKind, re.Pattern[str] | None]
    """The backend's kinds of things, each with the pattern of Plattr's names if the owner mark comes only later."""
    data: Mapping[str, Callable[[str], Iterable[Thing]]] = field(default_factory=dict)
    """By what a claim is about: the things that outlive the feature and, with deletionPolicy Retain, the object."""
    has_config_map: bool = True
    secret: Callable[[Names], str] | None = None


def _only(kind: ThingKind) -> Callable[[str], Iterable[Thing]]:
    return lambda name: [Thing(kind=kind, name=name)]


def _ask_s3(question: Question) -> list[Found]:
    with closing(S3Listing(question.settings, question.environment)) as listing:
        return listing.found()


def _ask_keycloak(question: Question) -> list[Found]:
    with closing(KeycloakListing(question.settings)) as listing:
        return listing.found()


def _ask_redis(question: Question) -> list[Found] | None:
    with closing(RedisListing(question.settings)) as listing:
        return listing.found()


DATABASE = AuditedFeature(
    name="database",
    part="PostgreSQL: schemas, roles, rights and logins",
    ask=lambda question: PostgresListing(question.settings).found(),
    claims=lambda names, _: [
        ("schema", names.schema_name),
        ("roles", names.sql_stem),
        ("ingress", f"{names.namespace}.{names.api_ingress}"),
    ],
    in_backend=lambda names, _: [
        Thing(kind=ThingKind.SCHEMA, name=names.schema_name),
        Thing(kind=ThingKind.ROLE, name=names.app_role),
        Thing(kind=ThingKind.ROLE, name=names.anon_role),
    ],
    patterns={
        ThingKind.SCHEMA: re.compile(r"(prod|staging|uat|preview)_.+|.+_pr[0-9]+"),
        ThingKind.ROLE: re.compile(r"((prod|staging|uat|preview)_.+|.+_pr[0-9]+)_(app|anon)"),
    },
    data={
        "schema": _only(ThingKind.SCHEMA),
        "roles": lambda stem: [Thing(kind=ThingKind.ROLE, name=role) for role in naming.roles_of(stem)],
    },
    has_config_map=False,
    secret=lambda names: names.database_secret,
)

STORAGE = AuditedFeature(
    name="storage",
    part="S3: buckets",
    ask=_ask_s3,
    claims=lambda names, spec: [("bucket", names.bucket(bucket.name)) for bucket in spec.storage.buckets],
    in_backend=lambda names, spec: [
        Thing(kind=ThingKind.BUCKET, name=names.bucket(bucket.name)) for bucket in spec.storage.buckets
    ],
    patterns={ThingKind.BUCKET: re.compile(r"plattr-(prod|staging|uat|preview)-.+")},
    data={"bucket": _only(ThingKind.BUCKET)},
    secret=lambda names: names.storage_keys,
)

AUTH = AuditedFeature(
    name="auth",
    part="Keycloak: realms and clients",
    ask=_ask_keycloak,
    claims=lambda names, _: [("realm", names.realm)],
    in_backend=lambda names, _: [
        Thing(kind=ThingKind.REALM, name=names.realm),
        Thing(kind=ThingKind.CLIENT, scope=names.realm, name=names.client_id),
    ],
    # One call creates a realm together with its owner mark.
    patterns={ThingKind.REALM: None, ThingKind.CLIENT: None},
    data={"realm": _only(ThingKind.REALM)},
)

REDIS = AuditedFeature(
    name="redis",
    part="Redis: users",
    ask=_ask_redis,
    claims=lambda names, _: [("redis", names.redis_user)],
    in_backend=lambda names, _: [Thing(kind=ThingKind.REDIS_USER, name=names.redis_user)],
    patterns={ThingKind.REDIS_USER: re.compile(r"(prod|staging|uat|preview)_.+|.+_pr[0-9]+")},
    # No backend lists a logical database of Redis as a thing.
    data={"redis": _only(ThingKind.REDIS_USER), "redisdb": lambda _: []},
    secret=lambda names: names.redis_secret,
)

SEARCH = AuditedFeature(
    name="search",
    part="OpenSearch: indices",
    ask=lambda question: OpenSearchListing(question.settings).found(question.claims),
    claims=lambda names, _: [("search", names.search_prefix)],
    # The application itself creates its indices.
    patterns={
        ThingKind.INDEX: re.compile(r"((prod|staging|uat|preview)_[a-z0-9_]+|[a-z0-9_]+_pr[0-9]+)(-.*)?"),
    },
    data={"search": _only(ThingKind.INDEX)},
)

AUDITED = (DATABASE, STORAGE, AUTH, REDIS, SEARCH)


def enabled_features(spec: ApplicationSpec) -> tuple[AuditedFeature, ...]:
    """Return the features that a spec enables."""
    return tuple(feature for feature in AUDITED if getattr(spec, feature.name).enabled)
