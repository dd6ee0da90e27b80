"""Check the versions of what the pods refer to; a Secret's content never leaves the API server for that."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping

from temporalio import activity

from clients.claim_store import ClaimStore
from clients.concurrency import all_of
from clients.kube import KubeClient
from clients.resources import CONFIG_MAPS, SECRETS, custom_resource
from plattr.claims import HeldClaim
from plattr.features import ConditionType
from plattr.fleet import ChangedReferences, Member, ReferencesQuery
from plattr.objects import CustomObject, ObjectReference
from plattr.references import from_record, version_of
from plattr.status import Phase, has_failed

# 8: half of the connection pool, so that runs that provision find a connection.
AT_ONCE = 8
# From 10 names of one kind in a namespace, one list replaces single reads. One application may refer to 500 Secrets,
# and many applications to a few each.
LIST_FROM = 10

_RESOURCES = {SECRETS.kind: SECRETS, CONFIG_MAPS.kind: CONFIG_MAPS}
# A namespace and a kind, under which the versions of the names that any object refers to are kept.
_Group = tuple[str, str]


class ReferenceActivities:
    """Compare the current versions with those that the claim store notes for each object's last run."""

    def __init__(self, kube: KubeClient, claim_store: ClaimStore) -> None:
        self._kube = kube
        self._claim_store = claim_store
        self._turns = asyncio.Semaphore(AT_ONCE)

    @activity.defn
    async def find_changed_references(self, query: ReferencesQuery) -> ChangedReferences:
        """Return the objects whose pods must be rolled because a reference changed; this activity only reads.

        An object whose run is in progress, or fails before the workload step, reads everything again anyway.
        """
        noted = [held async for held in self._claim_store.noted_references() if held.owner.reference.key > query.after]
        noted.sort(key=lambda held: held.owner.reference.key)
        page = noted[: query.limit]
        versions = await self._versions(page)
        changed = [held.owner.reference for held in page if self._has_changed(held, versions)]
        wanted = await all_of(self._is_wanted(reference) for reference in changed)
        members = [Member(reference=each) for each, is_wanted in zip(changed, wanted, strict=True) if is_wanted]
        after = page[-1].owner.reference.key if len(noted) > len(page) else ""
        return ChangedReferences(members=tuple(members), looked_at=len(page), after=after)

    async def _versions(self, page: list[HeldClaim]) -> dict[_Group, dict[str, str]]:
        names: dict[_Group, set[str]] = defaultdict(set)
        for held in page:
            for kind, name in from_record(held.references):
                names[_namespace(held), kind].add(name)
        found = await all_of(self._versions_in(group, wanted) for group, wanted in names.items())
        return dict(zip(names, found, strict=True))

    async def _versions_in(self, group: _Group, names: set[str]) -> dict[str, str]:
        namespace, kind = group
        resource = _RESOURCES[kind]
        if len(names) < LIST_FROM:
            return dict(await all_of(self._version(group, name) for name in names))
        async with self._turns:
            found = dict.fromkeys(names, "")
            async for page in self._kube.pages(resource, namespace, metadata_only=True):
                found |= {
                    body["metadata"]["name"]: version_of(body)
                    for body in page.items
                    if body["metadata"]["name"] in names
                }
            return found

    async def _version(self, group: _Group, name: str) -> tuple[str, str]:
        namespace, kind = group
        async with self._turns:
            body = await self._kube.get(_RESOURCES[kind], name, namespace, metadata_only=True)
        return name, version_of(body)

    def _has_changed(self, held: HeldClaim, versions: Mapping[_Group, Mapping[str, str]]) -> bool:
        recorded = from_record(held.references).items()
        return any(versions[_namespace(held), kind][name] != version for (kind, name), version in recorded)

    async def _is_wanted(self, reference: ObjectReference) -> bool:
        async with self._turns:
            body = await self._kube.get(custom_resource(reference.kind), reference.name, reference.namespace)
        if body is None:
            return False
        custom_object = CustomObject.from_api(reference.kind, body)
        if custom_object.is_deleting or custom_object.is_paused:
            return False
        phase = custom_object.phase
        # A failed Deployment may wait for the changed reference. After other failures, slow retries must stay slow.
        return phase == Phase.RUNNING or (phase == Phase.FAILED and has_failed(custom_object, ConditionType.DEPLOYMENT))


def _namespace(held: HeldClaim) -> str:
    # The workload's name is `{namespace}.{stem}`, and a namespace's has no dot.
    return held.claim.name.partition(".")[0]
