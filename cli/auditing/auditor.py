"""One audit: read the objects, then every backend, then the objects again, and report what does not match."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

from pydantic import Field

from cli.auditing.comparison import compare
from cli.auditing.features import AUDITED, DATABASE, REDIS, AuditedFeature, Question
from cli.auditing.inventory import AuditedObject, AuditFailed, AuditProblem, Finding, Found, Thing, ThingKind
from cli.auditing.kubernetes import KubernetesListing
from cli.auditing.postgres import PostgresListing
from plattr.objects import FrozenModel
from plattr.settings import Settings

Answer = TypeVar("Answer")


class Unasked(FrozenModel):
    """A part of the platform that could not be asked. The report says nothing about it."""

    part: str
    """The backend, and which part of it was not checked."""
    cause: str


class AuditReport(FrozenModel):
    """What an audit saw, and what is wrong."""

    findings: tuple[Finding, ...]
    objects: int
    settled: int
    """How many objects were judged: those that were Running all the time."""
    counts: dict[ThingKind, int]
    """How many things of each kind exist, no matter who owns them."""
    elsewhere: dict[str, int] = Field(default_factory=dict)
    """How many things belong to each other cluster. They are not judged here, and must never be deleted from here."""
    unasked: tuple[Unasked, ...] = ()
    """The parts that this report says nothing about."""


def audit(environment: Mapping[str, str]) -> AuditReport:
    """Ask every backend what exists and compare it with the objects. Writes nothing anywhere.

    Args:
        environment: the worker's settings by their variables, with KUBECONFIG and the credentials of AWS.

    Raises:
        MissingSetting: a setting is missing or bad.
        AuditFailed: a backend cannot be asked.
    """
    report = audit_what_answers(environment)
    if report.unasked:
        raise AuditFailed("; ".join(each.cause for each in report.unasked))
    return report


def audit_what_answers(environment: Mapping[str, str]) -> AuditReport:
    """Do the same as `audit` with the backends that answer. The report names those that do not.

    Raises:
        MissingSetting: a setting is missing or bad.
        AuditFailed: Kubernetes cannot be asked, and without it no object is known.
    """
    settings, answers = Settings.from_mapping(environment), _Answers()
    question = Question(settings=settings, environment=environment)
    with closing(KubernetesListing(environment.get("KUBECONFIG"))) as kubernetes:
        # Redis comes first: what an object must have depends on whether the platform has Redis users.
        users = answers.to(REDIS, question)
        has_users = users is not None or REDIS.part in answers.missing
        home = kubernetes.home(settings)
        before = kubernetes.subjects(settings, has_redis_users=has_users)
        in_kubernetes = kubernetes.found(settings.lease_namespace)
        question = replace(question, claims=[each for each in in_kubernetes if each.thing.kind is ThingKind.CLAIM])
        found = [*(users or ()), *in_kubernetes, *kubernetes.left_certificates(settings.cluster_issuer)]
        for feature in AUDITED:
            if feature is not REDIS:
                found += answers.to(feature, question) or ()
        rights, logins = list[Finding](), list[Finding]()
        if DATABASE.part not in answers.missing:
            postgres = PostgresListing(settings)
            rights = answers.of(DATABASE.part, postgres.findings) or []
            logins = answers.of(DATABASE.part, lambda: _useless_logins(before, found, kubernetes, postgres)) or []
        after = kubernetes.subjects(settings, has_redis_users=has_users)

    findings = [finding for finding in compare(before, found, after, home) if not answers.is_unknown(finding)]
    findings += rights
    findings += [finding for finding in logins if _is_same(before, after, finding.owner)]
    kinds = [each.thing.kind for each in found]
    return AuditReport(
        findings=tuple(findings),
        objects=len(after),
        settled=sum(subject.is_settled and _is_same(before, after, key) for key, subject in after.items()),
        counts={kind: kinds.count(kind) for kind in ThingKind},
        elsewhere=Counter(each.cluster for each in found if each.cluster not in (None, home.cluster)),
        unasked=tuple(Unasked(part=part, cause=cause) for part, cause in answers.missing.items()),
    )


class _Answers:
    """The answers of the backends, and which backends did not answer."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}

    def to(self, feature: AuditedFeature, question: Question) -> list[Found] | None:
        """Return what the feature's backend has; None if there is no backend, or it does not answer."""
        return self.of(feature.part, lambda: feature.ask(question))

    def of(self, part: str, ask: Callable[[], Answer]) -> Answer | None:
        """Return what a backend answers; None if it does not answer, and record why."""
        try:
            return ask()
        except AuditFailed as error:
            self.missing[part] = str(error)
            return None

    def is_unknown(self, finding: Finding) -> bool:
        """Tell whether something is missing only because its backend was not asked."""
        thing = finding.thing
        if finding.problem is not AuditProblem.MISSING:
            return False
        # Only Redis tells whether it has users. Such a Secret exists only if it does.
        is_users = thing.kind is ThingKind.SECRET and thing.name.endswith("-redis") and REDIS.part in self.missing
        return is_users or any(thing.kind in feature.patterns for feature in AUDITED if feature.part in self.missing)


def _useless_logins(
    subjects: Mapping[str, AuditedObject], found: list[Found], kubernetes: KubernetesListing, postgres: PostgresListing
) -> list[Finding]:
    existing = {each.thing for each in found}
    findings = []
    for subject in subjects.values():
        things = subject.expected or frozenset()
        for secret in (thing for thing in things if _is_of_database(thing) and thing in existing):
            role, schema = _login_of(things)
            cause = postgres.login_failure(kubernetes.secret(secret.scope, secret.name), role, schema)
            if cause is not None:
                findings.append(Finding(problem=AuditProblem.LOGIN, thing=secret, owner=subject.key, detail=cause))
    return findings


def _login_of(things: frozenset[Thing]) -> tuple[str, str]:
    [schema] = (thing.name for thing in things if thing.kind is ThingKind.SCHEMA)
    [role] = (thing.name for thing in things if thing.kind is ThingKind.ROLE and thing.name.endswith("_app"))
    return role, schema


def _is_of_database(thing: Thing) -> bool:
    return thing.kind is ThingKind.SECRET and thing.name.endswith("-db")


def _is_same(before: Mapping[str, AuditedObject], after: Mapping[str, AuditedObject], key: str) -> bool:
    some, other = before.get(key), after.get(key)
    return some is not None and other is not None and other.is_settled and other.is_same(some)
