"""Authenticated HTTP to one Keycloak; a token that is missing, expired or refused is replaced by a new one.

It uses httpx alone. python-keycloak offers its tokens only together with a session of `requests`, its own retries and
private methods; see docs/decisions/0044-libraries.md.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from httpx import AsyncClient, HTTPError, InvalidURL, Limits, Response

from clients import fence
from clients.resources import Json
from plattr.settings import Settings

# The last tenth of the lifetime is not used, because a token must outlast the call that it begins.
USED_FOR = 0.9
TOKEN_PATH = "realms/master/protocol/openid-connect/token"  # noqa: S105  a path

# The errors of a request that got no answer.
NoAnswer = (HTTPError, InvalidURL)


class LoginFailed(Exception):
    """Raised when Keycloak gives no token; `code` is the answer's status, None when the answer is not Keycloak's."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"the login was answered {code}")
        self.code = code


class KeycloakTransport:
    """Sends requests as the service account, or as the admin user if no service account is set.

    It logs in again and uses no refresh tokens. A refresh token ends with its Keycloak session; credentials do not.
    """

    def __init__(self, settings: Settings, *, connections: int, timeout_seconds: float) -> None:
        self.address = settings.keycloak_url.rstrip("/")
        self._grant, self.account = _grant(settings)
        self._http = AsyncClient(timeout=timeout_seconds, limits=Limits(max_connections=connections))
        self._token: str | None = None
        self._ends = 0.0
        self._login = asyncio.Lock()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, method: str, path: str, *, body: Json | None = None, query: Mapping[str, str]) -> Response:
        """Send one request; a write asks the fence at the moment it goes to the socket.

        Raises:
            LoginFailed: Keycloak refuses the credentials or has a failure, or something else answers in its place.
            HTTPError, InvalidURL: no answer came; `NoAnswer` names both.
            FencedOff: the attempt's lease has expired.
        """
        token = self._token
        if token is None or time.monotonic() >= self._ends:
            token = await self._renew(token)
        response = await self._send(method, path, token, body, query)
        if response.status_code == 401:
            response = await self._send(method, path, await self._renew(token), body, query)
        return response

    async def _send(self, method: str, path: str, token: str, body: Json | None, query: Mapping[str, str]) -> Response:
        # https://www.encode.io/httpcore/extensions/#trace
        extensions = {} if method == "GET" else {"trace": _ask_fence}
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self.address}/{path}"
        return await self._http.request(
            method, url, json=body, params=dict(query), headers=headers, extensions=extensions
        )

    async def _renew(self, stale: str | None) -> str:
        """Log in; concurrent callers wait for the same token."""
        async with self._login:
            if self._token is not None and self._token != stale:
                return self._token
            begun = time.monotonic()
            response = await self._http.post(f"{self.address}/{TOKEN_PATH}", data=self._grant)
            if not response.is_success:
                raise LoginFailed(response.status_code)
            try:
                answer = response.json()
                token, seconds = str(answer["access_token"]), float(answer["expires_in"])
            except (KeyError, TypeError, ValueError):
                # A proxy or another server answers 200 without a token.
                raise LoginFailed(None) from None
            self._token, self._ends = token, begun + seconds * USED_FOR
            return token


def _grant(settings: Settings) -> tuple[dict[str, str], tuple[str, str]]:
    """Return the form of the login, the account that logs in, and the settings that name it."""
    if settings.keycloak_client_id is not None and settings.keycloak_client_secret is not None:
        form = {
            "grant_type": "client_credentials",
            "client_id": settings.keycloak_client_id,
            "client_secret": settings.keycloak_client_secret.get_secret_value(),
        }
        return form, (f"client {settings.keycloak_client_id!r}", "KEYCLOAK_CLIENT_ID and KEYCLOAK_CLIENT_SECRET")
    password = settings.keycloak_admin_password
    form = {
        "grant_type": "password",
        "client_id": "admin-cli",
        "username": settings.keycloak_admin_user or "",
        "password": password.get_secret_value() if password is not None else "",
    }
    return form, (f"user {settings.keycloak_admin_user!r}", "KEYCLOAK_ADMIN_USER and KEYCLOAK_ADMIN_PASSWORD")


async def _ask_fence(event: str, _: Mapping[str, Any]) -> None:
    """Ask the fence when a write goes to the socket, because the wait for a connection can be long."""
    if event == "http11.send_request_headers.started":
        fence.ensure_live()
