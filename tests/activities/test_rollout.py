"""Rollouts on a real API server, with simulated pods that fail on demand."""

import asyncio
import time
from datetime import UTC, datetime

import pytest
from temporalio.testing import ActivityEnvironment

from activities import rollout
from clients.resources import DEPLOYMENTS, EVENTS, PODS, Json
from plattr.errors import Conflict, OwnedElsewhere, RolloutFailed, reason_of
from plattr.features import ConditionType
from plattr.steps import StepInput
from plattr.target import OWNER_ANNOTATION
from tests.fix_kubernetes import random_name
from tests.fix_workload import Team
from tests.inputs import rollout_of


def image(outcome: str) -> str:
    return f"registry.test/shop:sim-{outcome}"


async def applied(team: Team, image_ref: str) -> StepInput:
    step = await team.create(imageRef=image_ref)
    await team.workload.reconcile_workload(step)
    return step


async def patch(team: Team, step: StepInput, path: str, value: object) -> None:
    operations = [{"op": "add", "path": path, "value": value}]
    await team.kube.json_patch(DEPLOYMENTS, step.reference.name, operations, team.namespace)


async def test_an_available_deployment_is_found_at_once(team: Team) -> None:
    step = await applied(team, "registry.test/shop:1")

    result = await team.rollout.await_rollout(rollout_of(step))

    assert result.is_done
    (update,) = result.updates
    assert (update.type, update.status, update.reason) == (ConditionType.DEPLOYMENT, "True", "Available")


@pytest.mark.parametrize(
    ("outcome", "cause", "names"),
    [("imagepull", "ImagePullBackOff", image("imagepull")), ("crashloop", "CrashLoopBackOff", "exit code 1")],
    ids=["image", "crash"],
)
async def test_pods_that_cannot_start_say_why_after_a_while(team: Team, outcome: str, cause: str, names: str) -> None:
    step = await applied(team, image(outcome))
    begun = time.monotonic()

    with pytest.raises(RolloutFailed) as failure:
        await team.rollout.await_rollout(rollout_of(step))

    assert time.monotonic() - begun >= rollout.PERSISTED_SECONDS
    assert reason_of(failure.value) == cause
    assert f"container app of pod {step.reference.name}-" in str(failure.value)
    assert names in str(failure.value)


async def test_trouble_that_passes_is_no_failure(team: Team) -> None:
    step = await applied(team, image("crashloop"))
    waiting = asyncio.create_task(team.rollout.await_rollout(rollout_of(step)))
    await asyncio.sleep(1.5)
    (pod,) = await team.kube.list(PODS, team.namespace, label_selector=f"app.kubernetes.io/name={step.reference.name}")
    assert not waiting.done()

    # The pod's annotation wins over its image's tag.
    heal = [{"op": "add", "path": "/metadata/annotations/sim~1outcome", "value": "ready"}]
    await team.kube.json_patch(PODS, pod["metadata"]["name"], heal, team.namespace)

    assert (await waiting).is_done


async def test_broken_pods_of_the_old_replica_set_do_not_count(team: Team) -> None:
    step = await applied(team, image("crashloop"))
    # Longer than a trouble has to persist: the old pods crash on all this time.
    await patch(team, step, "/spec/template/metadata/annotations/sim~1ready-delay", "5s")
    begun = time.monotonic()

    step = await team.change(step, imageRef="registry.test/shop:2")
    await team.workload.reconcile_workload(step)
    result = await team.rollout.await_rollout(rollout_of(step))

    assert result.is_done
    assert time.monotonic() - begun >= 5


async def test_old_pods_that_still_serve_do_not_make_a_broken_rollout_a_success(team: Team) -> None:
    step = await applied(team, "registry.test/shop:1")
    await team.rollout.await_rollout(rollout_of(step))

    step = await team.change(step, imageRef=image("imagepull"))
    await team.workload.reconcile_workload(step)

    with pytest.raises(RolloutFailed):
        await team.rollout.await_rollout(rollout_of(step))
    status = (await team.get(DEPLOYMENTS, step.reference.name))["status"]
    assert status["availableReplicas"] == 1


async def test_a_slow_rollout_says_what_it_waits_for(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "WAIT_SECONDS", 1.0)
    step = await applied(team, image("unready"))

    result = await team.rollout.await_rollout(rollout_of(step))

    assert not result.is_done
    (update,) = result.updates
    assert result.waiting_for == update.message == "0 of 1 replicas to be available"
    assert (update.type, update.status, update.reason) == (ConditionType.DEPLOYMENT, "False", "RolloutInProgress")


