"""What a Deployment and its pods, as the API server holds them, say about a rollout."""

from collections.abc import Iterable, Sequence
from typing import Any

from plattr.denials import denial
from plattr.objects import FrozenModel

Json = dict[str, Any]

REVISION_ANNOTATION = "deployment.kubernetes.io/revision"

# Reasons of a waiting container that more waiting does not help. Others (ContainerCreating, PodInitializing) pass.
# https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/images/types.go
# https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/kuberuntime/kuberuntime_container.go
_STUCK_REASONS = frozenset(
    {
        "ImagePullBackOff",
        "ErrImagePull",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)


class Trouble(FrozenModel):
    """Why a rollout does not progress, in the words of Kubernetes."""

    place: tuple[str, str]
    """The pod and its container, or the Deployment. A trouble keeps its place while its reason changes."""
    cause: str
    message: str
    is_final: bool = False
    """True when more waiting cannot help; other troubles may pass in a moment."""


def has_settled(deployment: Json) -> bool:
    """Tell whether every replica has the newest template and is available, and no old replica is left.

    Source: https://github.com/kubernetes/kubectl/blob/master/pkg/polymorphichelpers/rollout_status.go
    """
    wanted = _wanted(deployment)
    status = deployment.get("status", {})
    return (
        _is_observed(deployment)
        and wanted > 0
        and status.get("updatedReplicas", 0) >= wanted
        and status.get("replicas", 0) <= status.get("updatedReplicas", 0)
        and status.get("availableReplicas", 0) >= status.get("updatedReplicas", 0)
    )


def progress_of(deployment: Json) -> str:
    """Return how far the rollout is, for a person."""
    if not _is_observed(deployment):
        return "the Deployment controller to see the new spec"
    status, wanted = deployment.get("status", {}), _wanted(deployment)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    old = status.get("replicas", 0) - updated
    if updated < wanted:
        return f"{updated} of {wanted} new replicas to start"
    if old > 0:
        return f"{old} old replicas to end"
    return f"{available} of {wanted} replicas to be available"


def new_replica_set(deployment: Json, replica_sets: Iterable[Json]) -> Json | None:
    """Return the Deployment's ReplicaSet of the newest template; None until the controller has created it."""
    if not _is_observed(deployment):
        return None
    revision = deployment["metadata"].get("annotations", {}).get(REVISION_ANNOTATION)
    for replica_set in replica_sets:
        metadata = replica_set["metadata"]
        owners = {owner["uid"] for owner in metadata.get("ownerReferences", [])}
        is_newest = metadata.get("annotations", {}).get(REVISION_ANNOTATION) == revision
        if is_newest and deployment["metadata"]["uid"] in owners:
            return replica_set
    return None


def pod_troubles(pod: Json) -> list[Trouble]:
    """Return what keeps a pod's containers from starting, or keeps the pod off a node."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    containers: Sequence[Json] = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
    troubles = [trouble for container in containers for trouble in _container_troubles(name, container)]
    for condition in status.get("conditions", []):
        if condition.get("reason") == "Unschedulable" and condition["status"] == "False":
            message = f"pod {name} finds no node: {condition.get('message', 'Unschedulable')}"
            troubles.append(Trouble(place=(name, ""), cause="Unschedulable", message=message))
    return troubles


def deployment_trouble(deployment: Json) -> list[Trouble]:
    """Return what the Deployment itself reports against its rollout, without its pods."""
    if not _is_observed(deployment):
        return []
    conditions = {condition["type"]: condition for condition in deployment.get("status", {}).get("conditions", [])}
    failure, progressing = conditions.get("ReplicaFailure", {}), conditions.get("Progressing", {})
    troubles = []
    if failure.get("status") == "True":
        # The controller quotes the whole denial. Any other message may hold a variable's value that the API server
        # repeats.
        cause = denial(str(failure.get("message", "")), deployment["spec"])
        message = f"its pods are refused: {cause or 'the API server finds them invalid'}"
        troubles.append(_of_deployment(failure.get("reason") or "ReplicaFailure", message))
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        message = f"it made no progress for {deployment['spec'].get('progressDeadlineSeconds', 600)} s"
        troubles.append(_of_deployment("ProgressDeadlineExceeded", message, is_final=True))
    if deployment["spec"].get("paused"):
        troubles.append(_of_deployment("DeploymentPaused", "somebody paused it; resume it with kubectl rollout resume"))
    if _wanted(deployment) == 0:
        message = "somebody scaled it to 0 replicas, which switches its autoscaler off; scale it to 1 or more"
        troubles.append(_of_deployment("ScaledToZero", message))
    return troubles


def _container_troubles(pod: str, container: Json) -> list[Trouble]:
    waiting = container.get("state", {}).get("waiting") or {}
    cause = waiting.get("reason")
    if cause not in _STUCK_REASONS:
        return []
    message = f"container {container['name']} of pod {pod} is in {cause}: {_why(cause, container, waiting)}"
    return [Trouble(place=(pod, container["name"]), cause=cause, message=message)]


def _why(cause: str, container: Json, waiting: Json) -> str:
    if cause == "CrashLoopBackOff":
        # Without the termination message: it is the application's own text and may hold anything.
        ended = container.get("lastState", {}).get("terminated") or {}
        return (
            f"it ended with exit code {ended.get('exitCode', 'unknown')} ({ended.get('reason', 'Error')})"
            f" and was restarted {container.get('restartCount', 0)} times; see its log"
        )
    if cause.startswith("CreateContainer") or cause == "RunContainerError":
        return str(waiting.get("message", "no message"))
    return f"image {container['image']!r} cannot be pulled"


def _of_deployment(cause: str, message: str, *, is_final: bool = False) -> Trouble:
    return Trouble(place=("", cause), cause=cause, message=message, is_final=is_final)


def _wanted(deployment: Json) -> int:
    return int(deployment["spec"].get("replicas", 1))


def _is_observed(deployment: Json) -> bool:
    observed = deployment.get("status", {}).get("observedGeneration", 0)
    return bool(observed >= deployment["metadata"]["generation"])
