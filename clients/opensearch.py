"""The part of OpenSearch's REST API that removes an application's data; failures become Plattr's errors.

Everything to delete is listed, compared and then named in full. No deletion ever contains a wildcard.
This client repeats no call. Temporal retries, and each attempt reads again first.
"""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import aiohttp
from pydantic import SecretStr

from clients import fence
from plattr.backends import Backend, of_backend
from plattr.errors import BackendRefused, BackendUnavailable, Conflict, PlattrError
from plattr.objects import FrozenModel
from plattr.settings import Settings
from telemetry import tracing

# 30 s: the deletion of an index changes the cluster's state, and OpenSearch waits until all nodes have the change.
SECONDS = 30.0
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_REASON_LIMIT = 300
# The record is a component template that no index template uses. OpenSearch has no other place for a text about a
# prefix. Its name does not begin with the prefix, so an application that deletes its own names leaves the record.
_RECORD_TEMPLATE = "plattr-owner-"
_RECORD_FIELD = "plattr"


class Trace(FrozenModel):
    """One named resource of an application; `path` is the path of its deletion."""

    kind: str
    name: str
    path: str


class OpenSearchClient:
    """One OpenSearch cluster, as its admin."""

    def __init__(self, url: SecretStr, *, seconds: float = SECONDS) -> None:
        address = urlsplit(url.get_secret_value())
        # The address without user and password, for messages and requests. Requests carry the login in a header.
        place = (address.hostname or "") + (f":{address.port}" if address.port else "")
        self._base = urlunsplit((address.scheme, place, address.path.rstrip("/"), "", ""))
        self._headers = {}
        if address.username:
            login = aiohttp.encode_basic_auth(unquote(address.username), unquote(address.password or ""))
            self._headers = {"Authorization": login}
        self._seconds = seconds

    @classmethod
    def connect(cls, settings: Settings) -> Self | None:
        """Return a client without sending anything; None when the platform does not manage OpenSearch."""
        return None if settings.opensearch_admin_url is None else cls(settings.opensearch_admin_url)

    async def traces(self, prefix: str) -> list[Trace]:
        """Return the data streams, indices, aliases and templates with the prefix, in the order to delete them.

        A name has the prefix if it equals the prefix, or begins with the prefix and a hyphen. No application's prefix
        contains a hyphen: `prod_shop-*` never belongs to `prod_shop_2`.
        """
        async with self._session() as session:
            streams = await self._get(session, f"/_data_stream/{prefix}*", "data streams")
            indices = await self._get(
                session, f"/_cat/indices/{prefix}*?format=json&h=index&expand_wildcards=all", "indices"
            )
            aliases = await self._get(session, f"/_alias/{prefix}*?expand_wildcards=all", "aliases")
            templates = await self._get(session, f"/_index_template/{prefix}*", "index templates")
            components = await self._get(session, f"/_component_template/{prefix}*", "component templates")
            legacy = await self._get(session, f"/_template/{prefix}*", "templates")
        stream_names = [stream["name"] for stream in (streams or {}).get("data_streams", [])]
        index_names = [index["index"] for index in indices or []]
        # The deletion of an index deletes its aliases, too. So only aliases of other indices are listed below.
        pairs = [(index, alias) for index, body in (aliases or {}).items() for alias in body.get("aliases", {})]
        found = [
            *(Trace(kind="data stream", name=name, path=f"/_data_stream/{_q(name)}") for name in stream_names),
            *(Trace(kind="index", name=name, path=f"/{_q(name)}") for name in index_names),
            *(
                Trace(kind="alias", name=alias, path=f"/{_q(index)}/_alias/{_q(alias)}")
                for index, alias in pairs
                if not is_below(index, prefix)
            ),
            *_templates("index template", "/_index_template", _names(templates, "index_templates")),
            *_templates("component template", "/_component_template", _names(components, "component_templates")),
            *_templates("template", "/_template", list(legacy or {})),
        ]
        return [trace for trace in found if is_below(trace.name, prefix)]

    async def record(self, prefix: str) -> str | None:
        """Return the recorded owner of a prefix, empty when the record is unreadable; None: there is no record."""
        async with self._session() as session:
            body = await self._get(session, _record_path(prefix), "owner's record of a prefix")
        for template in (body or {}).get("component_templates", []):
            text = (template["component_template"].get("_meta") or {}).get(_RECORD_FIELD)
            return text if isinstance(text, str) else ""
        return None

    async def put_record(self, prefix: str, record: str, *, is_new: bool) -> None:
        """Record the owner of a prefix.

        Raises:
            Conflict: with `is_new`, somebody else has created the record since it was read.
        """
        body = {"template": {}, "_meta": {_RECORD_FIELD: record}}
        path = _record_path(prefix) + ("?create=true" if is_new else "")
        async with self._session() as session:
            await self._send(session, "PUT", path, f"record the owner of prefix {prefix!r}", body=body)

    async def delete_record(self, prefix: str) -> None:
        """Delete the record of a prefix's owner; a missing record is success."""
        async with self._session() as session:
            await self._send(session, "DELETE", _record_path(prefix), f"delete the owner's record of {prefix!r}")

    async def delete(self, trace: Trace) -> None:
        """Delete exactly this resource; a missing resource is success."""
        action = f"delete {trace.kind} {trace.name!r}"
        async with self._session() as session:
            await self._send(session, "DELETE", trace.path, action)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers=self._headers, timeout=aiohttp.ClientTimeout(total=self._seconds))

    async def _get(self, session: aiohttp.ClientSession, path: str, what: str) -> Any:
        return await self._send(session, "GET", path, f"list the {what}")

    async def _send(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        action: str,
        *,
        body: Mapping[str, object] | None = None,
    ) -> Any:
        """Send one request and return the answer's body; None for 404."""
        is_write = method != "GET"
        if is_write:
            fence.ensure_live()
        # The limit of a write includes the wait for a connection. A write must not go out long after the fence check.
        limit = min(self._seconds, fence.seconds_on_the_way()) if is_write else self._seconds
        try:
            with tracing.span(Backend.OPENSEARCH, "request", {"http.request.method": method}):
                async with asyncio.timeout(limit), session.request(method, self._base + path, json=body) as response:
                    if response.status == 404:
                        return None
                    answer = await response.json(content_type=None)
                    status = response.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            cause = f"no answer within {limit:g} s" if isinstance(error, TimeoutError) else type(error).__name__
            raise self._error(BackendUnavailable, action, f"it cannot be reached: {cause}") from None
        if status >= 400:
            raise self._refusal(action, status, answer)
        return answer

    def _refusal(self, action: str, status: int, body: Any) -> PlattrError:
        reason = _reason(body)
        if status in (401, 403):
            return self._error(BackendRefused, action, f"it answered {status}: {reason}; check OPENSEARCH_ADMIN_URL")
        kind: type[PlattrError] = BackendUnavailable if status in _PASSING else BackendRefused
        if status == 400 and "already exists" in reason:
            kind = Conflict
        return self._error(kind, action, f"it answered {status}: {reason}")

    def _error(self, kind: type[PlattrError], action: str, cause: str) -> PlattrError:
        return of_backend(Backend.OPENSEARCH, kind(f"cannot {action} of OpenSearch at {self._base}: {cause}"))


def is_below(name: str, prefix: str) -> bool:
    """Tell whether a name belongs to the application with this prefix."""
    return name == prefix or name.startswith(f"{prefix}-")


def _record_path(prefix: str) -> str:
    return f"/_component_template/{_q(_RECORD_TEMPLATE + prefix)}"


def _templates(kind: str, path: str, names: Collection[str]) -> list[Trace]:
    return [Trace(kind=kind, name=name, path=f"{path}/{_q(name)}") for name in names]


def _names(body: Any, field: str) -> list[str]:
    return [template["name"] for template in (body or {}).get(field, [])]


def _q(name: str) -> str:
    return quote(name, safe="")


def _reason(body: Any) -> str:
    """Return OpenSearch's own reason for a refusal."""
    error = body.get("error", body.get("message")) if isinstance(body, dict) else None
    reason = error.get("reason") if isinstance(error, dict) else error
    return str(reason or "no reason given")[:_REASON_LIMIT]
