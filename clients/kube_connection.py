"""One connection to an API server. It sends requests as JSON, and turns every failure into one of Plattr's errors."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn, Self
from urllib.parse import urlencode

import aiohttp

from clients import fence
from clients.kube_config import load_configuration
from clients.kube_errors import raise_for_status
from clients.kube_library import ApiClient
from clients.resources import Json, Resource
from plattr.backends import Backend, of_backend
from plattr.errors import BackendUnavailable
from telemetry import tracing

FIELD_MANAGER = "plattr"

# Calls take milliseconds. An API server that needs more than 15 s has a failure, and Temporal retries.
CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 15.0

JSON = "application/json"


class KubeConnection:
    """The connection and its credentials. Create it with `connect`; writes ask the fence."""

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
        """The cluster's id, as owner marks name it; empty for a process that writes no owner marks."""
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
            field_manager: the name under which the API server records the fields that this client applies.
            redact: keep sent values out of errors; False if the errors go to the terminal of the person who sent them.
            cluster: the cluster's id in owner marks, if it is known already.

        Raises:
            MissingSetting: there is no usable configuration.
        """
        configuration, refresher = await load_configuration(kubeconfig)
        return cls(
            ApiClient(configuration),
            refresher,
            field_manager=field_manager,
            redact=redact,
            cluster=cluster,
        )

    async def close(self) -> None:
        """Close the connections; the client cannot be used afterwards."""
        if self._refresher is not None:
            self._refresher.cancel()
            await asyncio.gather(self._refresher, return_exceptions=True)
        await self._api.close()  # type: ignore[no-untyped-call]  # the library is untyped here

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
        content_type: str = JSON,
        accept: str = JSON,
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
        content_type: str = JSON,
        accept: str = JSON,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        # Not compressed: a megabyte of one letter is a kilobyte on the wire. Its size would be known too late.
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        headers |= {"Content-Type": content_type, "User-Agent": self._field_manager}
        parameters = {name: value for name, value in (query or {}).items() if value}
        url = self._api.configuration.host + path + (f"?{urlencode(parameters)}" if parameters else "")
        timeout = timeout or aiohttp.ClientTimeout(total=TOTAL_SECONDS, sock_connect=CONNECT_SECONDS)
        try:
            await self._api.update_params_for_auth(headers, None, ["BearerToken"], path, method, None)
            answer = await self._api.rest_client.request(  # type: ignore[no-untyped-call]  # as above
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
            async with answer.response as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _unavailable(action, error)


def _unavailable(action: str, error: Exception) -> NoReturn:
    # The library's text names the host and the cause. It never contains a body or a header.
    cause = str(error) or type(error).__name__
    unreachable = BackendUnavailable(f"cannot {action}: the API server cannot be reached: {cause}")
    raise of_backend(Backend.KUBERNETES, unreachable) from None
