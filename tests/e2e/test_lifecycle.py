"""The whole main job: applied, running, changed, resynced, deleted."""

import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import psycopg
import pytest

from clients.resources import (
    AUTOSCALERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    INGRESSES,
    LEASES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from plattr.claims import Claim
from plattr.features import ClaimKind
from plattr.target import owner_labels
from tests.e2e.view import EVERYTHING, SMALL, View, conditions, random_name

OURS = (SECRETS, CONFIG_MAPS, SERVICE_ACCOUNTS, SERVICES, DEPLOYMENTS, INGRESSES, AUTOSCALERS)


def answer(url: str) -> int:
    """Return the status of an anonymous GET."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310  loopback, from our own endpoints
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def selector(view: View, name: str) -> str:
    return ",".join(f"{key}={value}" for key, value in owner_labels(view.reference(name)).items())


async def versions(view: View, name: str) -> dict[str, str]:
    found = {}
    for resource in (*OURS, LEASES):
        namespace = "plattr-system" if resource is LEASES else view.namespace
        for item in await view.kube.list(resource, namespace, label_selector=selector(view, name)):
            found[f"{resource.kind}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
    application = await view.application(name)
    assert application is not None
    return found | {"Application": application["metadata"]["resourceVersion"]}


@pytest.mark.attack
async def test_everything_is_there_when_the_application_runs(view: View) -> None:
    name = random_name()
    stem = f"prod_{name.replace('-', '_')}"
    await view.apply(name, EVERYTHING)

    # Nothing of ours knows when it is done: only the condition does.
    view.command("kubectl", "wait", "--for=condition=Ready", f"app/{name}", "-n", view.namespace, "--timeout=60s")

    body = await view.application(name)
    assert body is not None
    assert {kind: c["status"] for kind, c in conditions(body).items()} == dict.fromkeys(
        (
            "Ready",
            "DatabaseReady",
            "StorageReady",
            "AuthReady",
            "RedisReady",
            "SearchReady",
            "DeploymentReady",
            "IngressReady",
        ),
        "True",
    )
    assert body["status"]["url"] == f"https://{name}.platform.localhost"
    assert await view.schemas_and_roles(stem) == {stem, f"{stem}_app", f"{stem}_anon"}
    assert view.buckets(f"plattr-prod-{name}-") == {f"plattr-prod-{name}-uploads", f"plattr-prod-{name}-private"}
    assert view.realm(name) is not None
    held = await versions(view, name)
    assert {key for key in held if not key.startswith("Lease/")} == {
        f"Secret/{name}-db",
        f"Secret/{name}-redis",
        f"Secret/{name}-storage-keys",
        *(f"ConfigMap/{name}-{feature}" for feature in ("storage", "auth", "redis", "search")),
        f"ServiceAccount/{name}",
        f"Deployment/{name}",
        f"Service/{name}",
        f"Ingress/{name}",
        f"Ingress/{name}-api",
        f"HorizontalPodAutoscaler/{name}",
        "Application",
    }


async def test_the_database_url_logs_in_and_anon_only_reads(view: View) -> None:
    name, other = random_name(), random_name()
    await view.apply(name, SMALL | {"database": {"enabled": True}})
    await view.apply(other, SMALL | {"database": {"enabled": True}})
    await view.wait_running(name)
    await view.wait_running(other)
    mine, theirs = await view.secret(f"{name}-db"), await view.secret(f"{other}-db")
    assert mine is not None
    assert theirs is not None
    anon = f"{mine['DB_SCHEMA']}_anon"

    await view.query("create table todos (id int)", mine["DATABASE_URL"])
    async with await psycopg.AsyncConnection.connect(mine["DATABASE_URL"], autocommit=True) as connection:
        await connection.execute(f"set role {anon}".encode())
        cursor = await connection.execute("select count(*) from todos")
        rows = await cursor.fetchall()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("insert into todos values (1)")

    assert rows == [(0,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await view.query(f"select * from {mine['DB_SCHEMA']}.todos", theirs["DATABASE_URL"])


async def test_public_objects_are_public_until_the_spec_says_otherwise(view: View) -> None:
    name = random_name()
    await view.apply(name, SMALL | {"storage": EVERYTHING["storage"]})
    await view.wait_running(name)
    public, private = f"plattr-staging-{name}-uploads", f"plattr-staging-{name}-private"
    for bucket in (public, private):
        view.s3().put_object(Bucket=bucket, Key="hello", Body=b"hi")
    url = view.platform.endpoints.s3_url
    before = [answer(f"{url}/{bucket}/hello") for bucket in (public, private)]

    closed = {"enabled": True, "buckets": [{"name": "uploads", "public": False}, {"name": "private"}]}
    await view.apply(name, SMALL | {"storage": closed})
    await view.wait_running(name)

    assert before == [200, 403]
    assert answer(f"{url}/{public}/hello") == 403


async def test_the_realm_serves_discovery_and_refuses_foreign_redirects(view: View) -> None:
    name = random_name()
    await view.apply(name, SMALL | {"auth": {"enabled": True}})
    await view.wait_running(name)
    config = await view.config_map(f"{name}-auth")
    assert config is not None

    def login(redirect: str, client: str = config["AUTH_CLIENT_ID"]) -> int:
        query = urllib.parse.urlencode(
            {
                "client_id": client,
                "redirect_uri": redirect,
                "response_type": "code",
                "scope": "openid",
                "code_challenge": "x" * 43,
                "code_challenge_method": "S256",
            }
        )
        return answer(f"{config['AUTH_ISSUER_URL']}/protocol/openid-connect/auth?{query}")

    assert config["AUTH_CLIENT_ID"] == f"{name}-app"
    assert answer(f"{config['AUTH_ISSUER_URL']}/.well-known/openid-configuration") == 200
    assert login(f"https://{name}.staging.platform.localhost/cb") == 200
    assert login("https://evil.example/cb") == 400


async def test_twenty_resyncs_change_nothing(view: View) -> None:
    name = random_name()
    await view.apply(name, EVERYTHING)
    await view.wait_running(name)
    await view.settle(name)
    before = await versions(view, name)
    password = await view.secret(f"{name}-db")
    policy = view.s3().get_bucket_policy(Bucket=f"plattr-prod-{name}-uploads")["Policy"]

    for _ in range(20):
        await view.resync(name)

    assert await versions(view, name) == before
    assert await view.secret(f"{name}-db") == password
    assert view.s3().get_bucket_policy(Bucket=f"plattr-prod-{name}-uploads")["Policy"] == policy


async def test_changes_of_the_spec_are_followed(view: View) -> None:
    name = random_name()
    await view.apply(name, EVERYTHING)
    await view.wait_running(name)
    operations = [{"op": "add", "path": "/spec/replicas", "value": 7}]
    await view.kube.json_patch(DEPLOYMENTS, name, operations, view.namespace)
    changed: dict[str, Any] = EVERYTHING | {
        "imageRef": "registry.example/my-app:2",
        "domain": f"{name}.example.test",
        "envVars": [{"name": "GREETING", "value": "hello"}],
        "scaling": {"min": 3, "max": 9, "targetCPU": 50},
        "storage": {"enabled": True, "buckets": [*EVERYTHING["storage"]["buckets"], {"name": "more"}]},
    }

    await view.apply(name, changed)
    body = await view.wait_running(name)

    deployment = await view.kube.get(DEPLOYMENTS, name, view.namespace)
    autoscaler = await view.kube.get(AUTOSCALERS, name, view.namespace)
    ingress = await view.kube.get(INGRESSES, name, view.namespace)
    assert deployment is not None
    assert autoscaler is not None
    assert ingress is not None
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert deployment["spec"]["replicas"] == 7
    assert container["image"] == "registry.example/my-app:2"
    assert {"name": "GREETING", "value": "hello"} in container["env"]
    assert (autoscaler["spec"]["minReplicas"], autoscaler["spec"]["maxReplicas"]) == (3, 9)
    assert ingress["spec"]["rules"][0]["host"] == f"{name}.example.test"
    assert body["status"]["url"] == f"https://{name}.example.test"
    assert f"plattr-prod-{name}-more" in view.buckets("plattr-prod-")
    leases = await view.kube.list(LEASES, "plattr-system", label_selector=selector(view, name))
    hosts = {lease["metadata"]["name"] for lease in leases if lease["metadata"]["name"].endswith("-host")}
    assert hosts == {Claim(kind=ClaimKind.HOST, name=f"{name}.example.test").lease_name}


async def test_storage_switched_off_keeps_the_data_and_says_so(view: View) -> None:
    name = random_name()
    await view.apply(name, EVERYTHING)
    await view.wait_running(name)
    view.s3().put_object(Bucket=f"plattr-prod-{name}-private", Key="precious", Body=b"data")

    await view.apply(name, EVERYTHING | {"storage": {"enabled": False}})
    body = await view.wait_running(name)

    assert await view.config_map(f"{name}-storage") is None
    assert view.s3().get_object(Bucket=f"plattr-prod-{name}-private", Key="precious")["Body"].read() == b"data"
    assert conditions(body)["StorageReady"]["reason"] == "DataKept"
    assert f"plattr-prod-{name}-private" in conditions(body)["StorageReady"]["message"]


async def test_deletion_leaves_nothing(view: View) -> None:
    name = random_name()
    stem = f"prod_{name.replace('-', '_')}"
    await view.apply(name, EVERYTHING)
    await view.wait_running(name)
    s3, bucket = view.s3(), f"plattr-prod-{name}-private"
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for number in range(600):
        for _ in range(2):
            s3.put_object(Bucket=bucket, Key=f"object-{number}", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="object-0")
    s3.create_multipart_upload(Bucket=bucket, Key="unfinished")
    secret = await view.secret(f"{name}-db")
    assert secret is not None
    await view.query("create table todos (id int)", secret["DATABASE_URL"])

    await view.delete(name)
    await view.wait_gone(name)
    await view.settle(name)

    assert await view.schemas_and_roles(stem) == set()
    assert view.buckets(f"plattr-prod-{name}-") == set()
    assert view.realm(name) is None
    for resource in OURS:
        assert await view.kube.list(resource, view.namespace, label_selector=selector(view, name)) == []
    assert await view.kube.list(LEASES, "plattr-system", label_selector=selector(view, name)) == []

    view.command("plattr", "cleanup", f"app/{name}", "-n", view.namespace, "--orphan", "--yes")
    await view.settle(name)
    description = await view.run_of(name).describe()
    assert description.status is not None
    assert description.status.name == "COMPLETED"


async def test_delete_and_apply_again_at_once_ends_provisioned(view: View) -> None:
    name = random_name()
    await view.apply(name, SMALL | {"database": {"enabled": True}})
    first = await view.wait_running(name)

    await view.delete(name)
    await view.wait_gone(name)
    await view.apply(name, SMALL | {"database": {"enabled": True}})
    second = await view.wait_running(name)

    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    secret = await view.secret(f"{name}-db")
    assert secret is not None
    assert await view.query("select 1", secret["DATABASE_URL"]) == [(1,)]
