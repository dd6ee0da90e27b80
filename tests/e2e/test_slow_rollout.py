"""A rollout that does not come says why, long before it is given up."""

import time
from datetime import UTC, datetime

import pytest

from clients.resources import EVENTS, PODS, Json
from tests.e2e.view import SMALL, View, conditions, random_name
from tests.kstatus import kstatus


async def say_as_the_kubelet_does(view: View, pod: Json, message: str) -> None:
    """Write the Event of a failed probe; simulated nodes ask nothing."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    metadata = pod["metadata"]
    involved = {"apiVersion": "v1", "kind": "Pod", "namespace": metadata["namespace"], "name": metadata["name"]}
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{random_name()}", "namespace": view.namespace},
        "involvedObject": involved | {"uid": metadata["uid"], "fieldPath": "spec.containers{app}"},
        "type": "Warning",
        "reason": "Unhealthy",
        "message": message,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": "kubelet"},
    }
    await view.kube.create(EVENTS, body, view.namespace)


@pytest.mark.attack
async def test_a_wrong_health_path_is_in_the_condition_while_the_run_still_waits(view: View) -> None:
    name, begun = random_name(), time.monotonic()
    spec = SMALL | {"framework": "rails", "imageRef": "registry.example/shop:sim-unready", "redis": {"enabled": True}}
    await view.apply(name, spec)

    first = await view.wait(name, lambda body: "DeploymentReady" in conditions(body), seconds=40)
    (pod, *_) = await view.kube.list(PODS, view.namespace, label_selector=f"app.kubernetes.io/name={name}")
    await say_as_the_kubelet_does(view, pod, "Startup probe failed: HTTP probe failed with statuscode: 404")
    second = await view.wait(
        name, lambda body: conditions(body)["DeploymentReady"]["reason"] == "Unhealthy", seconds=40
    )

    said = conditions(first)
    assert (said["RedisReady"]["status"], said["IngressReady"]["status"]) == ("True", "True")
    assert (said["DeploymentReady"]["status"], said["DeploymentReady"]["reason"]) == ("False", "RolloutInProgress")
    assert (said["Ready"]["status"], first["status"]["phase"]) == ("False", "Provisioning")
    assert "running, not ready: GET /up on port 3000 answered 404" in conditions(second)["DeploymentReady"]["message"]
    assert kstatus(second) == "InProgress"
    # The progress deadline, after which the run gives up, is five minutes.
    assert time.monotonic() - begun < 90

    await view.apply(name, spec | {"imageRef": "registry.example/shop:2"})
    await view.wait_running(name)
