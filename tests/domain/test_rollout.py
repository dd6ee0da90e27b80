"""What a Deployment and its pods say, in states that simulated pods do not reach."""

from typing import Any

import pytest

from plattr.rollout import Trouble, deployment_trouble, has_settled, new_replica_set, pod_troubles, progress_of

Json = dict[str, Any]
SETTLED = {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}


def deployment(*, replicas: int = 3, status: Json | None = None, **spec: Any) -> Json:
    metadata = {"uid": "d", "generation": 2, "annotations": {"deployment.kubernetes.io/revision": "2"}}
    return {"metadata": metadata, "spec": {"replicas": replicas, **spec}, "status": SETTLED | (status or {})}


def pod(*, waiting: Json | None = None, conditions: list[Json] | None = None, init: bool = False) -> Json:
    container = {"name": "app", "image": "registry.test/shop:1", "state": {"waiting": waiting} if waiting else {}}
    key = "initContainerStatuses" if init else "containerStatuses"
    return {"metadata": {"name": "shop-1"}, "status": {key: [container], "conditions": conditions or []}}


def replica_set(revision: str, owner: str = "d") -> Json:
    annotations = {"deployment.kubernetes.io/revision": revision}
    return {"metadata": {"uid": f"r{revision}", "annotations": annotations, "ownerReferences": [{"uid": owner}]}}


@pytest.mark.parametrize(
    ("status", "waiting_for"),
    [
        ({"observedGeneration": 1}, "the Deployment controller to see the new spec"),
        ({"updatedReplicas": 1}, "1 of 3 new replicas to start"),
        ({"replicas": 5}, "2 old replicas to end"),
        ({"availableReplicas": 2}, "2 of 3 replicas to be available"),
    ],
    ids=["not observed", "not updated", "old ones left", "not available"],
)
def test_a_rollout_on_its_way_says_what_is_missing(status: Json, waiting_for: str) -> None:
    rolling = deployment(status=status)

    assert not has_settled(rolling)
    assert progress_of(rolling) == waiting_for


def test_a_rollout_has_settled_when_every_replica_is_new_and_available() -> None:
    assert has_settled(deployment())
    assert not has_settled(deployment(replicas=4))
    assert not has_settled(deployment(replicas=0, status=dict.fromkeys(SETTLED, 0) | {"observedGeneration": 2}))


@pytest.mark.parametrize(
    "reason",
    ["ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"],
)
@pytest.mark.parametrize("init", [False, True], ids=["container", "init container"])
def test_a_container_that_cannot_start_is_a_trouble(reason: str, *, init: bool) -> None:
    (trouble,) = pod_troubles(pod(waiting={"reason": reason, "message": 'secret "shop-mail" not found'}, init=init))

    assert trouble.cause == reason
    assert trouble.place == ("shop-1", "app")
    assert not trouble.is_final
    assert "container app of pod shop-1" in trouble.message


@pytest.mark.parametrize(
    "state",
    [None, {"reason": "ContainerCreating"}, {"reason": "PodInitializing"}],
    ids=["running", "creating", "initializing"],
)
def test_a_container_that_is_starting_is_none(state: Json | None) -> None:
    assert pod_troubles(pod(waiting=state)) == []


def test_what_a_container_said_when_it_ended_is_not_quoted() -> None:
    crashing = pod(waiting={"reason": "CrashLoopBackOff", "message": "back-off"})
    ended = {"exitCode": 137, "reason": "OOMKilled", "message": "password hunter2 refused"}
    crashing["status"]["containerStatuses"][0]["lastState"] = {"terminated": ended}

    (trouble,) = pod_troubles(crashing)

    assert "137 (OOMKilled)" in trouble.message
    assert "hunter2" not in trouble.message


def test_a_pod_without_a_node_is_a_trouble() -> None:
    unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: cpu"}

    (trouble,) = pod_troubles(pod(conditions=[unplaced]))

    assert trouble == Trouble(
        place=("shop-1", ""), cause="Unschedulable", message="pod shop-1 finds no node: 0/3 nodes: cpu"
    )


def test_a_paused_deployment_is_a_trouble() -> None:
    (trouble,) = deployment_trouble(deployment(paused=True))

    assert trouble.cause == "DeploymentPaused"


def test_what_the_deployment_says_of_an_older_spec_does_not_count() -> None:
    exceeded = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    status = {"conditions": [exceeded]}

    assert [trouble.is_final for trouble in deployment_trouble(deployment(status=status))] == [True]
    assert deployment_trouble(deployment(status=status | {"observedGeneration": 1})) == []


def test_the_new_replica_set_is_the_deployments_own_of_the_newest_revision() -> None:
    sets = [replica_set("1"), replica_set("2", owner="another"), replica_set("2")]

    assert new_replica_set(deployment(), sets) is sets[2]
    assert new_replica_set(deployment(), sets[:2]) is None
    assert new_replica_set(deployment(status={"observedGeneration": 1}), sets) is None
