"""One audit: the objects, then every backend, then the objects again, and what does not fit together."""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, closing

from pydantic import Field

from cli.auditing.comparison import compare
from cli.auditing.inventory import Finding, Found, Problem, Subject, Thing, ThingKind
from cli.auditing.keycloak import KeycloakListing
from cli.auditing.kubernetes import KubernetesListing
from cli.auditing.opensearch import OpenSearchListing
from cli.auditing.postgres import PostgresListing
from cli.auditing.redis import RedisListing
from cli.auditing.s3 import S3Listing
from plattr.objects import FrozenModel
from plattr.settings import Settings


class Report(FrozenModel):
    """What an audit saw and what is wrong with it."""

    findings: tuple[Finding, ...]
    objects: int
    settled: int
    """How many of the objects were judged: those that were Running all the while."""
    counts: dict[ThingKind, int]
    """How many things of each kind there are, whoever's they are."""
    elsewhere: dict[str, int] = Field(default_factory=dict)
    """How many of them other clusters have, by cluster: they are not judged here, and never to be deleted from here."""


def audit(environment: Mapping[str, str]) -> Report:
    """Ask every backend what exists and compare it with the objects; writes nothing anywhere.

    Args:
        environment: the worker's settings by their variables, with KUBECONFIG and the credentials of AWS.

    Raises:
        MissingSetting: a setting is missing or bad.
        AuditFailed: something cannot be asked.
    """
    settings = Settings.from_mapping(environment)
    with ExitStack() as stack:
        kubernetes = stack.enter_context(closing(KubernetesListing(environment.get("KUBECONFIG"))))
        s3 = stack.enter_context(closing(S3Listing(settings, environment)))
        keycloak = stack.enter_context(closing(KeycloakListing(settings)))
        redis = stack.enter_context(closing(RedisListing(settings)))
        postgres = PostgresListing(settings)

        users = redis.found()
        home = kubernetes.home(settings)
        before = kubernetes.subjects(settings, has_redis_users=users is not None)
        in_kubernetes = kubernetes.found(settings.lease_namespace)
        claims = [each for each in in_kubernetes if each.thing.kind is ThingKind.CLAIM]
        found = [
            *postgres.found(),
            *s3.found(),
            *keycloak.found(),
            *(users or ()),
            *kubernetes.left_certificates(settings.cluster_issuer),
            *OpenSearchListing(settings).found(claims),
            *in_kubernetes,
        ]
        rights = postgres.findings()
        logins = _useless_logins(before, found, kubernetes, postgres)
        after = kubernetes.subjects(settings, has_redis_users=users is not None)

    findings = [*compare(before, found, after, home), *rights]
    findings += [finding for finding in logins if _is_same(before, after, finding.owner)]
    kinds = [each.thing.kind for each in found]
    return Report(
        findings=tuple(findings),
        objects=len(after),
        settled=sum(subject.is_settled and _is_same(before, after, key) for key, subject in after.items()),
        counts={kind: kinds.count(kind) for kind in ThingKind},
        elsewhere=Counter(each.cluster for each in found if each.cluster not in (None, home.cluster)),
    )


def _useless_logins(
    subjects: Mapping[str, Subject], found: list[Found], kubernetes: KubernetesListing, postgres: PostgresListing
) -> list[Finding]:
    existing = {each.thing for each in found}
    findings = []
    for subject in subjects.values():
        things = subject.expected or frozenset()
        for secret in (thing for thing in things if _is_of_database(thing) and thing in existing):
            role, schema = _login_of(things)
            cause = postgres.login_failure(kubernetes.secret(secret.scope, secret.name), role, schema)
            if cause is not None:
                findings.append(Finding(problem=Problem.LOGIN, thing=secret, owner=subject.key, detail=cause))
    return findings


def _login_of(things: frozenset[Thing]) -> tuple[str, str]:
    [schema] = (thing.name for thing in things if thing.kind is ThingKind.SCHEMA)
    [role] = (thing.name for thing in things if thing.kind is ThingKind.ROLE and thing.name.endswith("_app"))
    return role, schema


def _is_of_database(thing: Thing) -> bool:
    return thing.kind is ThingKind.SECRET and thing.name.endswith("-db")


def _is_same(before: Mapping[str, Subject], after: Mapping[str, Subject], key: str) -> bool:
    some, other = before.get(key), after.get(key)
    if some is None or other is None or not other.is_settled:
        return False
    return (some.uid, some.generation) == (other.uid, other.generation)
