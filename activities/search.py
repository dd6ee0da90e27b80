"""OpenSearch: where it is, and the index prefix of the application's own."""

from temporalio import activity

from activities.clients.kube import KubeClient
from activities.clients.resources import CONFIG_MAPS
from activities.loading import TargetLoader
from activities.ownership import living_uid, remove_owned
from plattr.endpoints import search_values
from plattr.manifests.config_map import build_config_map
from plattr.manifests.metadata import FEATURE_LABEL
from plattr.settings import Settings
from plattr.status import ConditionType, Finding
from plattr.steps import CleanupStepInput, StepInput, StepResult


class SearchActivities:
    """Keep and remove the ConfigMap of search."""

    def __init__(self, loader: TargetLoader, kube: KubeClient, settings: Settings) -> None:
        self._loader = loader
        self._kube = kube
        self._settings = settings

    @activity.defn
    async def reconcile_search(self, step: StepInput) -> StepResult:
        """Tell the application where OpenSearch is and which index prefix is its own. The second run writes nothing."""
        target = await self._loader.load(step)
        config_map = build_config_map(target, "search", search_values(target, self._settings))
        await self._kube.apply_owned(CONFIG_MAPS, config_map, target.owner, target.names.namespace)
        message = f"ConfigMap {target.names.config_map('search')} is in place"
        return StepResult(
            findings=(Finding(type=ConditionType.SEARCH, status="True", reason="Configured", message=message),)
        )

    @activity.defn
    async def delete_search(self, step: CleanupStepInput) -> StepResult:
        """Remove the ConfigMap; a missing one is success. The indices belong to the managed service.

        Raises:
            StillDeleting: a finalizer holds it.
        """
        spared = await living_uid(self._kube, step)
        labels = {FEATURE_LABEL: "search"}
        await remove_owned(self._kube, step.estate(self._kube.cluster), [CONFIG_MAPS], spared_uid=spared, labels=labels)
        return StepResult()
