"""The search step: the address of OpenSearch, the application's index prefix, and what bears the prefix."""

from datetime import timedelta

from temporalio import activity

from activities.loading import TargetLoader
from activities.ownership import find_live_uid, remove_owned
from activities.polling import time_is_up
from clients.claim_store import ClaimStore
from clients.kube import KubeClient
from clients.opensearch import OpenSearchClient
from clients.resources import CONFIG_MAPS
from plattr.database import owner_record, recorded_mark
from plattr.endpoints import search_values
from plattr.errors import StillDeleting
from plattr.features import ClaimKind, ConditionType
from plattr.manifests.config_map import build_config_map
from plattr.manifests.metadata import FEATURE_LABEL
from plattr.marks import ensure_own, holder_words
from plattr.retries import CLEANUP_BUDGET
from plattr.settings import Settings
from plattr.status import ConditionUpdate
from plattr.steps import CleanupStepInput, StepInput, StepResult
from plattr.target import Target


class SearchActivities:
    """Reconcile the ConfigMap of search; delete it together with the indices."""

    def __init__(
        self,
        loader: TargetLoader,
        kube: KubeClient,
        opensearch: OpenSearchClient | None,
        claim_store: ClaimStore,
        settings: Settings,
        *,
        cleanup_budget: timedelta = CLEANUP_BUDGET,
    ) -> None:
        self._loader = loader
        self._kube = kube
        self._opensearch = opensearch
        self._claim_store = claim_store
        self._settings = settings
        self._cleanup_budget = cleanup_budget

    @activity.defn
    async def reconcile_search(self, step: StepInput) -> StepResult:
        """Record who owns the index prefix, and write it into the ConfigMap; a second run writes nothing.

        Raises:
            OwnedElsewhere: the prefix or the ConfigMap belongs to another owner.
            Conflict: somebody else recorded the prefix at the same time.
            BackendUnavailable: OpenSearch or the API server cannot be reached.
        """
        target = await self._loader.load(step)
        if self._opensearch is not None:
            await _keep_record(self._opensearch, target)
        config_map = build_config_map(target, "search", search_values(target, self._settings))
        await self._kube.apply_owned(CONFIG_MAPS, config_map, target.owner, target.names.namespace)
        message = f"indices begin with '{target.names.search_prefix}-'; nothing but that keeps applications apart"
        if self._opensearch is None:
            message += "; they stay when the object is deleted: OPENSEARCH_ADMIN_URL is not set"
        return StepResult(
            updates=(ConditionUpdate(type=ConditionType.SEARCH, status="True", reason="Configured", message=message),)
        )

    @activity.defn
    async def delete_search(self, step: CleanupStepInput) -> StepResult:
        """Remove the ConfigMap, and what bears the owner's prefixes: data streams, indices, aliases, templates.

        A prefix counts as the owner's if it is claimed for the owner and OpenSearch records the owner. The claim alone
        does not prove it: a claim belongs to one cluster, and even an object that was refused has its claim. Each thing
        is deleted by its full name, the record last. When the time budget is used up, the result says not done: call
        again. Retained data stays.

        Raises:
            StillDeleting: a finalizer holds the ConfigMap, or somebody keeps creating indices.
            BackendUnavailable: OpenSearch or the API server cannot be reached.
        """
        is_over = time_is_up(self._cleanup_budget)
        live_uid, estate = await find_live_uid(self._kube, step), step.estate(self._kube.cluster)
        labels = {FEATURE_LABEL: "search"}
        await remove_owned(self._kube, estate, [CONFIG_MAPS], live_uid=live_uid, labels=labels)
        if self._opensearch is None:
            return StepResult()
        left: list[str] = []
        for held in await self._claim_store.held_by(estate, ClaimKind.SEARCH):
            prefix = held.claim.name
            if held.owner.uid == live_uid or step.retains(ClaimKind.SEARCH, prefix):
                continue
            mark = recorded_mark(await self._opensearch.record(prefix))
            if not estate.holds(mark):
                if await self._opensearch.traces(prefix):
                    left.append(
                        f"what is called {prefix}-* in OpenSearch, which belongs to {holder_words(mark, held.owner)}"
                    )
                continue
            for trace in await self._opensearch.traces(prefix):
                if is_over():
                    return StepResult(is_done=False, waiting_for=f"the indices {prefix}-* of OpenSearch to be removed")
                await self._opensearch.delete(trace)
            if late := await self._opensearch.traces(prefix):
                raise StillDeleting(f"cannot confirm that {late[0].kind} {late[0].name!r} is gone: it is still there")
            await self._opensearch.delete_record(prefix)
        return StepResult(left="; ".join(left))


async def _keep_record(opensearch: OpenSearchClient, target: Target) -> None:
    prefix, wanted = target.names.search_prefix, owner_record(target.owner)
    found = await opensearch.record(prefix)
    if found is not None:
        ensure_own(f"prefix {prefix!r} of OpenSearch", recorded_mark(found), target.owner)
    if found != wanted:
        await opensearch.put_record(prefix, wanted, is_new=found is None)
