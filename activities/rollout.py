"""The rollout step: wait for the Deployment, and say why it does not become available."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import NamedTuple

from temporalio import activity

from activities.loading import TargetLoader
from activities.ownership import ensure_adoptable
from activities.polling import moments
from clients.kube import KubeClient
from clients.resources import DEPLOYMENTS, EVENTS, PODS, REPLICA_SETS, Json
from plattr.errors import Conflict, RolloutFailed
from plattr.features import ConditionType
from plattr.probes import UNHEALTHY_REASON, is_unready, probe_trouble
from plattr.rollout import Trouble, deployment_trouble, has_settled, new_replica_set, pod_troubles, progress_of
from plattr.status import ConditionUpdate
from plattr.steps import RolloutInput, StepResult
from plattr.target import Target

# 20 s: short enough to notice a changed spec soon, long enough for most rollouts. The workflow calls again.
WAIT_SECONDS = 20.0
# 0.5 s: before that, pods only start, and looking at them costs two more calls.
LOOK_AFTER_SECONDS = 0.5
# 5 s: most rollouts are complete by then, and their status is written once.
SAY_AFTER_SECONDS = 5.0
# 3: one pod is enough to say why, and the others most likely fail for the same reason.
PROBED_PODS = 3
# 1000: the most replicas that an Application may have. Further pods with its labels are ignored.
LOOKED_AT = 1000
# 100, of 1 MiB together: the kubelet writes one Event of 1 kB for each probe and outcome, and counts in it.
EVENTS_OF_A_POD = 100
EVENT_BYTES = 2**20
# By this label a ReplicaSet's controller tells its pods from those of the Deployment's other ReplicaSets.
HASH_LABEL = "pod-template-hash"
# 3 s: a container may restart once, or an image pull fail once, and be well a moment later.
PERSISTED_SECONDS = 3.0


class _ReplicaSet(NamedTuple):
    uid: str
    hash: str


class _NewPods(NamedTuple):
    """What the new pods say about a slow rollout; the pods themselves may be a thousand, of half a megabyte each."""

    troubles: list[Trouble]
    unready: list[Json]
    """The first few pods that are not ready."""


class RolloutActivities:
    """Wait for the Deployment of the newest spec."""

    def __init__(self, loader: TargetLoader, kube: KubeClient) -> None:
        self._loader = loader
        self._kube = kube

    @activity.defn
    async def await_rollout(self, step: RolloutInput) -> StepResult:
        """Wait until every replica is new and available, at most 20 s; return not done then, or when there is news.

        This activity only reads. It ignores troubles of pods of the old ReplicaSet, because these pods will end. A
        result that is not done carries the condition that is true meanwhile.

        Raises:
            RolloutFailed: the new pods cannot start, or the progress deadline has passed; `cause` says which.
            OwnedElsewhere: the Deployment is not this owner's.
            Conflict: the Deployment was removed since the workload step ran.
        """
        target = await self._loader.load(step)
        since: dict[tuple[str, str], float] = {}
        looked, probes = 0.0, ""
        update: ConditionUpdate | None = None
        async for passed in moments(WAIT_SECONDS):
            deployment = await self._deployment(target)
            if has_settled(deployment):
                return StepResult(updates=(_available(deployment),))
            pods = await self._new_pods(target, deployment) if passed >= LOOK_AFTER_SECONDS else _NewPods([], [])
            # Put the troubles of the pods first, because they cause those of the Deployment.
            troubles = pods.troubles + (deployment_trouble(deployment) if passed >= LOOK_AFTER_SECONDS else [])
            since = {trouble.place: since.get(trouble.place, passed) for trouble in troubles}
            for trouble in troubles:
                if trouble.is_final or passed - since[trouble.place] >= PERSISTED_SECONDS:
                    probes = await self._probe_trouble(pods.unready)
                    raise RolloutFailed(
                        f"cannot roll out Deployment {target.names.stem!r} in namespace"
                        f" {target.names.namespace!r}: {trouble.message}{probes and f'; {probes}'}",
                        cause=trouble.cause,
                    )
            is_due = passed - looked >= SAY_AFTER_SECONDS
            if is_due:
                looked, probes = passed, await self._probe_trouble(pods.unready)
            update = _underway(deployment, probes)
            if is_due and _is_news(update, step.said):
                break
        waiting_for = update.message if update else ""
        return StepResult(is_done=False, waiting_for=waiting_for, updates=(update,) if update else ())

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

    async def _new_pods(self, target: Target, deployment: Json) -> _NewPods:
        selector = ",".join(f"{label}={text}" for label, text in target.selector_labels.items())
        newest = await self._newest(target, deployment, selector)
        found, count = _NewPods([], []), 0
        if newest is None:
            return found
        pages = self._kube.pages(PODS, target.names.namespace, label_selector=f"{selector},{HASH_LABEL}={newest.hash}")
        async with aclosing(pages):
            async for page in pages:
                for pod in page.items:
                    # Check the owner reference, because anybody may copy labels.
                    if all(each["uid"] != newest.uid for each in pod["metadata"].get("ownerReferences", [])):
                        continue
                    found.troubles.extend(pod_troubles(pod))
                    if is_unready(pod) and len(found.unready) < PROBED_PODS:
                        found.unready.append(pod)
                count += len(page.items)
                if count >= LOOKED_AT:
                    break
        return found

    async def _newest(self, target: Target, deployment: Json, selector: str) -> _ReplicaSet | None:
        pages = self._kube.pages(REPLICA_SETS, target.names.namespace, label_selector=selector, metadata_only=True)
        count = 0
        async with aclosing(pages):
            async for page in pages:
                if (newest := new_replica_set(deployment, page.items)) is not None:
                    metadata = newest["metadata"]
                    return _ReplicaSet(metadata["uid"], metadata.get("labels", {}).get(HASH_LABEL, ""))
                count += len(page.items)
                if count >= LOOKED_AT:
                    break
        return None

    async def _probe_trouble(self, unready: Sequence[Json]) -> str:
        """Return what the kubelet says about the probes of pods that are not ready."""
        for pod in unready:
            selector = f"involvedObject.uid={pod['metadata']['uid']},reason={UNHEALTHY_REASON}"
            events = await self._kube.list_small(
                EVENTS, pod["metadata"]["namespace"], field_selector=selector, count=EVENTS_OF_A_POD, size=EVENT_BYTES
            )
            # None: there are more Events than the kubelet writes, so somebody else wrote them.
            if trouble := probe_trouble(pod, events or []):
                return trouble
        return ""


def _underway(deployment: Json, probes: str) -> ConditionUpdate:
    """Return the condition of a rollout in progress; it is not False while the old pods serve."""
    conditions = deployment.get("status", {}).get("conditions", [])
    is_available = any(each["type"] == "Available" and each["status"] == "True" for each in conditions)
    return ConditionUpdate(
        type=ConditionType.DEPLOYMENT,
        status="Unknown" if is_available else "False",
        reason=UNHEALTHY_REASON if probes else "RolloutInProgress",
        message=progress_of(deployment) + (f"; {probes}" if probes else ""),
    )


def _is_news(update: ConditionUpdate, said: ConditionUpdate | None) -> bool:
    """Tell whether the status must show the update at once; a new count of replicas waits for the next call."""
    return said is None or (update.status, update.reason) != (said.status, said.reason)


def _available(deployment: Json) -> ConditionUpdate:
    replicas = deployment["status"].get("availableReplicas", 0)
    return ConditionUpdate(
        type=ConditionType.DEPLOYMENT, status="True", reason="Available", message=f"{replicas} replicas are available"
    )
