"""Which realms Keycloak has, who owns them by their attributes, and which clients they have."""

from typing import Any
from urllib.parse import quote

import httpx

from cli.auditing.inventory import AuditFailed, Found, Thing, ThingKind
from plattr.naming import RESERVED_CLIENTS, RESERVED_REALM
from plattr.settings import Settings

_OWNER, _UID = "plattr.owner", "plattr.ownerUid"
_CLUSTER, _NAMESPACE_UID = "plattr.ownerCluster", "plattr.ownerNamespaceUid"
# 30 s: a listing of a thousand realms takes Keycloak seconds.
_TIMEOUT_SECONDS = 30.0


class KeycloakListing:
    """Ask one Keycloak, with the account that Plattr itself uses."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        base_url = settings.keycloak_url.rstrip("/") + "/"
        self._http = httpx.Client(base_url=base_url, timeout=_TIMEOUT_SECONDS, auth=self._renewed)
        self._token = ""

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def found(self) -> list[Found]:
        """Return the realms that the account may see, and the clients that people or Plattr made in Plattr's realms."""
        found = []
        for listed in self._get("admin/realms", briefRepresentation="true") or []:
            name = listed["realm"]
            realm = None if name == RESERVED_REALM else self._get(f"admin/realms/{quote(name, safe='')}")
            if realm is None:
                continue
            attributes = realm.get("attributes", {})
            place = {"cluster": attributes.get(_CLUSTER), "namespace_uid": attributes.get(_NAMESPACE_UID)}
            owner, uid = attributes.get(_OWNER), attributes.get(_UID)
            found.append(Found(thing=Thing(kind=ThingKind.REALM, name=name), owner=owner, uid=uid, **place))
            if owner is not None:
                found += [
                    Found(thing=Thing(kind=ThingKind.CLIENT, scope=name, name=client["clientId"]), owner=owner, **place)
                    for client in self._get(f"admin/realms/{quote(name, safe='')}/clients") or []
                    if client["clientId"] not in RESERVED_CLIENTS
                ]
        return found

    def _get(self, path: str, **query: str) -> Any:
        """Return what the path holds; None if it has disappeared since it was listed.

        Keycloak also answers 403 in two cases: for a realm that disappeared, and for the list while the account has no
        realm.
        """
        try:
            answer = self._http.get(path, params=query)
            if answer.status_code in (403, 404):
                return None
            return answer.raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise AuditFailed(f"cannot ask Keycloak for {path}: {type(error).__name__}: {error}") from None

    def _renewed(self, request: httpx.Request) -> httpx.Request:
        if not self._token:
            self._token = self._log_in()
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def _log_in(self) -> str:
        settings = self._settings
        if settings.keycloak_client_id is not None and settings.keycloak_client_secret is not None:
            form = {
                "grant_type": "client_credentials",
                "client_id": settings.keycloak_client_id,
                "client_secret": settings.keycloak_client_secret.get_secret_value(),
            }
        else:
            password = settings.keycloak_admin_password
            form = {
                "grant_type": "password",
                "client_id": "admin-cli",
                "username": settings.keycloak_admin_user or "",
                "password": password.get_secret_value() if password else "",
            }
        url = f"{settings.keycloak_url.rstrip('/')}/realms/{RESERVED_REALM}/protocol/openid-connect/token"
        try:
            answer = httpx.post(url, data=form, timeout=_TIMEOUT_SECONDS)
            return str(answer.raise_for_status().json()["access_token"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise AuditFailed(f"cannot log in to Keycloak: {type(error).__name__}: {error}") from None
