"""The namespace step: each preview has a namespace of its own."""

from collections.abc import Sequence

from temporalio import activity

from activities.loading import TargetLoader
from activities.ownership import belongs_to, delete_all, find_live_uid, list_owned
from activities.polling import moments
from clients.claim_lease import MADE_ANNOTATION
from clients.claim_store import ClaimStore
from clients.concurrency import all_of
from clients.kube import KubeClient
from clients.resources import LIMIT_RANGES, NAMESPACES, NETWORK_POLICIES, RESOURCE_QUOTAS, Json, Resource, is_deleting
from plattr.claims import Claim, HeldClaim
from plattr.errors import StillDeleting
from plattr.features import ClaimKind
from plattr.manifests.namespace import build_namespace
from plattr.manifests.preview_limits import build_limit_range, build_network_policy, build_resource_quota
from plattr.marks import Estate, estate_of
from plattr.naming import PREVIEW_LIMITS
from plattr.settings import Settings
from plattr.steps import CleanupStepInput, StepInput, StepResult
from plattr.target import Target

# 20 s: Kubernetes takes at least 5 s to delete an empty namespace, and up to 10 s with pods. A call may take 60 s.
WAIT_SECONDS = 20.0


class NamespaceActivities:
    """Reconcile and delete a preview's namespace."""

    def __init__(self, loader: TargetLoader, kube: KubeClient, claim_store: ClaimStore, settings: Settings) -> None:
        self._loader = loader
        self._kube = kube
        self._claim_store = claim_store
        self._settings = settings

    @activity.defn
    async def reconcile_namespace(self, step: StepInput) -> StepResult:
        """Make the namespace with its labels, and the limits of the preview; a second run writes nothing.

        A limit that the settings no longer ask for is removed.

        Raises:
            OwnedElsewhere: the namespace or one of the limits belongs to another owner or to none; it stays as it is.
            StillDeleting: the namespace of an earlier preview of the same pull request is still being deleted.
        """
        target, settings = await self._loader.load(step), self._settings
        namespace = build_namespace(
            target,
            labels=settings.preview_namespace_labels,
            annotations=settings.preview_namespace_annotations,
        )
        existing = await self._kube.get(NAMESPACES, target.names.namespace)
        if existing is None:
            # A tenant can remove the marks from the namespace later, but cannot write the claim.
            claim = Claim(kind=ClaimKind.NAMESPACE, name=target.names.namespace)
            await self._claim_store.note_made(estate_of(target.owner), claim)
        await self._kube.apply_over(existing, NAMESPACES, namespace, target.owner)
        await all_of(self._keep(target, resource, body) for resource, body in _bounds(target, settings))
        return StepResult()

    @activity.defn
    async def delete_namespace(self, step: CleanupStepInput) -> StepResult:
        """Remove the namespace with everything in it, and wait until it is gone; a missing one counts as removed.

        Its labels and the claim of its name find it. A namespace of this name stays if its mark names another owner or
        is missing: it is another owner's, unless the claim says that Plattr made it.

        Raises:
            StillDeleting: the namespace is not gone yet; the message says what Kubernetes waits for. Or Plattr made it
                for this preview, and its mark no longer says so.
        """
        live_uid = await find_live_uid(self._kube, step)
        estate, going = step.estate(self._kube.cluster), list[Json]()
        held = await self._claim_store.held_by(estate, ClaimKind.NAMESPACE)
        claims = [claim for claim in held if live_uid is None or claim.owner.uid != live_uid]
        async for _ in moments(WAIT_SECONDS):
            found = await self._namespaces(estate, claims)
            going = await delete_all(self._kube, NAMESPACES, found, live_uid=live_uid)
            if not going:
                await self._claim_store.release(estate, [claim.claim for claim in claims])
                return StepResult()
        raise StillDeleting("; ".join(_why_it_stays(namespace) for namespace in going))

    async def _namespaces(self, estate: Estate, claims: Sequence[HeldClaim]) -> list[Json]:
        found = await list_owned(self._kube, NAMESPACES, estate, metadata_only=False)
        names = {body["metadata"]["name"] for body in found}
        for held in claims:
            body = None if held.claim.name in names else await self._kube.get(NAMESPACES, held.claim.name)
            if body is None:
                continue
            # Only wait for a namespace that somebody deletes by hand.
            if belongs_to(body, estate) or (held.is_made and is_deleting(body)):
                found.append(body)
            elif held.is_made:
                raise StillDeleting(
                    f"cannot delete namespace {held.claim.name!r}: it was made for {estate.reference}, and the"
                    " annotations that say whose it is are gone or another's; delete it by hand, or take annotation"
                    f" {MADE_ANNOTATION} off Lease {held.claim.lease_name!r} if somebody else made it again"
                )
        return found

    async def _keep(self, target: Target, resource: Resource, body: Json | None) -> None:
        if body is not None:
            await self._kube.apply_owned(resource, body, target.owner, target.names.namespace)
            return
        found = await self._kube.get(resource, PREVIEW_LIMITS, target.names.namespace)
        if found is not None and belongs_to(found, estate_of(target.owner)):
            await delete_all(self._kube, resource, [found], live_uid=None)


def _bounds(target: Target, settings: Settings) -> list[tuple[Resource, Json | None]]:
    """Return the three kinds of limits, and for each what the settings ask for."""
    quota, limits, rules = settings.preview_quota, settings.preview_limit_range, settings.preview_network_policy
    return [
        (RESOURCE_QUOTAS, None if quota is None else build_resource_quota(target, quota)),
        (LIMIT_RANGES, None if limits is None else build_limit_range(target, limits)),
        (NETWORK_POLICIES, None if rules is None else build_network_policy(target, rules)),
    ]


def _why_it_stays(namespace: Json) -> str:
    conditions = namespace.get("status", {}).get("conditions", [])
    # Its conditions name kinds, counts and finalizers.
    causes = [condition["message"] for condition in conditions if condition["status"] == "True"]
    cause = " ".join(causes) or "its content is still being removed"
    return f"cannot finish the deletion of namespace {namespace['metadata']['name']!r}: {cause}"
