"""The rollout: waiting for the Deployment, and saying why it does not come."""

from temporalio import activity

from activities.clients.kube import KubeClient
from activities.clients.resources import DEPLOYMENTS, PODS, REPLICA_SETS, Json
from activities.loading import TargetLoader
from activities.ownership import ensure_adoptable
from activities.polling import moments
from plattr.errors import Conflict, RolloutFailed
from plattr.rollout import Trouble, deployment_trouble, has_settled, new_replica_set, pod_troubles, progress_of
from plattr.status import ConditionType, Finding
from plattr.steps import StepInput, StepResult
from plattr.target import Target

# 20: short enough for a changed spec to be noticed soon, long enough for most rollouts; the workflow calls again.
WAIT_SECONDS = 20.0
# Before that, pods just start; looking at them costs two more calls.
LOOK_AFTER_SECONDS = 0.5
# 3: a container may restart once, or an image pull fail once, and be well a moment later.
PERSISTED_SECONDS = 3.0


class RolloutActivities:
    """Wait for the Deployment of the newest spec."""

    def __init__(self, loader: TargetLoader, kube: KubeClient) -> None:
        self._loader = loader
        self._kube = kube

    @activity.defn
    async def await_rollout(self, step: StepInput) -> StepResult:
        """Wait until every replica is new and available; not done after 20 s: call again.

        It only reads. Troubles of the old ReplicaSet's pods do not count: they are on their way out.

        Raises:
            RolloutFailed: the new pods cannot start, or the progress deadline has passed; `cause` says which.
            OwnedElsewhere: the Deployment is not this owner's.
            Conflict: the Deployment was removed since the workload step ran.
        """
        target = await self._loader.load(step)
        since: dict[tuple[str, str], float] = {}
        waiting_for = ""
        async for passed in moments(WAIT_SECONDS):
            deployment = await self._deployment(target)
            if has_settled(deployment):
                return StepResult(findings=(_available(deployment),))
            waiting_for = progress_of(deployment)
            troubles = await self._troubles(target, deployment) if passed >= LOOK_AFTER_SECONDS else []
            since = {trouble.place: since.get(trouble.place, passed) for trouble in troubles}
            for trouble in troubles:
                if trouble.is_final or passed - since[trouble.place] >= PERSISTED_SECONDS:
                    raise RolloutFailed(
                        f"cannot roll out Deployment {target.names.stem!r} in namespace"
                        f" {target.names.namespace!r}: {trouble.message}",
                        cause=trouble.cause,
                    )
        return StepResult(is_done=False, waiting_for=waiting_for)

    async def _deployment(self, target: Target) -> Json:
        names = target.names
        deployment = await self._kube.get(DEPLOYMENTS, names.stem, names.namespace)
        if deployment is None:
            raise Conflict(
                f"cannot roll out Deployment {names.stem!r} in namespace {names.namespace!r}: it was removed since"
                " its step ran; the next run makes it again"
            )
        ensure_adoptable(DEPLOYMENTS, deployment, target.owner)
        return deployment

    async def _troubles(self, target: Target, deployment: Json) -> list[Trouble]:
        namespace = target.names.namespace
        selector = ",".join(f"{label}={text}" for label, text in target.selector_labels.items())
        replica_sets = await self._kube.list(REPLICA_SETS, namespace, label_selector=selector)
        newest = new_replica_set(deployment, replica_sets)
        pods = await self._kube.list(PODS, namespace, label_selector=selector) if newest else []
        own = [
            pod
            for pod in pods
            if newest and any(o["uid"] == newest["metadata"]["uid"] for o in pod["metadata"].get("ownerReferences", []))
        ]
        # The pods first: what they say is the cause of what the Deployment says.
        return [trouble for pod in own for trouble in pod_troubles(pod)] + deployment_trouble(deployment)


def _available(deployment: Json) -> Finding:
    replicas = deployment["status"].get("availableReplicas", 0)
    return Finding(
        type=ConditionType.DEPLOYMENT, status="True", reason="Available", message=f"{replicas} replicas are available"
    )
