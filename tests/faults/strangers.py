"""What strangers do to an object's things: drift, a finalizer that holds up a deletion, and another cluster's marks."""

import asyncio

from clients.claim_store import ClaimStore
from clients.resources import CONFIG_MAPS, DEPLOYMENTS, EVENTS, LEASES, SECRETS, Json, Resource
from plattr.buckets import OWNER_CLUSTER_TAG
from plattr.features import ConditionType
from plattr.objects import ObjectReference
from plattr.target import OWNER_CLUSTER_ANNOTATION
from stack.services.cluster import NAMESPACE
from tests.e2e.view import View, conditions

_FINALIZER = "example.test/holds"
_ELSEWHERE = "elsewhere"
_STUCK = "DeletionStuck"
# What the comment says of the cluster, and nothing else of it.
_DISOWN = """
do $$ begin execute format('comment on {0} %I is %L', '{1}', (
    select regexp_replace(description, '"cluster": "[^"]*"', '"cluster": "{4}"')
    from (select pg_catalog.obj_description(oid, 'pg_{2}') from pg_{2} where {3}name = '{1}'
        union all select pg_catalog.shobj_description(oid, 'pg_{2}') from pg_{2} where {3}name = '{1}')
    as found (description) where description is not null)); end $$
"""


class Stranger:
    """Somebody with a superuser's rights and no regard for Plattr, and what came of it."""

    def __init__(self, view: View) -> None:
        self._view = view

    async def disturb(self, name: str) -> None:
        """Take a grant and a ConfigMap away from a Running application."""
        # Not a grant to anon: what is taken from it stays away.
        await self._view.query(f"revoke prod_{name}_anon from prod_{name}_app granted by provisioner")
        await self._view.kube.delete(CONFIG_MAPS, f"{name}-redis", self._view.namespace)

    async def disturbed(self, name: str) -> str:
        """Return what is still missing of what was taken away; empty: nothing."""
        rows = await self._view.query(f"select pg_has_role('prod_{name}_app', 'prod_{name}_anon', 'member')")
        missing = [] if rows == [(True,)] else ["the grant"]
        missing += [] if await self._view.config_map(f"{name}-redis") else ["the ConfigMap"]
        return f"not mended: {', '.join(missing)}" if missing else ""

    async def hold(self, name: str) -> None:
        """Put a finalizer on the database Secret, the last thing that a cleanup waits for."""
        operations: list[Json] = [{"op": "add", "path": "/metadata/finalizers", "value": [_FINALIZER]}]
        await self._view.kube.json_patch(SECRETS, f"{name}-db", operations, self._view.namespace)

    async def let_go(self, name: str) -> None:
        operations: list[Json] = [{"op": "remove", "path": "/metadata/finalizers"}]
        await self._view.kube.json_patch(SECRETS, f"{name}-db", operations, self._view.namespace)

    async def disown(self, reference: ObjectReference) -> None:
        """Have another cluster's mark on claims, database, buckets and objects, as after a restore under a new id."""
        name, namespace = reference.name, self._view.namespace
        for held in await ClaimStore(self._view.kube, NAMESPACE).held_under(reference):
            await self._mark(LEASES, held.claim.lease_name, NAMESPACE)
        for resource, place in ((DEPLOYMENTS, name), (SECRETS, f"{name}-db"), (CONFIG_MAPS, f"{name}-storage")):
            await self._mark(resource, place, namespace)
        for kind, place in (("schema", ""), ("role", "_app"), ("role", "_anon")):
            catalogue = ("namespace", "nsp") if kind == "schema" else ("authid", "rol")
            await self._view.query(_DISOWN.format(kind, f"prod_{name}{place}", *catalogue, _ELSEWHERE))
        await asyncio.to_thread(self._disown_bucket, f"plattr-prod-{name}-files")

    async def _mark(self, resource: Resource, name: str, namespace: str) -> None:
        path = f"/metadata/annotations/{OWNER_CLUSTER_ANNOTATION.replace('/', '~1')}"
        operations: list[Json] = [{"op": "replace", "path": path, "value": _ELSEWHERE}]
        await self._view.kube.json_patch(resource, name, operations, namespace)

    def _disown_bucket(self, bucket: str) -> None:
        s3 = self._view.s3()
        tags = [tag for tag in s3.get_bucket_tagging(Bucket=bucket)["TagSet"] if tag["Key"] != OWNER_CLUSTER_TAG]
        tags.append({"Key": OWNER_CLUSTER_TAG, "Value": _ELSEWHERE})
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})

    async def is_told_of(self, name: str, *, seconds: float) -> None:
        """Return when the object says that its deletion waits for the Secret."""
        await self._view.wait(name, lambda body: _says(body, name), seconds=seconds)

    async def wrongly_told(self, name: str) -> str:
        """Return what is wrong with how object and Events say it; empty: each says it once."""
        body = await self._view.application(name)
        assert body is not None
        wrong = [] if body["status"].get("phase") == "Terminating" else [f"phase {body['status'].get('phase')}"]
        # Of the others it says that they are gone, and of the whole that it goes.
        expected = ("Removed", "Terminating")
        false = [
            kind
            for kind, condition in conditions(body).items()
            if condition["status"] == "False" and condition["reason"] not in expected
        ]
        wrong += [] if false == [ConditionType.DATABASE] else [f"False are {false}"]
        selector = f"involvedObject.uid={body['metadata']['uid']},reason={_STUCK}"
        events = await self._view.kube.list(EVENTS, self._view.namespace, field_selector=selector)
        wrong += [] if len(events) == 1 else [f"told by {len(events)} Events"]
        wrong += [f"an Event says {event['message']}" for event in events if f"{name}-db" not in event["message"]]
        return "; ".join(wrong)


def _says(body: Json, name: str) -> bool:
    condition = conditions(body).get(ConditionType.DATABASE, {})
    return condition.get("reason") == "StillDeleting" and f"{name}-db" in condition.get("message", "")
