"""The audit of a real platform: it finds what was put there, says so, and leaves it as it is."""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import httpx
import psycopg
import pytest
from redis import Redis

from cli.auditing.auditor import audit, audit_what_answers
from cli.auditing.inventory import AuditFailed, AuditProblem, Finding, Thing, ThingKind
from cli.auditing.kubernetes import KubernetesListing
from clients.kube import KubeClient
from clients.resources import INGRESSES, LEASES, SECRETS, Json
from plattr.objects import ObjectReference, Owner
from plattr.steps import ClaimInput
from plattr.target import owner_annotations, owner_labels
from stack.platform import Platform
from tests.certificates import tls_secret
from tests.e2e.view import s3_of
from tests.fix_kubernetes import Cluster, application_spec, random_name

GONE = ObjectReference(namespace="gone", name=f"app-{uuid.uuid4().hex[:6]}")
STEM = f"prod_{GONE.name.replace('-', '_')}"
BUCKET = f"plattr-prod-{GONE.name}-files"
CLAIM = Thing(kind=ThingKind.CLAIM, scope="realm", name=GONE.name)


def of_the_test(findings: tuple[Finding, ...]) -> set[tuple[AuditProblem, Thing]]:
    names = (GONE.name, STEM)
    return {(f.problem, f.thing) for f in findings if any(name in f.thing.name for name in names)}


@pytest.fixture
def leftovers(redis_platform: Platform, opensearch_platform: Platform) -> Iterator[None]:
    """A schema, a role, a realm, a bucket and a user of an owner that is gone; a bucket and an index of nobody."""
    platform = redis_platform
    with ExitStack() as stack:
        _leave_database(platform, stack)
        _leave_bucket(platform, stack)
        _leave_realm(platform, stack)
        _leave_user(platform, stack)
        _leave_index(platform, stack)
        yield


@pytest.fixture
async def claim(platform: Platform) -> Any:
    kube = await KubeClient.connect(str(platform.endpoints.kubeconfig_admin))
    owner = Owner(reference=GONE, uid="u1")
    lease = {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {
            "name": f"{GONE.name}-realm",
            "namespace": "plattr-system",
            "labels": owner_labels(GONE) | {"platform.internal/claim-kind": "realm"},
            "annotations": owner_annotations(owner) | {"platform.internal/claimed-name": GONE.name},
        },
        "spec": {"holderIdentity": GONE.key},
    }
    await kube.create(LEASES, lease, "plattr-system")
    yield
    await kube.delete(LEASES, f"{GONE.name}-realm", "plattr-system")
    await kube.close()


def test_leftovers_are_found_in_every_backend_and_left_alone(platform: Platform, leftovers: None, claim: None) -> None:
    first = of_the_test(audit(platform.environment("cli")).findings)
    second = of_the_test(audit(platform.environment("cli")).findings)

    assert first == {
        (AuditProblem.ORPHAN, Thing(kind=ThingKind.SCHEMA, name=STEM)),
        (AuditProblem.ADMINS, Thing(kind=ThingKind.SQL_OBJECT, scope="plattr", name=f"schema {STEM}")),
        (AuditProblem.ORPHAN, Thing(kind=ThingKind.ROLE, name=f"{STEM}_app")),
        (AuditProblem.UNMARKED, Thing(kind=ThingKind.ROLE, name=f"{STEM}_anon")),
        (AuditProblem.ORPHAN, Thing(kind=ThingKind.BUCKET, name=BUCKET)),
        (AuditProblem.UNMARKED, Thing(kind=ThingKind.BUCKET, name=f"{BUCKET}-2")),
        (AuditProblem.ORPHAN, Thing(kind=ThingKind.REALM, name=GONE.name)),
        (AuditProblem.ORPHAN, Thing(kind=ThingKind.REDIS_USER, name=STEM)),
        (AuditProblem.UNMARKED, Thing(kind=ThingKind.REDIS_USER, name=f"{STEM}2")),
        (AuditProblem.UNMARKED, Thing(kind=ThingKind.INDEX, name=f"{STEM}-things")),
        (AuditProblem.ORPHAN, CLAIM),
    }
    assert second == first


