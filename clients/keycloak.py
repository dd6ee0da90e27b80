"""Keycloak's admin API, realm by realm; every failure becomes one of Plattr's errors.

Raw calls with explicit paths: python-keycloak's own methods keep the realm as mutable state of the connection,
its `skip_exists` raises TypeError (7.1.1), and listing all realms takes minutes on a large server.
No call is repeated here; Temporal does that, after reading again.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Self
from urllib.parse import quote

from httpx import ConnectError, ConnectTimeout, PoolTimeout, Request, Response
from keycloak import KeycloakOpenIDConnection
from keycloak.exceptions import KeycloakConnectionError, KeycloakError
from pydantic import SecretStr

from clients import fence
from clients.resources import Json
from plattr.backends import Backend, NothingPending, of_backend
from plattr.errors import BackendRefused, BackendUnavailable, Conflict, FencedOff, PlattrError
from plattr.settings import Settings
from telemetry import tracing

# 10 s: reads take 10 ms, and 100 ms on a server with 500 realms.
READ_SECONDS = 10.0
# 30 s: creating or deleting a realm takes half a second alone, and up to 14 s among fifty at once.
WRITE_SECONDS = 30.0
# 8: Keycloak makes four realms a second however many are asked for, and drops connections at fifty at once.
CONCURRENCY = 8

# Request Timeout, Too Many Requests, and a server that is starting or not itself.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_MESSAGE_LIMIT = 300
# Comes with 400 to the loser of a race, also before the winner's realm can be seen.
_RACE_ON_H2 = "Database operation failed"


# Raised before a request is sent.
_UNSENT = (ConnectError, ConnectTimeout, PoolTimeout)


class OutcomeUnknown(BackendUnavailable):
    """Raised when a write was sent and no answer came: it may have happened, or still be happening."""


class _Connection(KeycloakOpenIDConnection):
    """Logs in again instead of using refresh tokens: those die with Keycloak's sessions, credentials do not."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._login = asyncio.Lock()

    async def a_refresh_token(self) -> None:
        """Get a new token; callers that come meanwhile wait for the same one."""
        stale = self.token
        async with self._login:
            if self.token is not stale:
                return
            try:
                await self.a_get_token()
            except (KeyError, TypeError, ValueError):
                # A proxy in between, or something else that answers 200 without a token.
                raise KeycloakConnectionError("its answer to the login holds no token") from None

    async def aclose(self) -> None:
        """Close the connections, also the one that logs in."""
        await self.keycloak_openid.connection.aclose()
        await super().aclose()


