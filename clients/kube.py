"""Kubernetes as raw JSON over the library's connection; every failure becomes one of Plattr's errors.

The library gives authentication, TLS, token refresh and the pool. Its typed models stay out: in 37 they raise on
an unknown field after the write was sent.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, Self
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yaml

from clients import fence
from clients.kube_errors import GoneError, NamespaceEnding, raise_for_event, raise_for_status
from clients.kube_library import (
    ApiClient,
    ConfigException,
    Configuration,
    load_incluster_config,
    load_kube_config,
    refresh_token,
)
from clients.resources import Json, Resource, is_deleting
from plattr.backends import Backend, of_backend
from plattr.errors import BackendUnavailable, MissingSetting, StillDeleting
from plattr.marks import ensure_own
from plattr.objects import Owner
from plattr.target import annotated_mark
from telemetry import tracing

__all__ = ["FIELD_MANAGER", "GoneError", "KubeClient", "Listing", "NamespaceEnding"]

FIELD_MANAGER = "plattr"

# Calls take milliseconds; an API server that needs longer than 15 s is not well, and Temporal tries again.
CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 15.0
# A watch's bookmarks come every 60 s: ten seconds more without a byte mean that the connection is dead.
WATCH_SILENCE_SECONDS = 70.0
# 16: an open TLS connection takes a third of a megabyte, and one CPU of Python sends no more calls than these answer;
# 64 made a worker 23 MB larger and no faster. Beyond it calls wait for a connection.
POOL_SIZE = 16
# The size of client-go's pages.
PAGE_SIZE = 500
# 8 MiB: fewer objects are asked for when a page is longer. A tenant's object can have 1.5 MB, and 500 of those would be
# three quarters of a gigabyte before the first was looked at.
PAGE_BYTES = 8 * 2**20

_APPLY = "application/apply-patch+yaml"
_JSON_PATCH = "application/json-patch+json"
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_METADATA_OF_ONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


@dataclass(frozen=True)
class Listing:
    """Objects of a resource, all or a page, and the version from which a watch of all goes on without a gap."""

    items: list[Json]
    resource_version: str


class KubeClient:
    """One API server. Make it with `connect`; reads return plain JSON, writes pass the fence."""

    def __init__(
        self,
        api: ApiClient,
        refresher: asyncio.Task[None] | None = None,
        *,
        field_manager: str = FIELD_MANAGER,
        redact: bool = True,
        cluster: str = "",
    ) -> None:
        self.cluster = cluster
        """Which cluster it is, as the marks of its objects' resources name it; empty for whoever marks nothing."""
        self._api = api
        self._refresher = refresher
        self._field_manager = field_manager
        self._redact = redact

    @classmethod
    async def connect(
        cls,
        kubeconfig: str | None = None,
        *,
        field_manager: str = FIELD_MANAGER,
        redact: bool = True,
        cluster: str = "",
    ) -> Self:
        """Return a client; nothing is sent yet.

        Args:
            kubeconfig: a file's path; without it KUBECONFIG, the pod's own service account, or ~/.kube/config.
            field_manager: whose the applied fields are.
            redact: keep what was sent out of errors; False where they go to the terminal of the person who sent it.
            cluster: how resources name this cluster, where that is known already.

        Raises:
            MissingSetting: there is no usable configuration.
        """
        configuration = Configuration()
        # Temporal retries; a hidden retry here would only make an attempt outlive its deadline.
        configuration.retries = None
        configuration.connection_pool_maxsize = POOL_SIZE
        # Else aiohttp looks for ~/.netrc and for proxies in the environment again for each request, in a thread each:
        # two changes of thread a call. Whether there is a proxy is found out once, below.
        configuration.client_session_kwargs = {"trust_env": False}
        path = kubeconfig or os.environ.get("KUBECONFIG")
        in_pod = path is None and "KUBERNETES_SERVICE_HOST" in os.environ
        path = path or "~/.kube/config"
        source = "the pod's service account" if in_pod else f"kubeconfig {path!r}"
        refresher = None
        try:
            if in_pod:
                load_incluster_config(configuration)  # type: ignore[no-untyped-call]  # the library is untyped here
            else:
                loader = await load_kube_config(  # type: ignore[no-untyped-call]  # as above
                    path, client_configuration=configuration, persist_config=False
                )
                # Credentials of an exec plugin (EKS, GKE) live for minutes only; for others the task ends at once.
                refreshing = refresh_token(loader, configuration)  # type: ignore[no-untyped-call]  # as above
                refresher = asyncio.create_task(refreshing)
        except yaml.YAMLError:
            # The parser quotes the line, and that may be the token's.
            raise MissingSetting(f"cannot connect to Kubernetes: {source} is not YAML") from None
        except (ConfigException, OSError) as error:
            raise MissingSetting(f"cannot connect to Kubernetes: {source} cannot be used: {error}") from None
        configuration.proxy = configuration.proxy or _proxy_from_environment(configuration.host)
        return cls(
            ApiClient(configuration),
            refresher,
            field_manager=field_manager,
            redact=redact,
            cluster=cluster,
        )

    async def close(self) -> None:
        """Close the connections; the client is of no use afterwards."""
        if self._refresher is not None:
            self._refresher.cancel()
            await asyncio.gather(self._refresher, return_exceptions=True)
        await self._api.close()  # type: ignore[no-untyped-call]  # the library is untyped here

    async def get(
        self, resource: Resource, name: str, namespace: str = "", *, metadata_only: bool = False
    ) -> Json | None:
        """Return the object, or None when it does not exist; of a Secret's metadata no value leaves the API server."""
        path, action = _path(resource, namespace, name), f"read {_what(resource, name, namespace)}"
        accept = _METADATA_OF_ONE if metadata_only else _JSON
        return await self._call("GET", path, action, resource, accept=accept, or_none=(404,))

    async def create(self, resource: Resource, body: Json, namespace: str = "") -> Json | None:
        """Create the object; None when the name is taken: the caller reads it and compares."""
        action = f"create {_what(resource, body['metadata']['name'], namespace)}"
        # Strict: a misspelt field is a defect of ours and must not vanish silently.
        query = {"fieldManager": self._field_manager, "fieldValidation": "Strict"}
        return await self._call(
            "POST", _path(resource, namespace), action, resource, query, body=body, or_none=("AlreadyExists",)
        )

    async def apply(self, resource: Resource, body: Json, namespace: str = "", *, force: bool = True) -> Json:
        """Apply the object server-side: create it, or bring the fields that are ours to what `body` says.

        Nothing changes, not even the resourceVersion, when they are so already.

        Raises:
            Conflict: without `force`, another manager owns a field; or `body` names a uid that is gone.
        """
        name = body["metadata"]["name"]
        action = f"apply {_what(resource, name, namespace)}"
        query = {"fieldManager": self._field_manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        return await self._expect(
            "PATCH", _path(resource, namespace, name), action, resource, query, body=body, content_type=_APPLY
        )

    async def apply_owned(self, resource: Resource, body: Json, owner: Owner, namespace: str = "") -> Json:
        """Apply an object that belongs to `owner`; `body` carries the owner's labels and annotations.

        Raises:
            OwnedElsewhere: the name is taken by another owner's object, or by one without an owner.
            StillDeleting: the old object of this name is on its way out.
            Conflict: somebody created or replaced the object between our read and our write.
        """
        existing = await self.get(resource, body["metadata"]["name"], namespace)
        return await self.apply_over(existing, resource, body, owner, namespace)

    async def apply_over(
        self, existing: Json | None, resource: Resource, body: Json, owner: Owner, namespace: str = ""
    ) -> Json:
        """Apply an object over what the caller has just read under its name; raises as `apply_owned` does."""
        if existing is None:
            # Without force: what appears between the read and this write is not ours.
            return await self.apply(resource, body, namespace, force=False)
        what = _what(resource, body["metadata"]["name"], namespace)
        ensure_own(what, annotated_mark(existing["metadata"].get("annotations", {})), owner)
        if is_deleting(existing):
            raise StillDeleting(f"cannot apply {what}: the old one is still being deleted")
        # The uid makes the server refuse if the object was replaced since we looked whose it is.
        metadata = {**body["metadata"], "uid": existing["metadata"]["uid"]}
        return await self.apply(resource, {**body, "metadata": metadata}, namespace)

    async def json_patch(
        self, resource: Resource, name: str, operations: list[Json], namespace: str = "", *, subresource: str = ""
    ) -> Json | None:
        """Patch by RFC 6902 operations; None when the object does not exist.

        Raises:
            Conflict: a `test` failed, or a path is not there: read again and compare.
        """
        path = _path(resource, namespace, name, subresource)
        return await self._call(
            "PATCH",
            path,
            f"patch {_what(resource, name, namespace)}",
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
        path = _path(resource, namespace, name, "status")
        action = f"update the status of {_what(resource, name, namespace)}"
        return await self._expect("PUT", path, action, resource, {"fieldManager": self._field_manager}, body=body)

    async def delete(
        self, resource: Resource, name: str, namespace: str = "", *, uid: str | None = None, version: str | None = None
    ) -> bool:
        """Ask for the object's deletion; its dependents follow in the background. False: it was not there.

        Raises:
            Conflict: the object of this name has another uid, or resourceVersion.
        """
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        conditions = {"uid": uid, "resourceVersion": version}
        if given := {name: value for name, value in conditions.items() if value is not None}:
            options["preconditions"] = given
        action = f"delete {_what(resource, name, namespace)}"
        path = _path(resource, namespace, name)
        return await self._call("DELETE", path, action, resource, body=options, or_none=(404,)) is not None

    async def snapshot(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> Listing:
        """Return what `list` returns, with the version to watch from."""
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
        """Yield what `list` returns in pages of bounded size, for whoever keeps only a little of each object.

        Args:
            resource: what to list.
            namespace: of one namespace; empty: of all.
            label_selector: as kubectl's.
            field_selector: as kubectl's.
            metadata_only: neither spec nor status nor data; nothing of them leaves the API server.

        Raises:
            GoneError: the pages took so long that the server has forgotten their version: list again.
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
            # Of metadata alone an empty list is null.
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
        """Return what `list` returns, by one call; None: it is more than `count` objects or `size` bytes.

        For a few objects of a kind that tenants make too: whoever copies their labels must not fill our memory.
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
            BackendUnavailable: the connection broke, or was silent for longer than bookmarks allow.
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
        async with self._send("GET", _path(resource, namespace), action, query, timeout=timeout) as response:
            if response.status >= 400:
                text = await response.read()
                raise_for_status(action, resource, response.status, text, redact=self._redact)
            async for line in _lines(response.content):
                event: Json = json.loads(line)
                if event["type"] == "ERROR":
                    raise_for_event(action, resource, event["object"], redact=self._redact)
                yield event

    # Below every annotation that means the type of this name.
    async def list(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> list[Json]:
        """Return all objects that match, of one namespace or of all; items carry no kind of their own."""
        listing = await self.snapshot(resource, namespace, label_selector=label_selector, field_selector=field_selector)
        return listing.items

    async def _page(
        self, resource: Resource, namespace: str, query: Mapping[str, str], *, metadata_only: bool, most: int | None
    ) -> bytes | None:
        """Return one page of a list as the server wrote it; None: it has more than `most` bytes."""
        action, path = f"list {resource.plural}", _path(resource, namespace)
        timeout = aiohttp.ClientTimeout(total=TOTAL_SECONDS, sock_connect=CONNECT_SECONDS)
        accept = _METADATA if metadata_only else _JSON
        with tracing.span(Backend.KUBERNETES, "request", {"http.request.method": "GET", "url.path": path}):
            async with self._send("GET", path, action, query, accept=accept, timeout=timeout) as response:
                text = await _read(response.content, most)
                if text is None:
                    _abort(response)
        if text is not None and response.status >= 400:
            raise_for_status(action, resource, response.status, text, redact=self._redact)
        return text

    async def _expect(
        self,
        method: str,
        path: str,
        action: str,
        resource: Resource,
        query: Mapping[str, str] | None = None,
        **arguments: Any,
    ) -> Json:
        answer = await self._call(method, path, action, resource, query, **arguments)
        if answer is None:
            empty = BackendUnavailable(f"cannot {action}: the API server sent an empty answer")
            raise of_backend(Backend.KUBERNETES, empty)
        return answer

    async def _call(
        self,
        method: str,
        path: str,
        action: str,
        resource: Resource,
        query: Mapping[str, str] | None = None,
        *,
        body: object = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        or_none: tuple[int | str, ...] = (),
    ) -> Json | None:
        """Send one request; None for the codes or reasons in `or_none`."""
        total = TOTAL_SECONDS
        if method != "GET":
            fence.ensure_live()
            total = min(total, fence.seconds_on_the_way())
        timeout = aiohttp.ClientTimeout(total=total, sock_connect=CONNECT_SECONDS)
        with tracing.span(Backend.KUBERNETES, "request", {"http.request.method": method, "url.path": path}):
            async with self._send(
                method, path, action, query, body=body, content_type=content_type, accept=accept, timeout=timeout
            ) as response:
                text = await response.read()
        if response.status < 400:
            answer: Json = json.loads(text)
            return answer
        raise_for_status(action, resource, response.status, text, sent=body, or_none=or_none, redact=self._redact)
        return None

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        path: str,
        action: str,
        query: Mapping[str, str] | None = None,
        *,
        body: object = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        # Not compressed: a megabyte of one letter is a kilobyte on the wire, so its size would be known too late.
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        headers |= {"Content-Type": content_type, "User-Agent": self._field_manager}
        parameters = {name: value for name, value in (query or {}).items() if value}
        url = self._api.configuration.host + path + (f"?{urlencode(parameters)}" if parameters else "")
        try:
            await self._api.update_params_for_auth(headers, None, ["BearerToken"], path, method, None)
            answer = await self._api.rest_client.request(  # type: ignore[no-untyped-call]  # as above
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
            async with answer.response as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _unavailable(action, error)


def _proxy_from_environment(url: str) -> str | None:
    """Return the proxy that HTTPS_PROXY and NO_PROXY name for the API server, as every client of Kubernetes has it."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _abort(response: aiohttp.ClientResponse) -> None:
    """Drop the connection of an answer whose rest is on its way; an orderly end would wait for all of it."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()
    response.close()


async def _read(content: aiohttp.StreamReader, most: int | None) -> bytes | None:
    """Return the whole answer; None as soon as it has become longer than `most`."""
    chunks, size = [], 0
    async for chunk in content.iter_any():
        size += len(chunk)
        if most is not None and size > most:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield an answer's lines as they come; aiohttp's own reading of lines fails at one that outgrows its buffer."""
    parts: list[bytes] = []
    async for chunk in content.iter_any():
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield b"".join([*parts, end])
            parts = []
        if rest:
            parts.append(rest)
    if parts:
        yield b"".join(parts)


def _unavailable(action: str, error: Exception) -> NoReturn:
    # The library's text names the host and the cause; it never holds a body or a header.
    cause = str(error) or type(error).__name__
    unreachable = BackendUnavailable(f"cannot {action}: the API server cannot be reached: {cause}")
    raise of_backend(Backend.KUBERNETES, unreachable) from None


def _path(resource: Resource, namespace: str = "", name: str = "", subresource: str = "") -> str:
    root = f"/apis/{resource.group}" if resource.group else "/api"
    parts = [root, resource.version]
    if resource.namespaced and namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts += [part for part in (resource.plural, quote(name, safe=""), subresource) if part]
    return "/".join(parts)


def _what(resource: Resource, name: str, namespace: str) -> str:
    place = f" in namespace {namespace!r}" if resource.namespaced and namespace else ""
    return f"{resource.kind} {name!r}{place}"