@pytest.mark.attack
async def test_the_certificate_of_an_ingress_that_is_gone_is_found_and_one_in_use_is_not(
    platform: Platform, cluster: Cluster, namespace: str
) -> None:
    left, used = random_name(), random_name()
    for name in (left, used):
        await cluster.admin.create(SECRETS, tls_secret(f"{name}-tls", "x.example.test"), namespace)
    await cluster.admin.create(SECRETS, tls_secret("own-tls", "x.example.test", issuer="another"), namespace)
    ingress: Json = {
        "apiVersion": INGRESSES.api_version,
        "kind": INGRESSES.kind,
        "metadata": {"name": "theirs"},
        "spec": {
            "defaultBackend": {"service": {"name": "s", "port": {"number": 80}}},
            "tls": [{"hosts": ["x.example.test"], "secretName": f"{used}-tls"}],
        },
    }
    await cluster.admin.create(INGRESSES, ingress, namespace)

    report = await asyncio.to_thread(audit, platform.environment("cli"))

    found = [finding for finding in report.findings if finding.thing.scope == namespace]
    assert [(finding.problem, finding.thing.name, finding.owner) for finding in found] == [
        (AuditProblem.ORPHAN, f"{left}-tls", f"{namespace}/Application/{left}")
    ]


def test_the_command_shows_what_it_finds_and_exits_with_1(platform: Platform, leftovers: None) -> None:
    done = _command(platform.environment("cli"))

    assert done.returncode == 1, done.stderr
    assert f"schema {STEM}" in done.stdout
    assert GONE.key in done.stdout


def test_a_backend_that_cannot_be_asked_ends_the_audit_with_2_and_one_line(platform: Platform) -> None:
    environment = platform.environment("cli") | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}

    done = _command(environment)

    assert done.returncode == 2
    assert done.stderr.startswith("cannot list the buckets of S3")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"DB_ADMIN_URL": "postgresql://nobody:no@127.0.0.1:9/plattr"},
        {"KEYCLOAK_CLIENT_SECRET": "no"},
        {"KUBECONFIG": "/nowhere"},
        {"REDIS_ADMIN_URL": "redis://127.0.0.1:9"},
        {"OPENSEARCH_ADMIN_URL": "http://127.0.0.1:9"},
    ],
    ids=["postgres", "keycloak", "kubernetes", "redis", "opensearch"],
)
def test_no_backend_is_left_out_silently(platform: Platform, changes: dict[str, str]) -> None:
    with pytest.raises(AuditFailed):
        audit(platform.environment("cli") | changes)


@pytest.mark.attack
async def test_backends_that_are_away_are_said_and_the_others_audited(
    platform: Platform, cluster: Cluster, namespace: str, claim: None
) -> None:
    features: Json = {name: {"enabled": True} for name in ("database", "auth", "redis", "search")}
    features["storage"] = {"enabled": True, "buckets": [{"name": "files"}]}
    running = await cluster.apply(namespace, random_name(), application_spec(**features))
    await cluster.claims.claim_object(ClaimInput(reference=running.reference))
    await cluster.settle(running)
    away = {
        "DB_ADMIN_URL": "postgresql://nobody:no@127.0.0.1:9/plattr",
        "KEYCLOAK_CLIENT_SECRET": "no",
        "REDIS_ADMIN_URL": "redis://127.0.0.1:9",
        "OPENSEARCH_ADMIN_URL": "http://127.0.0.1:9",
    }
    environment = platform.environment("cli") | away

    report = await asyncio.to_thread(audit_what_answers, environment)
    done = await asyncio.to_thread(_command, environment)

    assert {each.part.partition(":")[0] for each in report.unasked} == {"PostgreSQL", "Keycloak", "Redis", "OpenSearch"}
    assert (AuditProblem.ORPHAN, CLAIM) in of_the_test(report.findings)
    own = [f for f in report.findings if f.owner == running.reference.key and f.problem is AuditProblem.MISSING]
    assert {f.thing.kind for f in own} >= {ThingKind.BUCKET, ThingKind.DEPLOYMENT}
    assert not {f.thing.kind for f in own} & {ThingKind.SCHEMA, ThingKind.ROLE, ThingKind.REALM, ThingKind.REDIS_USER}
    assert done.returncode == 2
    assert done.stderr.count("; not looked at: ") == 4
    assert GONE.name in done.stdout


