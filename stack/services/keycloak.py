"""Keycloak on a database file, with a client that may create realms and nothing else."""

import shutil
from pathlib import Path
from typing import Any

import httpx

from stack.errors import PlatformError
from stack.processes import Command
from stack.services.base import Service, answers

ADMIN_USER = "admin"
TOKEN_PATH = "/realms/master/protocol/openid-connect/token"  # noqa: S105  a path
WARM_UP_REALM = "plattr-warm-up"
CLIENT_ID = "plattr"


class Keycloak(Service):
    """Keycloak. Its home is a folder of links to the cached build, with its own `data` folder."""

    name = "keycloak"
    ports = ("keycloak", "keycloak-management")
    # 13 s on an idle machine with a new database, three minutes while all cores are busy with builds.
    healthy_within_seconds = 180
    stop_grace_seconds = 20

    @property
    def home(self) -> Path:
        """Keycloak's home. kc.sh derives it from its own location, so kc.sh is copied and not linked."""
        return self.folder / "home"

    def prepare(self) -> None:
        """Create the home again, because the cached build may have moved. The data stays."""
        super().prepare()
        build = Path(self.site.tool("keycloak"))
        (self.home / "bin").mkdir(parents=True, exist_ok=True)
        shutil.copy2(build / "bin" / "kc.sh", self.home / "bin" / "kc.sh")
        for part in ("lib", "conf", "providers", "themes"):
            link = self.home / part
            link.unlink(missing_ok=True)
            link.symlink_to(build / part)

    def command(self) -> Command:
        """Start the build. Everything listens on the loopback only."""
        return Command(
            arguments=(
                str(self.home / "bin" / "kc.sh"),
                *("start", "--optimized", "--http-enabled=true", "--log-level=warn"),
                # An option of start, not of build. Without it JGroups listens on the machine's outer addresses.
                "--cache=local",
                *("--http-host=127.0.0.1", f"--http-port={self.site.port('keycloak')}"),
                f"--http-management-port={self.site.port('keycloak-management')}",
                f"--hostname={self.address}",
            ),
            environment={
                "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN_USER,
                "KC_BOOTSTRAP_ADMIN_PASSWORD": self.site.credential("keycloak-admin"),
                "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx384m",
                # -UseG1GC must come first. Otherwise Java refuses: multiple garbage collectors selected.
                "JAVA_OPTS_APPEND": "-XX:-UseG1GC -XX:+UseSerialGC",
            },
            folder=self.folder,
        )

    def is_healthy(self) -> bool:
        """Tell whether Keycloak serves. While it starts it answers 503."""
        return answers(f"{self.address}/realms/master")

    def set_up(self) -> None:
        """Create the confidential client if it cannot log in yet, and warm Keycloak up as that client."""
        secret = self.site.credential("keycloak-client")
        # trust_env=False: no proxy may be used on the loopback.
        with httpx.Client(base_url=self.address, timeout=60, trust_env=False) as http:
            login = {"grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": secret}
            token = http.post(TOKEN_PATH, data=login)
            if not token.is_success:
                admin = {
                    "grant_type": "password",
                    "client_id": "admin-cli",
                    "username": ADMIN_USER,
                    "password": self.site.credential("keycloak-admin"),
                }
                http.headers["Authorization"] = _bearer(http.post(TOKEN_PATH, data=admin))
                _make_client(http, secret)
                token = http.post(TOKEN_PATH, data=login)
            http.headers["Authorization"] = _bearer(token)
            _warm_up(http)


def _bearer(token: httpx.Response) -> str:
    return f"Bearer {_answer(token)['access_token']}"


def _warm_up(http: httpx.Client) -> None:
    """Create one realm and delete it: in a new process the first takes 2 to 8 s, until Java has compiled its code."""
    http.delete(f"/admin/realms/{WARM_UP_REALM}")
    _answer(http.post("/admin/realms", json={"realm": WARM_UP_REALM, "enabled": False}))
    _answer(http.delete(f"/admin/realms/{WARM_UP_REALM}"))


def _make_client(http: httpx.Client, secret: str) -> None:
    clients = "/admin/realms/master/clients"
    for stale in _answer(http.get(clients, params={"clientId": CLIENT_ID})):
        _answer(http.delete(f"{clients}/{stale['id']}"))
    representation = {
        "clientId": CLIENT_ID,
        "secret": secret,
        "publicClient": False,
        "serviceAccountsEnabled": True,
        "standardFlowEnabled": False,
        "directAccessGrantsEnabled": False,
        # A full token grows by 530 bytes with each realm that the account creates.
        "attributes": {"client.use.lightweight.access.token.enabled": "true"},
    }
    _answer(http.post(clients, json=representation))
    (client,) = _answer(http.get(clients, params={"clientId": CLIENT_ID}))
    user = _answer(http.get(f"{clients}/{client['id']}/service-account-user"))["id"]
    roles = f"/admin/realms/master/users/{user}/role-mappings/realm"
    _answer(http.request("DELETE", roles, json=_answer(http.get(roles))))
    _answer(http.post(roles, json=[_answer(http.get("/admin/realms/master/roles/create-realm"))]))


def _answer(response: httpx.Response) -> Any:
    if not response.is_success:
        request = f"{response.request.method} {response.request.url.path}"
        raise PlatformError(f"cannot set up Keycloak's client {CLIENT_ID!r}: {request} answered {response.status_code}")
    return response.json() if response.content else None
