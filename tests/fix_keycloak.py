"""Keycloak for the tests: its administrator, a relay that breaks answers, and objects that want a realm."""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx
import pytest
from aiohttp import web

from activities.auth import AuthActivities
from activities.loading import TargetLoader
from clients.claim_store import ClaimStore
from clients.keycloak import KeycloakClient
from clients.kube import KubeClient
from clients.resources import LEASES, NAMESPACES, Json, custom_resource
from plattr.claims import Claim
from plattr.naming import possible_realms
from plattr.objects import API_VERSION, CustomObject, Kind, ObjectReference
from plattr.settings import Settings
from plattr.steps import CleanupStepInput, StepInput
from stack.platform import Platform
from tests.inputs import CLUSTER, at_home, cleanup_of, estate, step_of

TOKEN_PATH = "/realms/master/protocol/openid-connect/token"
ISSUER_BASE = "https://auth.example.test"


class Administrator:
    """The bootstrap admin, who may do anything: the stranger, and the eye that sees what is really there."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.http = httpx.AsyncClient(base_url=url, timeout=60, trust_env=False)
        self._login = {"grant_type": "password", "client_id": "admin-cli", "username": user, "password": password}
        self._fresh_until = 0.0

    async def request(self, method: str, path: str, body: object = None) -> httpx.Response:
        # 40 s of the token's 60.
        if time.monotonic() > self._fresh_until:
            answer = (await self.http.post(TOKEN_PATH, data=self._login)).raise_for_status()
            self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
            self._fresh_until = time.monotonic() + 40
        return await self.http.request(method, f"/admin/realms{path}", json=body)

    async def read(self, path: str) -> Any:
        response = await self.request("GET", path)
        return None if response.status_code == 404 else response.raise_for_status().json()

    async def send(self, method: str, path: str, body: object = None) -> None:
        (await self.request(method, path, body)).raise_for_status()

    async def client(self, realm: str, client_id: str) -> Json | None:
        found = await self.read(f"/{realm}/clients?clientId={client_id}")
        return found[0] if found else None

    @asynccontextmanager
    async def new_account(self) -> AsyncIterator[tuple[str, str]]:
        """Make a service account that may make realms; return its client id and secret."""
        name, secret = f"t{secrets.token_hex(5)}", secrets.token_hex(16)
        representation = {"clientId": name, "secret": secret, "serviceAccountsEnabled": True}
        await self.send("POST", "/master/clients", representation)
        client = await self.client("master", name)
        assert client is not None
        user = await self.read(f"/master/clients/{client['id']}/service-account-user")
        role = await self.read("/master/roles/create-realm")
        await self.send("POST", f"/master/users/{user['id']}/role-mappings/realm", [role])
        yield name, secret
        await self.send("DELETE", f"/master/clients/{client['id']}")

    async def providers(self, realm: str) -> dict[str, Json]:
        return {provider["alias"]: provider for provider in await self.read(f"/{realm}/identity-provider/instances")}


@dataclass
class Fault:
    """What happens to the next `times` requests that match: a canned answer, or a real one that is late or lost."""

    method: str
    path: str
    status: int | None = None
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    is_lost: bool = False
    late_seconds: float = 0.0
    queued_seconds: float = 0.0
    """How late the server comes to the request; it then does it, whether anybody still waits or not."""
    skip: int = 0
    times: int = 1


class Relay:
    """Stands before the real Keycloak, writes down what is asked, and breaks answers on demand."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.calls: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.url = ""
        self._runner: web.ServerRunner | None = None
        self._port = 0

    @property
    def writes(self) -> list[tuple[str, str]]:
        """The calls that change something: neither logins nor the reading of a provider's metadata."""
        return [
            (method, path)
            for method, path in self.calls
            if method != "GET" and path != TOKEN_PATH and not path.endswith("/import-config")
        ]

    def forget(self) -> None:
        self.calls.clear()
        self.faults.clear()

    async def start(self) -> None:
        self._session = aiohttp.ClientSession()
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Break every connection and refuse new ones, as a server does that is killed."""
        if self._runner is not None:
            await self._runner.cleanup()
            await self._session.close()
            self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.calls.append((request.method, request.path))
        fault = self._fault(request)
        if fault is not None and fault.status is not None:
            return web.json_response(fault.body, status=fault.status, headers=fault.headers)
        content = await request.read()
        if fault is not None and fault.queued_seconds:
            await asyncio.sleep(fault.queued_seconds)
        headers = {name: request.headers[name] for name in ("Authorization", "Content-Type") if name in request.headers}
        async with self._session.request(
            request.method, self._target + request.path_qs, data=content, headers=headers
        ) as answer:
            body = await answer.read()
        if fault is not None and fault.late_seconds:
            await asyncio.sleep(fault.late_seconds)
        if fault is not None and fault.is_lost and request.transport is not None:
            request.transport.abort()
        return web.Response(body=body, status=answer.status, content_type=answer.content_type)

    def _fault(self, request: web.BaseRequest) -> Fault | None:
        for fault in self.faults:
            if re.fullmatch(fault.method, request.method) and re.search(fault.path, request.path):
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


@dataclass(frozen=True)
class Subject:
    """An object that wants a realm, as the API server holds it now."""

    custom_object: CustomObject

    @property
    def reference(self) -> ObjectReference:
        return self.custom_object.reference

    @property
    def step(self) -> StepInput:
        return step_of(self.custom_object)

    def cleanup(self, *outliving: Claim, retain: bool = False) -> CleanupStepInput:
        return cleanup_of(self.custom_object, *outliving, retain=retain)


class Subjects:
    """Makes, changes and removes Applications and previews in one namespace."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self.namespace = namespace

    async def apply(
        self,
        name: str,
        *,
        providers: tuple[str, ...] = (),
        domain: str | None = None,
        environment: str = "production",
        kind: Kind = Kind.APPLICATION,
        spec: Json | None = None,
    ) -> Subject:
        application = {
            "repository": "https://git.example.test/shop.git",
            "framework": "docker",
            "environment": environment,
            "database": {"enabled": False},
            "storage": {"enabled": False},
            "auth": {"enabled": True, "providers": list(providers)},
            "redis": {"enabled": False},
            "search": {"enabled": False},
        } | ({"domain": domain} if domain else {})
        body = {
            "apiVersion": API_VERSION,
            "kind": kind.value,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec or application,
        }
        held = await self._kube.apply(custom_resource(kind), body, self.namespace)
        return Subject(await at_home(self._kube, CustomObject.from_api(kind, held)))

    async def delete(self, subject: Subject) -> None:
        await self._kube.delete(custom_resource(subject.reference.kind), subject.reference.name, self.namespace)


