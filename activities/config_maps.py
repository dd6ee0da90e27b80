"""The managed services of which an application gets only the address: Redis and OpenSearch."""

from collections.abc import Mapping

from temporalio import activity

from activities.clients.kube import KubeClient
from activities.clients.resources import CONFIG_MAPS
from activities.loading import TargetLoader
from activities.ownership import living_uid, remove_owned
from plattr.endpoints import redis_values, search_values
from plattr.manifests.config_map import build_config_map
from plattr.manifests.metadata import FEATURE_LABEL
from plattr.settings import Settings
from plattr.status import ConditionType, Finding
from plattr.steps import CleanupStepInput, StepInput, StepResult
from plattr.target import Target


class ConfigMapActivities:
    """Keep and remove the ConfigMaps of redis and search."""

    def __init__(self, loader: TargetLoader, kube: KubeClient, settings: Settings) -> None:
        self._loader = loader
        self._kube = kube
        self._settings = settings

    @activity.defn
    async def reconcile_redis(self, step: StepInput) -> StepResult:
        """Tell the application where Redis is. The second run writes nothing."""
        target = await self._loader.load(step)
        return await self._reconcile(target, "redis", redis_values(self._settings), ConditionType.REDIS)

    @activity.defn
    async def reconcile_search(self, step: StepInput) -> StepResult:
        """Tell the application where OpenSearch is and which index prefix is its own. The second run writes nothing."""
        target = await self._loader.load(step)
        return await self._reconcile(target, "search", search_values(target, self._settings), ConditionType.SEARCH)

    @activity.defn
    async def delete_redis(self, step: CleanupStepInput) -> StepResult:
        """Remove the ConfigMap; a missing one is success. Redis itself is shared and keeps nothing of ours.

        Raises:
            StillDeleting: a finalizer holds it.
        """
        return await self._delete(step, "redis")

    @activity.defn
    async def delete_search(self, step: CleanupStepInput) -> StepResult:
        """Remove the ConfigMap; a missing one is success. The indices belong to the managed service.

        Raises:
            StillDeleting: a finalizer holds it.
        """
        return await self._delete(step, "search")

    async def _reconcile(
        self, target: Target, feature: str, values: Mapping[str, str], condition: ConditionType
    ) -> StepResult:
        config_map = build_config_map(target, feature, values)
        await self._kube.apply_owned(CONFIG_MAPS, config_map, target.owner, target.names.namespace)
        name = target.names.config_map(feature)
        finding = Finding(type=condition, status="True", reason="Configured", message=f"ConfigMap {name} is in place")
        return StepResult(findings=(finding,))

    async def _delete(self, step: CleanupStepInput, feature: str) -> StepResult:
        spared = await living_uid(self._kube, step)
        labels = {FEATURE_LABEL: feature}
        await remove_owned(self._kube, step.reference, [CONFIG_MAPS], spared_uid=spared, labels=labels)
        return StepResult()