class KeycloakClient:
    """One Keycloak server. Reads return its representations; writes pass the fence."""

    def __init__(
        self,
        connection: KeycloakOpenIDConnection,
        *,
        read_seconds: float = READ_SECONDS,
        write_seconds: float = WRITE_SECONDS,
    ) -> None:
        self._connection = connection
        connection.async_s.event_hooks = {"request": [_fence]}
        self._read_seconds = read_seconds
        self._write_seconds = write_seconds
        self._slots = asyncio.Semaphore(CONCURRENCY)

    @classmethod
    def connect(
        cls, settings: Settings, *, read_seconds: float = READ_SECONDS, write_seconds: float = WRITE_SECONDS
    ) -> Self:
        """Return a client; nothing is sent yet. The service account is preferred to the admin user."""
        if settings.keycloak_client_id is not None and settings.keycloak_client_secret is not None:
            login: dict[str, Any] = {
                "grant_type": "client_credentials",
                "client_id": settings.keycloak_client_id,
                "client_secret_key": settings.keycloak_client_secret.get_secret_value(),
            }
        else:
            password = settings.keycloak_admin_password or SecretStr("")
            login = {
                "grant_type": "password",
                "client_id": "admin-cli",
                "username": settings.keycloak_admin_user,
                "password": password.get_secret_value(),
            }
        connection = _Connection(
            # With the slash a path such as /auth survives the library's urljoin.
            server_url=settings.keycloak_url.rstrip("/") + "/",
            realm_name="master",
            timeout=write_seconds,
            max_retries=0,
            pool_maxsize=CONCURRENCY,
            **login,
        )
        return cls(connection, read_seconds=read_seconds, write_seconds=write_seconds)

    async def close(self) -> None:
        """Close the connections; the client is of no use afterwards."""
        await self._connection.aclose()

    async def get_realm(self, realm: str) -> Json | None:
        """Return the realm, or None when it does not exist.

        Of a realm that this account has no rights in Keycloak shows a few fields and no attributes, so a realm
        without an owner may also be one that we may not see.
        """
        response = await self._read(_path(realm), f"read realm {realm!r}")
        if response.status_code == 403:
            return {"realm": realm}
        found: Json | None = self._json(response, f"read realm {realm!r}", or_none=(404,))
        return found

    async def create_realm(self, representation: Json) -> bool:
        """Create the realm with the clients in its representation. False: it is there already, read and compare."""
        realm = representation["realm"]
        return await self._create(
            "admin/realms", representation, f"create realm {realm!r}", lambda: self.get_realm(realm)
        )

    async def update_realm(self, realm: str, fields: Json) -> None:
        """Set the given fields, leave the others; `attributes` is replaced as a whole."""
        await self._put(_path(realm), f"update realm {realm!r}", {"realm": realm, **fields})

    async def delete_realm(self, realm: str) -> bool:
        """Delete the realm with everything in it. False: it was not there.

        Raises:
            OutcomeUnknown: no answer came; Keycloak may still be at it.
        """
        return await self._delete(_path(realm), f"delete realm {realm!r}")

    async def find_client(self, realm: str, client_id: str) -> Json | None:
        """Return the client by its client id; None when it, or the realm, does not exist."""
        action = f"read client {client_id!r} of realm {realm!r}"
        response = await self._read(_path(realm, "clients"), action, clientId=client_id)
        found: list[Json] = self._json(response, action, or_none=(403, 404)) or []
        return next((client for client in found if client["clientId"] == client_id), None)

    async def create_client(self, realm: str, representation: Json) -> bool:
        """Create the client. False: it is there already, read and compare."""
        client_id = representation["clientId"]
        return await self._create(
            _path(realm, "clients"),
            representation,
            f"create client {client_id!r} in realm {realm!r}",
            lambda: self.find_client(realm, client_id),
        )

    async def update_client(self, realm: str, client: Json, fields: Json) -> None:
        """Set the given fields of a client that was read, leave the others."""
        action = f"update client {client['clientId']!r} of realm {realm!r}"
        body = {"clientId": client["clientId"], **fields}
        await self._put(_path(realm, "clients", client["id"]), action, body)

    async def list_providers(self, realm: str) -> list[Json]:
        """Return the realm's identity providers, secrets masked; none when the realm does not exist."""
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
        """Replace the identity provider; a masked secret keeps the one that Keycloak has."""
        alias = representation["alias"]
        action = f"update identity provider {alias!r} of realm {realm!r}"
        await self._put(_path(realm, *_PROVIDERS, alias), action, representation)

    async def delete_provider(self, realm: str, alias: str) -> bool:
        """Delete the identity provider. False: it was not there."""
        path = _path(realm, *_PROVIDERS, alias)
        return await self._delete(path, f"delete identity provider {alias!r} of realm {realm!r}")

    async def discover_provider(self, realm: str, provider_id: str, url: str) -> dict[str, str]:
        """Return the config that Keycloak reads from an oidc or saml provider's metadata; nothing is stored.

        Raises:
            BackendUnavailable: Keycloak cannot reach the address, or finds no metadata there.
        """
        action = f"read the metadata of identity provider {provider_id!r} at {url!r} through Keycloak"
        body = json.dumps({"providerId": provider_id, "fromUrl": url})
        path = _path(realm, "identity-provider", "import-config")
        response = await self._send(
            "POST", path, partial(self._connection.a_raw_post, path, body), action, self._write_seconds
        )
        config: dict[str, str] = self._json(response, action)
        return config

    async def _create(self, path: str, body: Json, action: str, find: Callable[[], Awaitable[Json | None]]) -> bool:
        response = await self._post(path, body, action)
        if response.status_code == 201:
            return True
        # Whoever loses a race gets 409 from a Keycloak on PostgreSQL and 400 from one on H2: what is there counts.
        if response.status_code in (400, 409) and await find() is not None:
            return False
        raise self._refusal(response, action)

    async def _post(self, path: str, body: Json, action: str) -> Response:
        content = json.dumps(body)
        send = partial(self._connection.a_raw_post, path, content)
        return await self._send("POST", path, send, action, self._write_seconds, is_write=True)

    async def _put(self, path: str, action: str, body: Json) -> None:
        content = json.dumps(body)
        send = partial(self._connection.a_raw_put, path, content)
        response = await self._send("PUT", path, send, action, self._write_seconds, is_write=True)
        if not response.is_success:
            raise self._refusal(response, action)

    async def _delete(self, path: str, action: str) -> bool:
        send = partial(self._connection.a_raw_delete, path)
        response = await self._send("DELETE", path, send, action, self._write_seconds, is_write=True)
        if not response.is_success and response.status_code != 404:
            raise self._refusal(response, action)
        return response.status_code != 404

    async def _read(self, path: str, action: str, **query: str) -> Response:
        return await self._send(
            "GET", path, partial(self._connection.a_raw_get, path, **query), action, self._read_seconds
        )

    async def _send(
        self,
        method: str,
        path: str,
        call: Callable[[], Awaitable[Response]],
        action: str,
        seconds: float,
        *,
        is_write: bool = False,
    ) -> Response:
        attributes = {"http.request.method": method, "url.path": path}
        async with self._slots:
            try:
                with tracing.span(Backend.KEYCLOAK, "request", attributes):
                    async with asyncio.timeout(seconds):
                        await self._connection.a__refresh_if_required()
                        return await call()
            except (KeycloakConnectionError, TimeoutError) as error:
                if isinstance(error.__cause__, FencedOff):
                    raise error.__cause__ from None
                unavailable = BackendUnavailable
                if is_write:
                    unavailable = NothingPending if isinstance(error.__cause__, _UNSENT) else OutcomeUnknown
                cause = f"no answer within {seconds:g} s" if isinstance(error, TimeoutError) else _cause(error)
                away = unavailable(f"cannot {action}: Keycloak at {self._address} cannot be reached: {cause}")
                raise of_backend(Backend.KEYCLOAK, away) from None
            except KeycloakError as error:
                # Only logging in raises these: inside a call too, when its token was refused.
                raise of_backend(Backend.KEYCLOAK, self._login_error(error)) from None

    def _login_error(self, error: KeycloakError) -> BackendRefused | BackendUnavailable:
        code = error.response_code
        if code is None or code in _PASSING:
            return NothingPending(f"cannot log in to Keycloak at {self._address}: it answered {code}")
        who, settings = (
            (f"client {self._connection.client_id!r}", "KEYCLOAK_CLIENT_ID and KEYCLOAK_CLIENT_SECRET")
            if self._connection.grant_type == "client_credentials"
            else (f"user {self._connection.username!r}", "KEYCLOAK_ADMIN_USER and KEYCLOAK_ADMIN_PASSWORD")
        )
        return BackendRefused(
            f"cannot log in to Keycloak at {self._address} as {who}: it answered {code}; check {settings}"
        )

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
            # A proxy's answer says nothing of what Keycloak is still doing; its own ends the call.
            is_own = response.request.method != "GET" and _own_error(response) is not None
            return NothingPending(message) if is_own else BackendUnavailable(message)
        if code in (404, 409) or reason == _RACE_ON_H2:
            return Conflict(f"{message}; somebody else changed the realm")
        if code == 403:
            return BackendRefused(f"{message}; the account needs the role create-realm, or the realm is not its own")
        return BackendRefused(message)

    @property
    def _address(self) -> str:
        return str(self._connection.server_url).rstrip("/")


