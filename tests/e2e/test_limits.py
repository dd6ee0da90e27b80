"""The largest that is taken, end to end, and what is said of more."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from clients.resources import DEPLOYMENTS, INGRESSES, PREVIEWS
from plattr.objects import Kind
from plattr.spec import ENV_LIMIT
from tests.e2e.leftovers import leftovers
from tests.e2e.view import EVERYTHING, SMALL, View, conditions


def name_of(length: int) -> str:
    """Return a random name of exactly so many bytes."""
    token = uuid.uuid4().hex[:8]
    return f"{'n' * (length - len(token) - 1)}-{token}"


def variables(size: int) -> list[dict[str, str]]:
    """Return variables whose values have so many bytes together."""
    length = size // 400
    return [{"name": f"TEXT_{number}", "value": f"{number:03}" + "x" * (length - 3)} for number in range(400)]


def apply(view: View, path: Path, name: str, spec: dict[str, Any]) -> str:
    """Apply as a person does and return what went wrong."""
    manifest = {
        "apiVersion": "platform.internal/v1alpha1",
        "kind": "Application",
        "metadata": {"name": name, "namespace": view.namespace},
        "spec": spec,
    }
    path.write_text(yaml.safe_dump(manifest))
    done = view.command("plattr", "apply", str(path), check=False)
    return "" if done.returncode == 0 else done.stderr


async def test_names_at_their_limits_work_through_every_backend(view: View) -> None:
    # prod_{53}_anon, and a host label of 53; the schema at its own limit.
    name = name_of(53)
    schema = f"s{uuid.uuid4().hex[:8]}" + "_" * 49
    spec = EVERYTHING | {"storage": {"enabled": False}, "database": {"enabled": True, "schemaName": schema}}
    await view.apply(name, spec)

    await view.wait_running(name, seconds=120)

    secret = await view.secret(f"{name}-db")
    assert secret is not None
    assert len(f"{secret['DB_USER'].removesuffix('_app')}_anon") == len(secret["DB_SCHEMA"]) == 63
    assert await view.query("select current_schema()", secret["DATABASE_URL"]) == [(f"prod_{schema}",)]
    realm = view.realm(name)
    assert realm is not None
    assert await view.kube.get(INGRESSES, f"{name}-api", view.namespace) is not None
    await view.delete(name)
    await view.wait_gone(name)
    assert await view.schemas_and_roles(f"prod_{schema}") == set()
    assert await leftovers(view, name) == set()


async def test_a_bucket_name_of_63_bytes_works(view: View) -> None:
    # plattr-prod-{name}-{bucket}, with {name}-storage as the longest other name.
    name, bucket = name_of(40), "b" * 10
    await view.apply(
        name, SMALL | {"environment": "production", "storage": {"enabled": True, "buckets": [{"name": bucket}]}}
    )

    await view.wait_running(name, seconds=120)

    config = await view.config_map(f"{name}-storage")
    assert config is not None
    assert len(config[f"S3_BUCKET_{bucket.upper()}"]) == 63
    view.s3().put_object(Bucket=config[f"S3_BUCKET_{bucket.upper()}"], Key="letter", Body=b"x")
    await view.delete(name)
    await view.wait_gone(name)
    assert await leftovers(view, name) == set()


async def test_a_preview_of_the_longest_name_works(view: View) -> None:
    # preview-{name}-pr-{number} is the preview's namespace; {name}-pr{number}-storage its longest name else.
    parent = name_of(41)
    await view.apply(parent, SMALL | {"database": {"enabled": True}})
    await view.wait_running(parent, seconds=120)
    number = 2147483647
    await view.apply("p" * 63, {"applicationRef": parent, "pullRequest": number, "branch": "b"}, Kind.PREVIEW)

    body = await view.wait_running("p" * 63, seconds=120, resource=PREVIEWS)

    namespace = body["status"]["namespace"]
    assert len(namespace) == 63
    secret = await view.secret(f"{parent}-pr{number}-db", namespace)
    assert secret is not None
    assert await view.query("select 1", secret["DATABASE_URL"]) == [(1,)]


async def test_as_many_variables_as_an_object_may_have_are_provisioned(view: View, tmp_path: Path) -> None:
    name = name_of(12)
    # All of one length, so that they fall short of the limit by less than one byte each.
    size = ENV_LIMIT - ENV_LIMIT % 400

    said = apply(view, tmp_path / "large.yaml", name, SMALL | {"envVars": variables(size)})
    await view.wait_running(name, seconds=120)

    deployment = await view.kube.get(DEPLOYMENTS, name, view.namespace)
    history = await view.run_of(name).fetch_history()
    assert said == ""
    assert deployment is not None
    assert len(json.dumps(deployment)) > size
    # No spec travels through Temporal, however large it is.
    assert sum(event.ByteSize() for event in history.events) < 100_000


# The last two are beyond etcd's limit for one request, and beyond the API server's own.
@pytest.mark.parametrize("size", [ENV_LIMIT + 400, 2_500_000, 4_000_000])
async def test_an_object_that_is_too_large_is_refused_clearly_and_leaves_nothing(
    view: View, tmp_path: Path, size: int
) -> None:
    said = apply(view, tmp_path / "huge.yaml", "huge", SMALL | {"envVars": variables(size)})

    assert "Application 'huge'" in said
    assert "envVars values have more than 131072 characters together" in said
    assert "Traceback" not in said
    assert len(said) < 1000
    assert await view.application("huge") is None


async def test_five_hundred_buckets_are_refused_with_their_limit(view: View, tmp_path: Path) -> None:
    buckets = [{"name": f"b{number}"} for number in range(500)]

    said = apply(view, tmp_path / "many.yaml", "many", SMALL | {"storage": {"enabled": True, "buckets": buckets}})

    assert "spec.storage.buckets" in said
    assert "at most 50" in said
    assert len(said) < 1000
    assert await view.application("many") is None


async def test_fifty_buckets_are_made_and_removed(view: View) -> None:
    name = name_of(12)
    buckets = [{"name": f"b{number}", "public": number % 2 == 0} for number in range(50)]
    await view.apply(name, SMALL | {"environment": "production", "storage": {"enabled": True, "buckets": buckets}})

    body = await view.wait_running(name, seconds=180)

    assert conditions(body)["StorageReady"]["status"] == "True"
    assert len(view.buckets(f"plattr-prod-{name}-")) == 50
    await view.delete(name)
    await view.wait_gone(name, seconds=180)
    assert await leftovers(view, name) == set()
