"""Each refusal: a terminal condition, an Event, and no call to any backend."""

from typing import Any

import pytest

from clients.resources import EVENTS
from tests.e2e.view import EVERYTHING, SMALL, View, conditions, random_name
from tests.kstatus import kstatus

# The only activities of a run that is refused before any backend is called.
HARMLESS = {"claim_object", "write_status"}


async def activities_of(view: View, name: str) -> set[str]:
    history = await view.run_of(name).fetch_history()
    return {
        event.activity_task_scheduled_event_attributes.activity_type.name
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    }


async def warnings(view: View, name: str) -> set[str]:
    events = await view.kube.list(EVENTS, view.namespace)
    return {event["reason"] for event in events if event["involvedObject"]["name"] == name}


@pytest.mark.parametrize(
    ("update", "field"),
    [
        ({"domain": "platform.localhost"}, "spec.domain"),
        ({"domain": "auth.platform.localhost"}, "spec.domain"),
    ],
    ids=["base-domain", "auth-domain"],
)
async def test_what_only_the_models_refuse_is_said_and_touches_nothing(
    view: View, update: dict[str, Any], field: str
) -> None:
    name = random_name()
    await view.apply(name, SMALL | update)

    body = await view.wait_failed(name)
    await view.settle(name)

    ready, stalled = conditions(body)["Ready"], conditions(body)["Stalled"]
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSpec")
    assert field in ready["message"]
    assert await activities_of(view, name) <= HARMLESS
    assert "InvalidSpec" in await warnings(view, name)
    description = await view.run_of(name).describe()
    assert description.status is not None
    assert description.status.name == "FAILED"


@pytest.mark.attack
@pytest.mark.parametrize(
    ("first", "second", "condition"),
    [
        (
            {"database": {"enabled": True, "schemaName": "shared_one"}},
            {"database": {"enabled": True, "schemaName": "shared_one"}},
            "DatabaseReady",
        ),
        ({"domain": "taken.example.test"}, {"domain": "taken.example.test"}, "IngressReady"),
    ],
    ids=["schema", "domain"],
)
async def test_a_name_that_another_application_holds_is_refused(
    view: View, first: dict[str, Any], second: dict[str, Any], condition: str
) -> None:
    holder, late = random_name(), random_name()
    await view.apply(holder, SMALL | first)
    await view.wait_running(holder)

    await view.apply(late, SMALL | second)
    body = await view.wait_failed(late)
    await view.settle(late)

    refused = conditions(body)[condition]
    assert refused["reason"] == "OwnedElsewhere"
    assert holder in refused["message"]
    assert late in refused["message"]
    assert await activities_of(view, late) <= HARMLESS
    assert "OwnedElsewhere" in await warnings(view, late)
    # Whoever waits for it, waits in vain, and is told.
    wait = ("kubectl", "wait", f"app/{late}", "-n", view.namespace, "--timeout=1s")
    assert view.command(*wait, "--for=condition=Ready", check=False).returncode != 0
    assert view.command(*wait, "--for=condition=Stalled").returncode == 0
    assert kstatus(body) == "Failed"


async def test_the_api_server_names_the_field_that_the_crd_refuses(view: View) -> None:
    manifest = f"""
apiVersion: platform.internal/v1alpha1
kind: Application
metadata: {{name: bad, namespace: {view.namespace}}}
spec: {{repository: r, framework: docker, environment: moon}}
"""
    path = view.platform.folders.state / "bad.yaml"
    path.write_text(manifest)

    done = view.command("plattr", "apply", str(path), check=False)

    path.unlink()
    assert done.returncode != 0
    assert "spec.environment" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_refused_object_is_deleted_without_touching_the_holder(view: View) -> None:
    holder, late = random_name(), random_name()
    spec = EVERYTHING | {"domain": f"{holder}.example.test", "auth": {"enabled": False}}
    await view.apply(holder, spec)
    await view.wait_running(holder)
    before = await view.secret(f"{holder}-db")
    await view.apply(late, spec)
    await view.wait_failed(late)

    await view.delete(late)
    await view.wait_gone(late)

    assert await view.secret(f"{holder}-db") == before
    assert len(view.buckets(f"plattr-prod-{holder}-")) == 2


@pytest.mark.attack
async def test_who_was_refused_for_a_host_runs_once_its_holder_is_gone(view: View) -> None:
    holder, refused, domain = random_name(), random_name(), f"{random_name()}.example.test"
    await view.apply(holder, SMALL | {"domain": domain})
    await view.wait_running(holder)
    await view.apply(refused, SMALL | {"domain": domain})
    await view.wait_failed(refused)
    await view.settle(refused)

    await view.delete(holder)

    await view.wait_running(refused)
