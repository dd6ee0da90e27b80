"""OpenSearch's REST API, as far as what an application made there has to go; failures become Plattr's errors.

Whatever goes is listed, compared and then named whole: no wildcard is ever sent with a deletion.
No call is repeated here; Temporal does that, after reading again.
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

# 30 s: to delete an index is a change of the cluster's state, for which all nodes are waited for.
SECONDS = 30.0
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_REASON_LIMIT = 300
# A component template that nothing is composed of: the one place for words about a prefix. It is not below the prefix,
# so that an application which clears away its own leaves it.
_RECORD_TEMPLATE = "plattr-owner-"
_RECORD_FIELD = "plattr"


class Trace(FrozenModel):
    """One thing with a name of its own; `path` is where it is deleted."""

    kind: str
    name: str
    path: str


class OpenSearchClient:
    """One cluster, as its admin."""

    def __init__(self, url: SecretStr, *, seconds: float = SECONDS) -> None:
        address = urlsplit(url.get_secret_value())
        # Without user and password: for messages, and for the requests, which carry them in a header.
        place = (address.hostname or "") + (f":{address.port}" if address.port else "")
        self._base = urlunsplit((address.scheme, place, address.path.rstrip("/"), "", ""))
        self._headers = {}
        if address.username:
            login = aiohttp.encode_basic_auth(unquote(address.username), unquote(address.password or ""))
            self._headers = {"Authorization": login}
        self._seconds = seconds

    @classmethod
    def connect(cls, settings: Settings) -> Self | None:
        """Return a client, nothing is sent yet; None when the platform does not manage OpenSearch."""
        return None if settings.opensearch_admin_url is None else cls(settings.opensearch_admin_url)

    async def traces(self, prefix: str) -> list[Trace]:
        """Return what bears the prefix: data streams, indices, aliases and templates, in the order to delete them.

        That is the prefix itself, and what begins with it and a hyphen, which no application's own prefix holds:
        `prod_shop-*` is never `prod_shop_2`'s.
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
        # An alias of one's own index goes with that.
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
        """Return what is recorded of whose a prefix is, empty when it cannot be read; None: nothing is recorded."""
        async with self._session() as session:
            body = await self._get(session, _record_path(prefix), "owner's record of a prefix")
        for template in (body or {}).get("component_templates", []):
            text = (template["component_template"].get("_meta") or {}).get(_RECORD_FIELD)
            return text if isinstance(text, str) else ""
        return None

    async def put_record(self, prefix: str, record: str, *, is_new: bool) -> None:
        """Record whose a prefix is.

        Raises:
            Conflict: somebody has recorded the first meanwhile.
        """
        body = {"template": {}, "_meta": {_RECORD_FIELD: record}}
        path = _record_path(prefix) + ("?create=true" if is_new else "")
        async with self._session() as session:
            await self._send(session, "PUT", path, f"record the owner of prefix {prefix!r}", body=body)

    async def delete_record(self, prefix: str) -> None:
        """Forget whose a prefix is; a missing record is success."""
        async with self._session() as session:
            await self._send(session, "DELETE", _record_path(prefix), f"delete the owner's record of {prefix!r}")

    async def delete(self, trace: Trace) -> None:
        """Delete exactly this; a missing one is success."""
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
        """Return the answer's body; None for 404."""
        is_write = method != "GET"
        if is_write:
            fence.ensure_live()
        # A write waits for its connection as well: it must not be sent long after the fence was asked.
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
    """Tell whether a name is an application's own by its prefix."""
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
    """Return OpenSearch's own word for it."""
    error = body.get("error", body.get("message")) if isinstance(body, dict) else None
    reason = error.get("reason") if isinstance(error, dict) else error
    return str(reason or "no reason given")[:_REASON_LIMIT]
