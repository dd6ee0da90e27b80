"""What somebody changed behind Plattr's back is back after one period of ResyncFleet."""

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest

from clients.resources import CONFIG_MAPS, DEPLOYMENTS, INGRESSES, SECRETS
from plattr.fleet import FleetResult, FleetRun
from plattr.steps import TASK_QUEUE
from tests.e2e.view import EVERYTHING, View, random_name
from workflows.resync import ResyncFleet


async def period(view: View) -> FleetResult:
    """Run one period without its spread: every object at once."""
    handle = await view.temporal.start_workflow(
        ResyncFleet.run, FleetRun(spread=timedelta(0)), id=f"fleet-{uuid.uuid4()}", task_queue=TASK_QUEUE
    )
    return await handle.result()


async def ready(view: View) -> str:
    name = random_name()
    await view.apply(name, EVERYTHING)
    await view.wait_running(name)
    await view.settle(name)
    return name


def policy_of(view: View, bucket: str) -> dict[str, Any]:
    return dict(json.loads(view.s3().get_bucket_policy(Bucket=bucket)["Policy"]))


async def test_drift_in_every_backend_is_mended_in_one_period(view: View) -> None:
    name = await ready(view)
    stem, bucket = f"prod_{name.replace('-', '_')}", f"plattr-prod-{name}-uploads"
    secret = await view.secret(f"{name}-db")
    assert secret is not None
    await view.query("create table todos (id int)", secret["DATABASE_URL"])
    policy = policy_of(view, bucket)

    await view.query(f"revoke {stem}_anon from {stem}_app granted by provisioner")
    await view.query(f"revoke select on {stem}.todos from {stem}_anon")
    await view.query(f"alter role {stem}_app nologin")
    loosened = {**policy, "Statement": [{**policy["Statement"][0], "Action": ["s3:GetObject", "s3:PutObject"]}]}
    view.s3().put_bucket_policy(Bucket=bucket, Policy=json.dumps(loosened))
    for feature in ("storage", "auth", "redis", "search"):
        await view.kube.delete(CONFIG_MAPS, f"{name}-{feature}", view.namespace)
    await view.kube.delete(INGRESSES, f"{name}-api", view.namespace)
    image = "/spec/template/spec/containers/0/image"
    operations = [{"op": "replace", "path": image, "value": "registry.example/stranger:1"}]
    await view.kube.json_patch(DEPLOYMENTS, name, operations, view.namespace)

    result = await period(view)
    await view.settle(name)

    assert result.requested >= 1
    granted = f"select pg_has_role('{stem}_app', '{stem}_anon', 'member')"
    readable = f"select has_table_privilege('{stem}_anon', '{stem}.todos', 'select')"
    assert await view.query(granted) == [(True,)]
    # What is taken from anon is no drift: the schema's owner may do so.
    assert await view.query(readable) == [(False,)]
    assert await view.query("select 1", secret["DATABASE_URL"]) == [(1,)]
    assert policy_of(view, bucket) == policy
    for feature in ("storage", "auth", "redis", "search"):
        assert await view.config_map(f"{name}-{feature}") is not None
    assert await view.kube.get(INGRESSES, f"{name}-api", view.namespace) is not None
    deployment = await view.kube.get(DEPLOYMENTS, name, view.namespace)
    assert deployment is not None
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/my-app:1"


async def test_a_deleted_secret_becomes_a_new_password_in_one_period(view: View) -> None:
    name = await ready(view)
    before = await view.secret(f"{name}-db")
    pods = await view.kube.get(DEPLOYMENTS, name, view.namespace)
    await view.kube.delete(SECRETS, f"{name}-db", view.namespace)

    await period(view)
    await view.settle(name)

    after = await view.secret(f"{name}-db")
    assert before is not None
    assert after is not None
    assert after["DB_PASSWORD"] != before["DB_PASSWORD"]
    assert await view.query("select 1", after["DATABASE_URL"]) == [(1,)]
    rolled = await view.kube.get(DEPLOYMENTS, name, view.namespace)
    assert pods is not None
    assert rolled is not None
    assert rolled["metadata"]["generation"] > pods["metadata"]["generation"]


@pytest.mark.parametrize("annotation", ["true", "false"], ids=["paused", "not-paused"])
async def test_a_paused_object_is_left_as_it_is(view: View, annotation: str) -> None:
    name = await ready(view)
    view.command(
        "kubectl", "annotate", "application", name, "-n", view.namespace, f"platform.internal/paused={annotation}"
    )
    await view.kube.delete(CONFIG_MAPS, f"{name}-redis", view.namespace)

    await period(view)
    await view.settle(name)

    assert (await view.config_map(f"{name}-redis") is None) is (annotation == "true")