@pytest.fixture(scope="session")
def auth_settings(platform: Platform) -> Settings:
    environment = platform.environment("worker") | {"BASE_DOMAIN": "example.test", "AUTH_URL": ISSUER_BASE}
    return Settings.from_mapping(environment)


@pytest.fixture(scope="session")
async def administrator(platform: Platform) -> AsyncIterator[Administrator]:
    endpoints = platform.endpoints
    administrator = Administrator(
        endpoints.keycloak_url, endpoints.keycloak_admin_user, endpoints.keycloak_admin_password
    )
    yield administrator
    await administrator.http.aclose()


@pytest.fixture(scope="session")
async def auth_kube(platform: Platform) -> AsyncIterator[KubeClient]:
    kube = await KubeClient.connect(str(platform.endpoints.kubeconfig_admin), cluster=CLUSTER)
    yield kube
    await kube.close()


@pytest.fixture(scope="session")
async def subjects(auth_kube: KubeClient) -> AsyncIterator[Subjects]:
    namespace = f"auth-{secrets.token_hex(4)}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    await auth_kube.create(NAMESPACES, body)
    yield Subjects(auth_kube, namespace)
    await auth_kube.delete(NAMESPACES, namespace)


@pytest.fixture
async def realm_name(administrator: Administrator) -> AsyncIterator[str]:
    """A name for an Application; whatever realm it had is removed."""
    name = f"a{secrets.token_hex(5)}"
    yield name
    reference = ObjectReference(namespace="any", name=name)
    for realm in (*possible_realms(reference), f"{name}-pr7"):
        await administrator.request("DELETE", f"/{realm}")


@pytest.fixture(scope="session")
async def relay(platform: Platform) -> AsyncIterator[Relay]:
    relay = Relay(platform.endpoints.keycloak_url)
    await relay.start()
    yield relay
    await relay.stop()


@pytest.fixture
def keycloak_relay(relay: Relay) -> Relay:
    """The relay without faults and without memories."""
    relay.forget()
    return relay


@pytest.fixture
async def auth_claims(
    auth_kube: KubeClient, auth_settings: Settings, subjects: Subjects, realm_name: str
) -> AsyncIterator[ClaimStore]:
    """The claim store; what an Application of this name claimed is given back."""
    claim_store = ClaimStore(auth_kube, auth_settings.lease_namespace)
    yield claim_store
    reference = ObjectReference(namespace=subjects.namespace, name=realm_name)
    for held in await claim_store.held_by(estate(reference)):
        # Not released: that would put some of them into quarantine.
        await auth_kube.delete(LEASES, held.claim.lease_name, auth_settings.lease_namespace)


Connect = Callable[..., Any]


@pytest.fixture(scope="session")
def connect_auth(auth_settings: Settings, auth_kube: KubeClient, relay: Relay) -> Connect:
    """Return a context manager that makes the auth activities, by default through the relay."""

    @asynccontextmanager
    async def connect(*, seconds: float = 30.0, **changes: str | None) -> AsyncIterator[AuthActivities]:
        values = auth_settings.model_dump() | {"keycloak_url": relay.url} | changes
        settings = Settings(**values)
        keycloak = KeycloakClient.connect(settings, read_seconds=min(seconds, 10.0), write_seconds=seconds)
        loader = TargetLoader(auth_kube, settings)
        claim_store = ClaimStore(auth_kube, settings.lease_namespace)
        try:
            yield AuthActivities(loader, auth_kube, keycloak, claim_store, settings)
        finally:
            await keycloak.close()

    return connect


@pytest.fixture(scope="session")
async def auth(connect_auth: Connect) -> AsyncIterator[AuthActivities]:
    async with connect_auth() as activities:
        yield activities
