"""Keycloak's admin API, realm by realm; every failure becomes one of Plattr's errors.

Calls use explicit paths, because a list of all realms takes minutes on a large server.
This client repeats no call. Temporal retries, and each attempt reads again first.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self
from urllib.parse import quote

from httpx import ConnectError, ConnectTimeout, PoolTimeout, Response

from clients.keycloak_transport import KeycloakTransport, LoginFailed, NoAnswer
from clients.resources import Json
from plattr.backends import Backend, NothingPending, of_backend
from plattr.errors import BackendRefused, BackendUnavailable, Conflict, PlattrError
from plattr.settings import Settings
from telemetry import tracing

# 10 s: reads take 10 ms, and 100 ms on a server with 500 realms.
READ_SECONDS = 10.0
# 30 s: creating or deleting one realm takes half a second, and up to 14 s if fifty run concurrently.
WRITE_SECONDS = 30.0
# 8: Keycloak creates four realms a second, however many calls wait. It drops connections at fifty concurrent calls.
CONCURRENCY = 8

# Request Timeout, Too Many Requests, and the answers of a server that is starting or has a failure.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_MESSAGE_LIMIT = 300
# Keycloak sends this text with 400 to the loser of a race, even before the winner's realm is visible.
_RACE_ON_H2 = "Database operation failed"


# Errors that httpx raises before it sends a request.
_UNSENT = (ConnectError, ConnectTimeout, PoolTimeout)


class OutcomeUnknown(BackendUnavailable):
    """Raised when a write was sent and no answer came: Keycloak may have done it, or may still be doing it."""


class KeycloakClient:
    """One Keycloak server. Reads return its representations; writes pass the fence."""

    def __init__(
        self,
        transport: KeycloakTransport,
        *,
        read_seconds: float = READ_SECONDS,
        write_seconds: float = WRITE_SECONDS,
    ) -> None:
        self._transport = transport
        self._read_seconds = read_seconds
        self._write_seconds = write_seconds
        self._slots = asyncio.Semaphore(CONCURRENCY)

    @classmethod
    def connect(
        cls, settings: Settings, *, read_seconds: float = READ_SECONDS, write_seconds: float = WRITE_SECONDS
    ) -> Self:
        """Return a client; nothing is sent yet. The service account is preferred to the admin user."""
        transport = KeycloakTransport(settings, connections=CONCURRENCY, timeout_seconds=write_seconds)
        return cls(transport, read_seconds=read_seconds, write_seconds=write_seconds)

    async def close(self) -> None:
        """Close the connections; the client is of no use afterwards."""
        await self._transport.aclose()

    async def get_realm(self, realm: str) -> Json | None:
        """Return the realm, or None when it does not exist.

        If the account has no rights in a realm, Keycloak shows a few fields of the realm and no attributes. A realm
        without an owner mark may therefore be a realm that we may not read.
        """
        response = await self._read(_path(realm), f"read realm {realm!r}")
        if response.status_code == 403:
            return {"realm": realm}
        found: Json | None = self._json(response, f"read realm {realm!r}", or_none=(404,))
        return found

    async def create_realm(self, representation: Json) -> bool:
        """Create the realm with the clients in its representation. False: it exists already, read and compare."""
        realm = representation["realm"]
        return await self._create(
            "admin/realms", representation, f"create realm {realm!r}", lambda: self.get_realm(realm)
        )

    async def update_realm(self, realm: str, fields: Json) -> None:
        """Set the given fields and keep the rest; `attributes` is replaced as a whole."""
        await self._put(_path(realm), f"update realm {realm!r}", {"realm": realm, **fields})

    async def delete_realm(self, realm: str) -> bool:
        """Delete the realm with everything in it. False: it did not exist.

        Raises:
            OutcomeUnknown: no answer came; Keycloak may still be deleting the realm.
        """
        return await self._delete(_path(realm), f"delete realm {realm!r}")

    async def find_client(self, realm: str, client_id: str) -> Json | None:
        """Return the client with this client id; None when the client or the realm does not exist."""
        action = f"read client {client_id!r} of realm {realm!r}"
        response = await self._read(_path(realm, "clients"), action, clientId=client_id)
        found: list[Json] = self._json(response, action, or_none=(403, 404)) or []
        return next((client for client in found if client["clientId"] == client_id), None)

    async def create_client(self, realm: str, representation: Json) -> bool:
        """Create the client. False: it exists already, read and compare."""
        client_id = representation["clientId"]
        return await self._create(
            _path(realm, "clients"),
            representation,
            f"create client {client_id!r} in realm {realm!r}",
            lambda: self.find_client(realm, client_id),
        )

    async def update_client(self, realm: str, client: Json, fields: Json) -> None:
        """Set the given fields of a client that was read, and keep the rest."""
        action = f"update client {client['clientId']!r} of realm {realm!r}"
        body = {"clientId": client["clientId"], **fields}
        await self._put(_path(realm, "clients", client["id"]), action, body)

    async def list_providers(self, realm: str) -> list[Json]:
        """Return the realm's identity providers with masked secrets; an empty list when the realm does not exist."""
        action = f"list the identity providers of realm {realm!r}"
        response = await self._read(_path(realm, *_PROVIDERS), action)
        found: list[Json] = self._json(response, action, or_none=(403, 404)) or []
        return found

    async def create_provider(self, realm: str, representation: Json) -> bool:
        """Create the identity provider. False: its alias is taken already, read and compare."""
        alias = representation["alias"]

        async def find() -> Json | None:
            return next((known for known in await self.list_providers(realm) if known["alias"] == alias), None)

        action = f"create identity provider {alias!r} in realm {realm!r}"
        return await self._create(_path(realm, *_PROVIDERS), representation, action, find)

    async def update_provider(self, realm: str, representation: Json) -> None:
        """Replace the identity provider; a masked secret leaves Keycloak's stored secret unchanged."""
        alias = representation["alias"]
        action = f"update identity provider {alias!r} of realm {realm!r}"
        await self._put(_path(realm, *_PROVIDERS, alias), action, representation)

    async def delete_provider(self, realm: str, alias: str) -> bool:
        """Delete the identity provider. False: it did not exist."""
        path = _path(realm, *_PROVIDERS, alias)
        return await self._delete(path, f"delete identity provider {alias!r} of realm {realm!r}")

    async def discover_provider(self, realm: str, provider_id: str, url: str) -> dict[str, str]:
        """Return the config that Keycloak reads from an oidc or saml provider's metadata, and store nothing.

        Raises:
            BackendUnavailable: Keycloak cannot reach the address, or finds no metadata there.
        """
        action = f"read the metadata of identity provider {provider_id!r} at {url!r} through Keycloak"
        body = {"providerId": provider_id, "fromUrl": url}
        path = _path(realm, "identity-provider", "import-config")
        response = await self._send("POST", path, action, self._write_seconds, body=body)
        config: dict[str, str] = self._json(response, action)
        return config

    async def _create(self, path: str, body: Json, action: str, find: Callable[[], Awaitable[Json | None]]) -> bool:
        response = await self._post(path, body, action)
        if response.status_code == 201:
            return True
        # The loser of a race gets 409 from a Keycloak on PostgreSQL, and 400 from a Keycloak on H2. So look whether the
        # resource exists.
        if response.status_code in (400, 409) and await find() is not None:
            return False
        raise self._refusal(response, action)

    async def _post(self, path: str, body: Json, action: str) -> Response:
        return await self._send("POST", path, action, self._write_seconds, body=body, is_write=True)

    async def _put(self, path: str, action: str, body: Json) -> None:
        response = await self._send("PUT", path, action, self._write_seconds, body=body, is_write=True)
        if not response.is_success:
            raise self._refusal(response, action)

    async def _delete(self, path: str, action: str) -> bool:
        response = await self._send("DELETE", path, action, self._write_seconds, is_write=True)
        if not response.is_success and response.status_code != 404:
            raise self._refusal(response, action)
        return response.status_code != 404

    async def _read(self, path: str, action: str, **query: str) -> Response:
        return await self._send("GET", path, action, self._read_seconds, query=query)

    async def _send(
        self,
        method: str,
        path: str,
        action: str,
        seconds: float,
        *,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        is_write: bool = False,
    ) -> Response:
        attributes = {"http.request.method": method, "url.path": path}
        async with self._slots:
            try:
                with tracing.span(Backend.KEYCLOAK, "request", attributes):
                    async with asyncio.timeout(seconds):
                        return await self._transport.send(method, path, body=body, query=query or {})
            except (*NoAnswer, TimeoutError) as error:
                unavailable = BackendUnavailable
                if is_write:
                    unavailable = NothingPending if isinstance(error, _UNSENT) else OutcomeUnknown
                cause = f"no answer within {seconds:g} s" if isinstance(error, TimeoutError) else _cause(error)
                away = unavailable(f"cannot {action}: Keycloak at {self._address} cannot be reached: {cause}")
                raise of_backend(Backend.KEYCLOAK, away) from None
            except LoginFailed as error:
                # Any call can raise this: it logs in again when Keycloak refuses its token.
                raise of_backend(Backend.KEYCLOAK, self._login_error(error.code)) from None

    def _login_error(self, code: int | None) -> BackendRefused | BackendUnavailable:
        where = f"cannot log in to Keycloak at {self._address}"
        if code is None:
            return NothingPending(f"{where}: its answer to the login holds no token")
        if code in _PASSING:
            return NothingPending(f"{where}: it answered {code}")
        who, settings = self._transport.account
        return BackendRefused(f"{where} as {who}: it answered {code}; check {settings}")

    def _json(self, response: Response, action: str, *, or_none: tuple[int, ...] = ()) -> Any:
        if response.status_code in or_none:
            return None
        if not response.is_success:
            raise self._refusal(response, action)
        try:
            return response.json()
        except ValueError:
            garbled = BackendUnavailable(
                f"cannot {action}: Keycloak at {self._address} answered something that is not JSON"
            )
            raise of_backend(Backend.KEYCLOAK, garbled) from None

    def _refusal(self, response: Response, action: str) -> PlattrError:
        return of_backend(Backend.KEYCLOAK, self._meaning(response, action))

    def _meaning(self, response: Response, action: str) -> PlattrError:
        code, reason = response.status_code, _reason(response)
        message = f"cannot {action}: Keycloak at {self._address} answered {code}: {reason}"
        if code in _PASSING:
            # A proxy's answer does not say whether Keycloak still works on the call. Keycloak's own answer ends it.
            is_own = response.request.method != "GET" and _own_error(response) is not None
            return NothingPending(message) if is_own else BackendUnavailable(message)
        if code in (404, 409) or reason == _RACE_ON_H2:
            return Conflict(f"{message}; somebody else changed the realm")
        if code == 403:
            return BackendRefused(f"{message}; the account needs the role create-realm, or the realm is not its own")
        return BackendRefused(message)

    @property
    def _address(self) -> str:
        return self._transport.address


_PROVIDERS = ("identity-provider", "instances")


def _path(realm: str, *parts: str) -> str:
    return "/".join(("admin", "realms", *(quote(part, safe="") for part in (realm, *parts))))


def _cause(error: Exception) -> str:
    # The texts of httpx contain neither a header nor a body.
    return str(error) or type(error).__name__


def _reason(response: Response) -> str:
    """Return Keycloak's own short text, but never the raw body, which may be a proxy's page."""
    return _own_error(response) or response.reason_phrase


def _own_error(response: Response) -> str | None:
    """Return Keycloak's text for an error; None: the answer does not have Keycloak's format."""
    try:
        body = response.json()
    except ValueError:
        return None
    if not isinstance(body, Mapping):
        return None
    text = body.get("errorMessage") or body.get("error_description") or body.get("error")
    return str(text)[:_MESSAGE_LIMIT] if text else None