_PROVIDERS = ("identity-provider", "instances")


async def _fence(request: Request) -> None:
    """Let the fence be asked at the moment a write goes to the socket: to wait for a connection can take long."""
    if request.method != "GET":
        request.extensions = {**request.extensions, "trace": _ask_fence}


async def _ask_fence(event: str, _: Mapping[str, Any]) -> None:
    # https://www.encode.io/httpcore/extensions/#trace
    if event == "http11.send_request_headers.started":
        fence.ensure_live()


def _path(realm: str, *parts: str) -> str:
    return "/".join(("admin", "realms", *(quote(part, safe="") for part in (realm, *parts))))


def _cause(error: KeycloakConnectionError) -> str:
    # The library hides what happened behind one text; httpx's texts hold no header and no body.
    cause = error.__cause__
    return (str(cause) or type(cause).__name__) if cause is not None else str(error)


def _reason(response: Response) -> str:
    """Return Keycloak's own short text; never the body as it is, it may be a proxy's page."""
    return _own_error(response) or response.reason_phrase


def _own_error(response: Response) -> str | None:
    """Return what Keycloak says of an error; None: the answer is not in Keycloak's form."""
    try:
        body = response.json()
    except ValueError:
        return None
    if not isinstance(body, Mapping):
        return None
    text = body.get("errorMessage") or body.get("error_description") or body.get("error")
    return str(text)[:_MESSAGE_LIMIT] if text else None
