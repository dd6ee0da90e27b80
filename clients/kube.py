"""Kubernetes as raw JSON over the library's connection; every failure becomes one of Plattr's errors.

The library provides authentication, TLS, token refresh and the pool. This client does not use its typed models: in
version 37 they raise on an unknown field after the write was sent.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp

from clients import kube_answers
from clients.kube_connection import CONNECT_SECONDS, JSON, KubeConnection
from clients.kube_errors import GoneError, NamespaceEnding, raise_for_event, raise_for_status
from clients.resources import Json, Resource, is_deleting
from plattr.backends import Backend
from plattr.errors import StillDeleting
from plattr.marks import ensure_own
from plattr.objects import Owner
from plattr.target import mark_of
from telemetry import tracing

__all__ = ["GoneError", "KubeClient", "Listing", "NamespaceEnding"]

# A watch gets a bookmark every 60 s. Ten more seconds without a byte mean that the connection is dead.
WATCH_SILENCE_SECONDS = 70.0
# The size of client-go's pages.
PAGE_SIZE = 500
# 8 MiB: if a page is longer, it is requested again with fewer objects. A tenant's object can have 1.5 MB, so 500 of
# them would take three quarters of a gigabyte before the first is read.
PAGE_BYTES = 8 * 2**20

_APPLY = "application/apply-patch+yaml"
_JSON_PATCH = "application/json-patch+json"
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_METADATA_OF_ONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


@dataclass(frozen=True)
class Listing:
    """All objects of a resource, or one page, and the version from which a watch continues without a gap."""

    items: list[Json]
    resource_version: str


class KubeClient(KubeConnection):
    """One API server. Create it with `connect`; reads return plain JSON, and writes ask the fence."""

    async def get(
        self, resource: Resource, name: str, namespace: str = "", *, metadata_only: bool = False
    ) -> Json | None:
        """Return the object, or None when it does not exist; with `metadata_only` no value of a Secret is sent."""
        path, action = resource.path(namespace, name), f"read {resource.describe(name, namespace)}"
        accept = _METADATA_OF_ONE if metadata_only else JSON
        return await self._call("GET", path, action, resource, accept=accept, or_none=(404,))

    async def create(self, resource: Resource, body: Json, namespace: str = "") -> Json | None:
        """Create the object; None when the name is taken: the caller reads that object and compares."""
        action = f"create {resource.describe(body['metadata']['name'], namespace)}"
        # Strict: a misspelt field is an error in our code, so the server must not drop it silently.
        query = {"fieldManager": self._field_manager, "fieldValidation": "Strict"}
        return await self._call(
            "POST", resource.path(namespace), action, resource, query, body=body, or_none=("AlreadyExists",)
        )

    async def apply(self, resource: Resource, body: Json, namespace: str = "", *, force: bool = True) -> Json:
        """Apply the object server-side: create it, or set our fields to the values in `body`.

        Nothing changes, not even the resourceVersion, if the fields have these values already.

        Raises:
            Conflict: without `force`, another manager owns a field; or `body` names a uid that no longer exists.
        """
        name = body["metadata"]["name"]
        action = f"apply {resource.describe(name, namespace)}"
        query = {"fieldManager": self._field_manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        return await self._expect(
            "PATCH", resource.path(namespace, name), action, resource, query, body=body, content_type=_APPLY
        )

    async def apply_owned(self, resource: Resource, body: Json, owner: Owner, namespace: str = "") -> Json:
        """Apply an object that belongs to `owner`; `body` carries the owner's labels and annotations.

        Raises:
            OwnedElsewhere: the name belongs to another owner's object, or to an object without an owner mark.
            StillDeleting: the old object of this name is still being deleted.
            Conflict: somebody created or replaced the object between our read and our write.
        """
        existing = await self.get(resource, body["metadata"]["name"], namespace)
        return await self.apply_over(existing, resource, body, owner, namespace)

    async def apply_over(
        self, existing: Json | None, resource: Resource, body: Json, owner: Owner, namespace: str = ""
    ) -> Json:
        """Apply an object over `existing`, which the caller has just read; raises as `apply_owned` does."""
        if existing is None:
            # Without force: an object that appears between the read and this write is not ours.
            return await self.apply(resource, body, namespace, force=False)
        what = resource.describe(body["metadata"]["name"], namespace)
        ensure_own(what, mark_of(existing), owner)
        if is_deleting(existing):
            raise StillDeleting(f"cannot apply {what}: the old one is still being deleted")
        # With the uid, the server refuses the write if the object was replaced since we read its owner mark.
        metadata = {**body["metadata"], "uid": existing["metadata"]["uid"]}
        return await self.apply(resource, {**body, "metadata": metadata}, namespace)

    async def json_patch(
        self, resource: Resource, name: str, operations: list[Json], namespace: str = "", *, subresource: str = ""
    ) -> Json | None:
        """Patch by RFC 6902 operations; None when the object does not exist.

        Raises:
            Conflict: a `test` failed, or a path does not exist: read again and compare.
        """
        path = resource.path(namespace, name, subresource)
        return await self._call(
            "PATCH",
            path,
            f"patch {resource.describe(name, namespace)}",
            resource,
            {"fieldManager": self._field_manager},
            body=operations,
            content_type=_JSON_PATCH,
            or_none=(404,),
        )

    async def replace_status(self, resource: Resource, body: Json, namespace: str) -> Json:
        """Replace the status; `body` is the whole object as it was read, with its resourceVersion.

        Raises:
            Conflict: the object has changed since it was read.
        """
        name = body["metadata"]["name"]
        path = resource.path(namespace, name, "status")
        action = f"update the status of {resource.describe(name, namespace)}"
        return await self._expect("PUT", path, action, resource, {"fieldManager": self._field_manager}, body=body)

    async def delete(
        self, resource: Resource, name: str, namespace: str = "", *, uid: str | None = None, version: str | None = None
    ) -> bool:
        """Request the object's deletion; its dependents follow in the background. False: it did not exist.

        Raises:
            Conflict: the object of this name has another uid or another resourceVersion.
        """
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        conditions = {"uid": uid, "resourceVersion": version}
        if given := {name: value for name, value in conditions.items() if value is not None}:
            options["preconditions"] = given
        action = f"delete {resource.describe(name, namespace)}"
        path = resource.path(namespace, name)
        return await self._call("DELETE", path, action, resource, body=options, or_none=(404,)) is not None

    async def snapshot(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> Listing:
        """Return the objects that `list` returns, with the version to watch from."""
        items: list[Json] = []
        version = ""
        async for page in self.pages(resource, namespace, label_selector=label_selector, field_selector=field_selector):
            items += page.items
            version = page.resource_version
        return Listing(items, version)

    async def pages(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> AsyncGenerator[Listing]:
        """Yield the objects that `list` returns, in pages of bounded size. Use it to keep only a part of each object.

        Args:
            resource: the resource type to list.
            namespace: the namespace to list; empty: all namespaces.
            label_selector: as in kubectl.
            field_selector: as in kubectl.
            metadata_only: leave out spec, status and data; the API server does not send them.

        Raises:
            GoneError: the pages took so long that the server no longer keeps their version: list again.
        """
        query = {"labelSelector": label_selector, "fieldSelector": field_selector}
        limit = PAGE_SIZE
        while True:
            most = PAGE_BYTES if limit > 1 else None
            asked = query | {"limit": str(limit)}
            text = await self._page(resource, namespace, asked, metadata_only=metadata_only, most=most)
            if text is None:
                limit = max(1, limit // 4)
                continue
            if len(text) < PAGE_BYTES // 4:
                limit = min(limit * 2, PAGE_SIZE)
            page: Json = json.loads(text)
            del text
            # With `metadata_only`, the server sends null for an empty list.
            yield Listing(page["items"] or [], page["metadata"]["resourceVersion"])
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return

    async def list_small(
        self,
        resource: Resource,
        namespace: str,
        *,
        label_selector: str = "",
        field_selector: str = "",
        count: int,
        size: int,
    ) -> list[Json] | None:
        """Return the objects that `list` returns, in one call; None: more than `count` objects or `size` bytes match.

        Use it for a few objects of a kind that tenants create too. A tenant who copies their labels to many objects
        must not fill our memory.
        """
        query = {"labelSelector": label_selector, "fieldSelector": field_selector, "limit": str(count)}
        text = await self._page(resource, namespace, query, metadata_only=False, most=size)
        if text is None:
            return None
        page: Json = json.loads(text)
        items: list[Json] = page["items"]
        return None if page["metadata"].get("continue") else items

    async def watch(
        self,
        resource: Resource,
        resource_version: str,
        namespace: str = "",
        *,
        timeout_seconds: int,
        label_selector: str = "",
    ) -> AsyncIterator[Json]:
        """Yield `{"type": ADDED | MODIFIED | DELETED | BOOKMARK, "object": ...}` until the server ends the watch.

        Raises:
            GoneError: the version is too old: list again.
            BackendUnavailable: the connection broke, or sent nothing for longer than the interval of bookmarks.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
            "labelSelector": label_selector,
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=WATCH_SILENCE_SECONDS)
        action = f"watch {resource.plural}"
        async with self._send("GET", resource.path(namespace), action, query, timeout=timeout) as response:
            if response.status >= 400:
                text = await response.read()
                raise_for_status(action, resource, response.status, text, redact=self._redact)
            async for line in kube_answers.lines(response.content):
                event: Json = json.loads(line)
                if event["type"] == "ERROR":
                    raise_for_event(action, resource, event["object"], redact=self._redact)
                yield event

    # Defined after every annotation that uses the built-in type `list`.
    async def list(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> list[Json]:
        """Return all objects that match, of one namespace or of all; the items have no `kind` field."""
        listing = await self.snapshot(resource, namespace, label_selector=label_selector, field_selector=field_selector)
        return listing.items

    async def _page(
        self, resource: Resource, namespace: str, query: Mapping[str, str], *, metadata_only: bool, most: int | None
    ) -> bytes | None:
        """Return one page of a list as the server sent it; None: it has more than `most` bytes."""
        action, path = f"list {resource.plural}", resource.path(namespace)
        accept = _METADATA if metadata_only else JSON
        with tracing.span(Backend.KUBERNETES, "request", {"http.request.method": "GET", "url.path": path}):
            async with self._send("GET", path, action, query, accept=accept) as response:
                text = await kube_answers.read(response.content, most)
                if text is None:
                    kube_answers.abort(response)
        if text is not None and response.status >= 400:
            raise_for_status(action, resource, response.status, text, redact=self._redact)
        return text