async def test_a_rollout_while_the_old_pods_serve_is_not_known_to_be_bad(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "WAIT_SECONDS", 1.0)
    step = await applied(team, "registry.test/shop:1")
    await team.rollout.await_rollout(rollout_of(step))
    step = await team.change(step, imageRef=image("unready"))
    await team.workload.reconcile_workload(step)

    (update,) = (await team.rollout.await_rollout(rollout_of(step))).updates

    assert (update.status, update.reason) == ("Unknown", "RolloutInProgress")


async def unhealthy_event(team: Team, pod: Json, message: str) -> None:
    """Write what the kubelet says of a failed probe; simulated nodes ask nothing."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    name = pod["metadata"]["name"]
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{random_name()}", "namespace": team.namespace},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": name,
            "namespace": team.namespace,
            "uid": pod["metadata"]["uid"],
            "fieldPath": "spec.containers{app}",
        },
        "type": "Warning",
        "reason": "Unhealthy",
        "message": message,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "source": {"component": "kubelet"},
    }
    await team.kube.create(EVENTS, body, team.namespace)


@pytest.mark.attack
async def test_a_wrong_health_path_is_said_within_seconds(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "SAY_AFTER_SECONDS", 1.0)
    step = await applied(team, image("unready"))
    first = await team.rollout.await_rollout(rollout_of(step))
    (said,) = first.updates
    (pod,) = await team.kube.list(PODS, team.namespace, label_selector=f"app.kubernetes.io/name={step.reference.name}")
    await unhealthy_event(team, pod, "Startup probe failed: HTTP probe failed with statuscode: 404")
    begun = time.monotonic()

    again = await team.rollout.await_rollout(rollout_of(step, said))

    (update,) = again.updates
    assert time.monotonic() - begun < rollout.WAIT_SECONDS / 2
    assert (update.status, update.reason) == ("False", "Unhealthy")
    assert "is running, not ready: GET /healthz on port 3000 answered 404" in update.message

    await patch(team, step, "/spec/progressDeadlineSeconds", 1)
    with pytest.raises(RolloutFailed, match="GET /healthz on port 3000 answered 404") as failure:
        await team.rollout.await_rollout(rollout_of(step, update))
    assert reason_of(failure.value) == "ProgressDeadlineExceeded"


async def test_the_progress_deadline_ends_the_wait(team: Team) -> None:
    step = await applied(team, image("unready"))
    await patch(team, step, "/spec/progressDeadlineSeconds", 1)

    with pytest.raises(RolloutFailed) as failure:
        await team.rollout.await_rollout(rollout_of(step))

    assert reason_of(failure.value) == "ProgressDeadlineExceeded"


async def test_pods_that_are_refused_say_by_whom(team: Team) -> None:
    step = await applied(team, "registry.test/shop:1")
    await team.rollout.await_rollout(rollout_of(step))
    # The namespace admits `restricted` pods only.
    await patch(team, step, "/spec/template/spec/hostNetwork", value=True)

    with pytest.raises(RolloutFailed) as failure:
        await team.rollout.await_rollout(rollout_of(step))

    assert reason_of(failure.value) == "FailedCreate"
    assert "hostNetwork" in str(failure.value)


async def test_a_deployment_scaled_to_nothing_is_no_success(team: Team) -> None:
    step = await applied(team, "registry.test/shop:1")
    await patch(team, step, "/spec/replicas", 0)

    with pytest.raises(RolloutFailed) as failure:
        await team.rollout.await_rollout(rollout_of(step))

    assert reason_of(failure.value) == "ScaledToZero"


async def test_a_deployment_that_was_removed_is_made_by_the_next_run(team: Team) -> None:
    step = await team.create()

    with pytest.raises(Conflict):
        await team.rollout.await_rollout(rollout_of(step))


async def test_a_foreign_deployment_is_not_waited_for(team: Team) -> None:
    step = await applied(team, "registry.test/shop:1")
    await patch(team, step, f"/metadata/annotations/{OWNER_ANNOTATION.replace('/', '~1')}", "b/Application/c")

    with pytest.raises(OwnedElsewhere):
        await team.rollout.await_rollout(rollout_of(step))


async def test_a_shutdown_of_the_worker_ends_the_wait_at_once(team: Team) -> None:
    step = await applied(team, image("unready"))
    environment = ActivityEnvironment()
    waiting = asyncio.ensure_future(environment.run(team.rollout.await_rollout, rollout_of(step)))
    await asyncio.sleep(0.5)
    begun = time.monotonic()

    environment.worker_shutdown()
    result = await waiting

    assert not result.is_done
    assert time.monotonic() - begun < 2 * rollout.PERSISTED_SECONDS
