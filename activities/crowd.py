"""Limit the previews of a namespace, because each takes a namespace, a database and a realm of the platform."""

from clients.claim_store import ClaimStore
from clients.kube import KubeClient
from clients.resources import PREVIEWS
from plattr.errors import TooManyPreviews
from plattr.features import ClaimKind
from plattr.marks import estate_of
from plattr.target import Target


class Crowd:
    """Let in the oldest previews of a namespace, up to the limit."""

    def __init__(self, kube: KubeClient, claim_store: ClaimStore, limit: int | None) -> None:
        self._kube = kube
        self._claim_store = claim_store
        self._limit = limit

    async def ensure_room(self, target: Target) -> None:
        """Return if the target is within the limit; a preview that was let in stays in.

        Age decides, so that every worker lets in the same previews when several arrive at once. A preview that is being
        deleted counts until it is gone.

        Raises:
            TooManyPreviews: the namespace has as many older previews as the limit allows.
        """
        reference = target.owner.reference
        if self._limit is None or not target.is_preview or await self._holds_its_namespace(target):
            return
        ages = []
        async for page in self._kube.pages(PREVIEWS, reference.namespace, metadata_only=True):
            ages += [(one["metadata"]["creationTimestamp"], one["metadata"]["name"]) for one in page.items]
        older = sorted(ages)[: self._limit]
        if reference.name not in {name for _, name in older}:
            raise TooManyPreviews(
                f"cannot provision {reference}: namespace {reference.namespace!r} has {len(ages)} previews, and the"
                f" platform allows {self._limit}; delete one, or wait until one ends"
            )

    async def _holds_its_namespace(self, target: Target) -> bool:
        return bool(await self._claim_store.held_by(estate_of(target.owner), ClaimKind.NAMESPACE))