async def test_a_preview_is_judged_by_what_it_was_built_from(
    platform: Platform, cluster: Cluster, namespace: str
) -> None:
    parent = (await cluster.apply(namespace, random_name())).reference
    preview = await cluster.preview(namespace, random_name(), parent.name)
    await cluster.claims.claim_object(ClaimInput(reference=preview.reference))
    await cluster.settle(preview)
    await cluster.apply(namespace, parent.name, application_spec(redis={"enabled": True}))

    def expected() -> frozenset[Thing] | None:
        with closing(KubernetesListing(str(platform.endpoints.kubeconfig_admin))) as listing:
            return listing.subjects(cluster.settings)[preview.reference.key].expected

    changed = await asyncio.to_thread(expected)
    await cluster.delete(parent)
    gone = await asyncio.to_thread(expected)

    assert changed is not None
    assert [thing for thing in changed if thing.kind is ThingKind.CONFIG_MAP] == []
    assert gone == changed


def test_the_auditor_shares_no_code_with_what_it_audits() -> None:
    script = (
        "import sys, cli.audit;"
        "print([m for m in sys.modules if m.split('.')[0] in ('activities', 'workflows', 'worker', 'watcher')])"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def _command(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", "audit"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def _leave_database(platform: Platform, stack: ExitStack) -> None:
    record = f'plattr:{{"owner": "{GONE.key}", "uid": "u1"}}'
    connection = stack.enter_context(psycopg.connect(platform.endpoints.database_admin_url, autocommit=True))
    for statement, undo in (
        (f"create role {STEM}_app nologin; comment on role {STEM}_app is '{record}'", f"drop role {STEM}_app"),
        (f"create role {STEM}_anon nologin", f"drop role {STEM}_anon"),
        (f"create schema {STEM}; comment on schema {STEM} is '{record}'", f"drop schema {STEM}"),
    ):
        connection.execute(statement.encode())
        stack.callback(connection.execute, undo.encode())


def _leave_bucket(platform: Platform, stack: ExitStack) -> None:
    s3 = s3_of(platform)
    stack.callback(s3.close)
    for name in (BUCKET, f"{BUCKET}-2"):
        s3.create_bucket(Bucket=name)
        stack.callback(s3.delete_bucket, Bucket=name)
    s3.put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": [{"Key": "plattr-owner", "Value": GONE.key}]})


def _leave_index(platform: Platform, stack: ExitStack) -> None:
    index = f"{platform.endpoints.opensearch_url}/{STEM}-things"
    httpx.put(index, timeout=30).raise_for_status()
    stack.callback(httpx.delete, index, timeout=30)


def _leave_user(platform: Platform, stack: ExitStack) -> None:
    redis = stack.enter_context(Redis.from_url(platform.endpoints.redis_admin_url))
    record = f'plattr:{{"owner":"{GONE.key}","uid":"u1"}}'
    for name, rules in ((STEM, ("on", f"~{STEM}:*", f"&{record}")), (f"{STEM}2", ("on",))):
        redis.execute_command("ACL", "SETUSER", name, "reset", *rules)
        stack.callback(redis.execute_command, "ACL", "DELUSER", name)


def _leave_realm(platform: Platform, stack: ExitStack) -> None:
    endpoints = platform.endpoints
    # As Plattr's own account: what it made is what it may see.
    form = {
        "grant_type": "client_credentials",
        "client_id": endpoints.keycloak_client_id,
        "client_secret": endpoints.keycloak_client_secret,
    }

    def bearer() -> dict[str, str]:
        answer = httpx.post(f"{endpoints.keycloak_url}/realms/master/protocol/openid-connect/token", data=form)
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    realms = f"{endpoints.keycloak_url}/admin/realms"
    body = {"realm": GONE.name, "attributes": {"plattr.owner": GONE.key}}
    httpx.post(realms, json=body, headers=bearer(), timeout=30).raise_for_status()
    stack.callback(lambda: httpx.delete(f"{realms}/{GONE.name}", headers=bearer(), timeout=30).raise_for_status())
