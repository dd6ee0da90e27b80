"""The namespace that each preview has for itself."""

from temporalio import activity

from activities.clients.kube import KubeClient
from activities.clients.ledger import Ledger
from activities.clients.resources import NAMESPACES, Json
from activities.loading import TargetLoader
from activities.ownership import delete_all, list_owned, living_uid
from activities.polling import moments
from plattr.claims import Holding
from plattr.errors import StillDeleting
from plattr.manifests.namespace import build_namespace
from plattr.steps import CleanupStepInput, StepInput, StepResult

# 20: Kubernetes takes at least 5 s for an empty namespace and up to 10 s with pods in it; a call may take 60 s.
WAIT_SECONDS = 20.0


class NamespaceActivities:
    """Keep and remove a preview's namespace."""

    def __init__(self, loader: TargetLoader, kube: KubeClient, ledger: Ledger) -> None:
        self._loader = loader
        self._kube = kube
        self._ledger = ledger

    @activity.defn
    async def reconcile_namespace(self, step: StepInput) -> StepResult:
        """Make the namespace with its labels. The second run writes nothing.

        Raises:
            OwnedElsewhere: a namespace of this name belongs to somebody else or to nobody; it stays as it is.
            StillDeleting: the namespace of an earlier preview of the same pull request is on its way out.
        """
        target = await self._loader.load(step)
        await self._kube.apply_owned(NAMESPACES, build_namespace(target), target.owner)
        return StepResult()

    @activity.defn
    async def delete_namespace(self, step: CleanupStepInput) -> StepResult:
        """Remove the namespace with all that is in it, and wait until it is gone; a missing one is success.

        Raises:
            StillDeleting: it has not gone yet; the message says what Kubernetes waits for.
        """
        spared = await living_uid(self._kube, step)
        going: list[Json] = []
        async for _ in moments(WAIT_SECONDS):
            found = await list_owned(self._kube, NAMESPACES, step.reference, metadata_only=False)
            going = await delete_all(self._kube, NAMESPACES, found, spared_uid=spared)
            if not going:
                await self._release_claims(step, spared)
                return StepResult()
        raise StillDeleting("; ".join(_why_it_stays(namespace) for namespace in going))

    async def _release_claims(self, step: CleanupStepInput, spared: str | None) -> None:
        held = await self._ledger.held_by(step.reference, Holding.NAMESPACE)
        claims = [claim.claim for claim in held if spared is None or claim.owner.uid != spared]
        await self._ledger.release(step.reference, claims)


def _why_it_stays(namespace: Json) -> str:
    conditions = namespace.get("status", {}).get("conditions", [])
    # Its conditions name kinds, counts and finalizers.
    causes = [condition["message"] for condition in conditions if condition["status"] == "True"]
    cause = " ".join(causes) or "its content is still being removed"
    return f"cannot finish the deletion of namespace {namespace['metadata']['name']!r}: {cause}"
