"""The Kubernetes client on a real API server; a server of our own only where a real one does not misbehave."""

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config.incluster_config import InClusterConfigLoader

from clients import fence, kube
from clients.kube import GoneError, KubeClient, NamespaceEnding
from clients.resources import APPLICATIONS, CONFIG_MAPS, DEPLOYMENTS, EVENTS, NAMESPACES, SECRETS, Json
from plattr.errors import (
    BackendRefused,
    BackendUnavailable,
    Conflict,
    FencedOff,
    MissingSetting,
    OwnedElsewhere,
    PlattrError,
    StillDeleting,
)
from plattr.objects import ObjectReference, Owner
from plattr.target import OWNER_UID_ANNOTATION, owner_annotations, owner_labels
from stack.platform import Platform
from tests.fix_kubernetes import Cluster, config_map, random_name, version_of

Write = Callable[[KubeClient, str], Awaitable[Any]]


def owned(name: str, owner: Owner, values: dict[str, str]) -> Json:
    return config_map(name, values, labels=owner_labels(owner.reference), annotations=owner_annotations(owner))


def owner_named(name: str, uid: str = "uid-1") -> Owner:
    return Owner(reference=ObjectReference(namespace="team", name=name), uid=uid)


class TestReadingAndWriting:
    async def test_what_does_not_exist_is_none(self, cluster: Cluster, namespace: str) -> None:
        body = await cluster.kube.get(CONFIG_MAPS, "missing", namespace)
        patched = await cluster.kube.json_patch(CONFIG_MAPS, "missing", [], namespace)
        was_there = await cluster.kube.delete(CONFIG_MAPS, "missing", namespace)

        assert (body, patched, was_there) == (None, None, False)

    # etcd refuses the first, the API server's client of etcd the second, the API server itself the third.
    @pytest.mark.parametrize("size", [1_600_000, 2_500_000, 4_000_000])
    @pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
    async def test_an_object_that_is_too_large_is_said_to_be(self, cluster: Cluster, namespace: str, size: int) -> None:
        container = {"name": "app", "image": "app", "env": [{"name": "TEXT", "value": "x" * size}]}
        labels = {"app": "large"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        spec = {"selector": {"matchLabels": labels}, "template": template}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "large"}, "spec": spec}

        with pytest.raises(BackendRefused, match="too large for the API server") as caught:
            await cluster.kube.create(DEPLOYMENTS, body, namespace)

        assert len(str(caught.value)) < 200

    async def test_creating_a_taken_name_returns_none_and_changes_nothing(
        self, cluster: Cluster, namespace: str
    ) -> None:
        await cluster.kube.create(CONFIG_MAPS, config_map("taken", {"a": "1"}), namespace)

        second = await cluster.kube.create(CONFIG_MAPS, config_map("taken", {"a": "2"}), namespace)

        body = await cluster.kube.get(CONFIG_MAPS, "taken", namespace)
        assert second is None
        assert body is not None
        assert body["data"] == {"a": "1"}

    async def test_a_list_gathers_all_pages(
        self, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kube, "PAGE_SIZE", 2)
        names = {f"map-{index}" for index in range(5)}
        for name in names:
            await cluster.kube.create(CONFIG_MAPS, config_map(name, labels={"set": "pages"}), namespace)

        found = await cluster.kube.list(CONFIG_MAPS, namespace, label_selector="set=pages")

        assert {body["metadata"]["name"] for body in found} == names

    async def test_applying_the_same_twice_writes_nothing(self, cluster: Cluster, namespace: str) -> None:
        body = config_map("same", {"a": "1"})
        await cluster.kube.apply(CONFIG_MAPS, body, namespace)
        before = await version_of(cluster.kube, CONFIG_MAPS, "same", namespace)

        await cluster.kube.apply(CONFIG_MAPS, body, namespace)

        assert await version_of(cluster.kube, CONFIG_MAPS, "same", namespace) == before

    async def test_a_failed_test_of_a_json_patch_is_a_conflict(self, cluster: Cluster, namespace: str) -> None:
        await cluster.kube.create(CONFIG_MAPS, config_map("tested", {"a": "1"}), namespace)
        operations = [
            {"op": "test", "path": "/data/a", "value": "2"},
            {"op": "replace", "path": "/data/a", "value": "3"},
        ]

        with pytest.raises(Conflict):
            await cluster.kube.json_patch(CONFIG_MAPS, "tested", operations, namespace)

        body = await cluster.kube.get(CONFIG_MAPS, "tested", namespace)
        assert body is not None
        assert body["data"] == {"a": "1"}

    async def test_a_patch_to_something_invalid_is_refused(self, cluster: Cluster, namespace: str) -> None:
        await cluster.kube.create(CONFIG_MAPS, config_map("tested", {"a": "1"}), namespace)
        operations = [{"op": "add", "path": "/data/not a key", "value": "2"}]

        with pytest.raises(BackendRefused, match="not a key"):
            await cluster.kube.json_patch(CONFIG_MAPS, "tested", operations, namespace)

    async def test_a_stale_status_is_a_conflict(self, cluster: Cluster, namespace: str) -> None:
        application = await cluster.apply(namespace, random_name())
        stale = await cluster.body(application.reference)
        await cluster.set_status(application, phase="Provisioning")
        assert stale is not None

        with pytest.raises(Conflict):
            await cluster.kube.replace_status(APPLICATIONS, {**stale, "status": {"phase": "Failed"}}, namespace)

    async def test_deleting_spares_an_object_with_another_uid(self, cluster: Cluster, namespace: str) -> None:
        await cluster.kube.create(CONFIG_MAPS, config_map("new"), namespace)

        with pytest.raises(Conflict):
            await cluster.kube.delete(CONFIG_MAPS, "new", namespace, uid="of-the-old-one")

        assert await cluster.kube.get(CONFIG_MAPS, "new", namespace) is not None

    async def test_a_namespace_that_ends_takes_nothing_new(self, cluster: Cluster, namespace: str) -> None:
        await cluster.kube.create(CONFIG_MAPS, config_map("held", finalizers=["example.test/hold"]), namespace)
        await cluster.admin.delete(NAMESPACES, namespace)

        try:
            with pytest.raises(NamespaceEnding):
                await cluster.kube.create(CONFIG_MAPS, config_map("late"), namespace)
        finally:
            drop = [{"op": "remove", "path": "/metadata/finalizers"}]
            await cluster.admin.json_patch(CONFIG_MAPS, "held", drop, namespace)


class TestOwnership:
    @pytest.mark.parametrize(
        "annotations",
        [
            pytest.param({}, id="no owner's"),
            pytest.param(owner_annotations(owner_named("other")), id="another-owner's"),
        ],
    )
    async def test_a_foreign_object_is_refused_and_stays_as_it_is(
        self, cluster: Cluster, namespace: str, annotations: dict[str, str]
    ) -> None:
        await cluster.admin.create(CONFIG_MAPS, config_map("shop", {"a": "1"}, annotations=annotations), namespace)
        before = await version_of(cluster.kube, CONFIG_MAPS, "shop", namespace)

        with pytest.raises(OwnedElsewhere, match="team/Application/shop"):
            await cluster.kube.apply_owned(
                CONFIG_MAPS, owned("shop", owner_named("shop"), {"a": "2"}), owner_named("shop"), namespace
            )

        assert await version_of(cluster.kube, CONFIG_MAPS, "shop", namespace) == before

    async def test_the_same_owner_with_a_new_uid_adopts_the_object(self, cluster: Cluster, namespace: str) -> None:
        for uid in ("uid-1", "uid-2"):
            owner = owner_named("shop", uid)
            body = await cluster.kube.apply_owned(CONFIG_MAPS, owned("shop", owner, {"a": "1"}), owner, namespace)

        assert body["metadata"]["annotations"][OWNER_UID_ANNOTATION] == "uid-2"

    async def test_an_object_on_its_way_out_is_not_applied(self, cluster: Cluster, namespace: str) -> None:
        owner = owner_named("shop")
        body = owned("shop", owner, {"a": "1"})
        held = {**body, "metadata": {**body["metadata"], "finalizers": ["example.test/hold"]}}
        await cluster.admin.create(CONFIG_MAPS, held, namespace)
        await cluster.admin.delete(CONFIG_MAPS, "shop", namespace)

        with pytest.raises(StillDeleting):
            await cluster.kube.apply_owned(CONFIG_MAPS, body, owner, namespace)

        await cluster.admin.json_patch(
            CONFIG_MAPS, "shop", [{"op": "remove", "path": "/metadata/finalizers"}], namespace
        )


async def _create(client: KubeClient, namespace: str) -> Any:
    return await client.create(CONFIG_MAPS, config_map("fresh"), namespace)


async def _apply(client: KubeClient, namespace: str) -> Any:
    return await client.apply(CONFIG_MAPS, config_map("present", {"a": "2"}), namespace)


async def _apply_owned(client: KubeClient, namespace: str) -> Any:
    owner = owner_named("shop")
    return await client.apply_owned(CONFIG_MAPS, owned("fresh", owner, {}), owner, namespace)


async def _json_patch(client: KubeClient, namespace: str) -> Any:
    return await client.json_patch(CONFIG_MAPS, "present", [{"op": "add", "path": "/data/b", "value": "2"}], namespace)


async def _replace_status(client: KubeClient, namespace: str) -> Any:
    body = await client.get(APPLICATIONS, "present", namespace)
    assert body is not None
    return await client.replace_status(APPLICATIONS, {**body, "status": {"phase": "Failed"}}, namespace)


async def _delete(client: KubeClient, namespace: str) -> Any:
    return await client.delete(CONFIG_MAPS, "present", namespace)


WRITES = [
    pytest.param(_create, id="create"),
    pytest.param(_apply, id="apply"),
    pytest.param(_apply_owned, id="apply_owned"),
    pytest.param(_json_patch, id="json_patch"),
    pytest.param(_replace_status, id="replace_status"),
    pytest.param(_delete, id="delete"),
]


class TestFence:
    async def _state(self, cluster: Cluster, namespace: str) -> list[str]:
        objects = await cluster.admin.list(CONFIG_MAPS, namespace) + await cluster.admin.list(APPLICATIONS, namespace)
        return sorted(body["metadata"]["resourceVersion"] for body in objects)

    async def _prepare(self, cluster: Cluster, namespace: str) -> None:
        # Made by the namespace's controller a moment later; it must not look like our write.
        async with asyncio.timeout(10):
            while await cluster.admin.get(CONFIG_MAPS, "kube-root-ca.crt", namespace) is None:
                await asyncio.sleep(0.05)
        await cluster.admin.create(CONFIG_MAPS, config_map("present", {"a": "1"}), namespace)
        await cluster.apply(namespace, "present")

    @pytest.mark.parametrize("write", WRITES)
    async def test_no_write_leaves_an_attempt_that_outlived_its_lease(
        self, cluster: Cluster, namespace: str, write: Write
    ) -> None:
        await self._prepare(cluster, namespace)
        before = await self._state(cluster, namespace)
        token = fence.lease.set(fence.Lease(time.monotonic() - 1))

        try:
            with pytest.raises(FencedOff):
                await write(cluster.kube, namespace)
        finally:
            fence.lease.reset(token)

        assert await self._state(cluster, namespace) == before

    @pytest.mark.parametrize("write", WRITES)
    async def test_an_attempt_within_its_lease_writes(self, cluster: Cluster, namespace: str, write: Write) -> None:
        await self._prepare(cluster, namespace)
        before = await self._state(cluster, namespace)
        token = fence.lease.set(fence.Lease(time.monotonic() + 60))

        try:
            await write(cluster.admin, namespace)
        finally:
            fence.lease.reset(token)

        assert await self._state(cluster, namespace) != before


class TestSurroundings:
    async def test_a_netrc_of_the_users_is_none_of_ours(
        self, cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login somebody password else")
        monkeypatch.setenv("NETRC", str(netrc))

        assert await cluster.kube.get(CONFIG_MAPS, "missing", namespace) is None

    @pytest.mark.parametrize(("exempt", "asked"), [("", True), ("127.0.0.1", False)], ids=["proxied", "exempt"])
    async def test_the_environments_proxy_is_asked_unless_the_server_is_exempt(
        self, platform: Platform, monkeypatch: pytest.MonkeyPatch, *, exempt: str, asked: bool
    ) -> None:
        lines: list[bytes] = []

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            lines.append(await reader.readline())
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(refuse, "127.0.0.1") as proxy:
            port = proxy.sockets[0].getsockname()[1]
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
            monkeypatch.setenv("NO_PROXY", exempt)
            client = await KubeClient.connect(str(platform.endpoints.kubeconfig_admin))
            try:
                if asked:
                    with pytest.raises(BackendUnavailable):
                        await client.list(NAMESPACES)
                else:
                    await client.list(NAMESPACES)
            finally:
                await client.close()

        assert [line.split()[0] for line in lines] == ([b"CONNECT"] if asked else [])


class TestWatch:
    async def test_a_new_object_arrives_within_seconds(self, cluster: Cluster, namespace: str) -> None:
        start = await cluster.admin.snapshot(CONFIG_MAPS, namespace)
        name = random_name()
        seen: asyncio.Queue[Json] = asyncio.Queue()

        async def follow() -> None:
            async for event in cluster.admin.watch(CONFIG_MAPS, start.resource_version, namespace, timeout_seconds=30):
                if event["object"]["metadata"].get("name") == name:
                    seen.put_nowait(event)

        following = asyncio.create_task(follow())
        await cluster.kube.create(CONFIG_MAPS, config_map(name), namespace)
        event = await asyncio.wait_for(seen.get(), timeout=5)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

        assert event["type"] == "ADDED"

    async def test_the_server_ends_a_watch_after_its_time(self, cluster: Cluster, namespace: str) -> None:
        start = await cluster.admin.snapshot(EVENTS, namespace)

        events = [
            event
            async for event in cluster.admin.watch(EVENTS, start.resource_version, namespace, timeout_seconds=1)
            if event["type"] != "BOOKMARK"
        ]

        assert events == []

    @pytest.mark.parametrize("is_event", [True, False], ids=["as-an-event", "as-the-answer"])
    async def test_a_version_that_is_too_old_is_gone(self, *, is_event: bool) -> None:
        # A real server says so only once etcd is compacted, every 30 minutes; this is what it says then.
        status = {"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired", "message": "too old"}

        async def answer(_: web.BaseRequest) -> web.StreamResponse:
            return web.json_response(
                {"type": "ERROR", "object": status} if is_event else status, status=200 if is_event else 410
            )

        async with served(answer) as client:
            with pytest.raises(GoneError):
                await anext(client.watch(CONFIG_MAPS, "1", timeout_seconds=5))

    async def test_a_silent_connection_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kube, "WATCH_SILENCE_SECONDS", 0.3)

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.sleep(5)
            return response

        async with served(answer) as client:
            watching = anext(client.watch(CONFIG_MAPS, "1", timeout_seconds=300))
            with pytest.raises(BackendUnavailable):
                await asyncio.wait_for(watching, timeout=3)


class TestFailures:
    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            (401, BackendRefused),
            (403, BackendRefused),
            (409, Conflict),
            (429, BackendUnavailable),
            (500, BackendUnavailable),
            (503, BackendUnavailable),
        ],
    )
    async def test_each_code_becomes_the_error_that_says_what_mends_it(
        self, code: int, expected: type[PlattrError]
    ) -> None:
        calls: list[str] = []

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            calls.append(request.method)
            return web.Response(status=code, text="<html>not json</html>")

        async with served(answer) as client:
            with pytest.raises(expected):
                await client.get(CONFIG_MAPS, "any", "default")

        assert calls == ["GET"]

    async def test_a_server_that_hangs_is_given_up_in_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("clients.kube_connection.TOTAL_SECONDS", 0.3)

        async def answer(_: web.BaseRequest) -> web.StreamResponse:
            await asyncio.sleep(5)
            return web.Response()

        async with served(answer) as client:
            with pytest.raises(BackendUnavailable):
                await asyncio.wait_for(client.get(CONFIG_MAPS, "any", "default"), timeout=3)

    async def test_a_write_is_given_up_before_another_attempt_may_begin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fence, "ON_ITS_WAY_SECONDS", 0.2)

        async def answer(_: web.BaseRequest) -> web.StreamResponse:
            await asyncio.sleep(5)
            return web.Response()

        async with served(answer) as client:
            token = fence.lease.set(fence.Lease(time.monotonic() + 0.2))
            try:
                with pytest.raises(BackendUnavailable):
                    await asyncio.wait_for(client.delete(CONFIG_MAPS, "any", "default"), timeout=3)
            finally:
                fence.lease.reset(token)

    async def test_a_server_that_is_not_there_is_unavailable(self, tmp_path: Path) -> None:
        client = await KubeClient.connect(str(kubeconfig(tmp_path, "http://127.0.0.1:1")))

        with pytest.raises(BackendUnavailable):
            await client.get(CONFIG_MAPS, "any", "default")

        await client.close()

    async def test_a_missing_kubeconfig_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(MissingSetting, match="nowhere"):
            await KubeClient.connect(str(tmp_path / "nowhere"))

    async def test_a_broken_kubeconfig_is_not_quoted(self, tmp_path: Path) -> None:
        path = tmp_path / "kubeconfig"
        path.write_text("users: [{token: canary-1234\n  }: {")

        with pytest.raises(MissingSetting) as caught:
            await KubeClient.connect(str(path))

        assert "canary" not in str(caught.value)

    @pytest.mark.parametrize(
        "mutilated",
        [
            pytest.param({"stringData": {"not a key": "canary-1234"}}, id="a-key-that-is-invalid"),
            pytest.param({"stringData": {"key": ["canary-1234"]}}, id="a-value-of-the-wrong-type"),
            pytest.param({"data": {"key": "canary-1234!"}}, id="a-value-that-is-not-base64"),
            pytest.param({"type": "canary-1234", "canaries": "canary-1234"}, id="a-field-that-is-unknown"),
        ],
    )
    @pytest.mark.parametrize("verb", ["create", "apply"])
    async def test_no_error_quotes_a_secret(self, cluster: Cluster, namespace: str, mutilated: Json, verb: str) -> None:
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-db"}, **mutilated}

        with pytest.raises(PlattrError) as caught:
            await getattr(cluster.kube, verb)(SECRETS, body, namespace)

        assert "canary" not in str(caught.value)
        assert "shop-db" in str(caught.value)

    async def test_no_error_quotes_a_variable_of_a_deployment(self, cluster: Cluster, namespace: str) -> None:
        container = {"name": "app", "image": "x", "env": [{"name": "canary-1234 =", "value": "canary-1234"}]}
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "shop"},
            "spec": {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}},
            },
        }

        with pytest.raises(BackendRefused, match=r"env\[0\]") as caught:
            await cluster.kube.apply(DEPLOYMENTS, body, namespace)

        assert "canary" not in str(caught.value)


class TestInCluster:
    async def test_the_token_file_is_read_again(
        self, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        document = yaml.safe_load(platform.endpoints.kubeconfig_worker.read_text())
        host, port = platform.endpoints.kubernetes_url.removeprefix("https://").split(":")
        authority = base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"])
        (tmp_path / "ca.crt").write_bytes(authority)
        (tmp_path / "token").write_text(secrets.token_hex(8))
        module = "kubernetes.aio.config.incluster_config"
        monkeypatch.setattr(f"{module}.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
        monkeypatch.setattr(f"{module}.SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        monkeypatch.delenv("KUBECONFIG", raising=False)
        _let_tokens_age_at_once(monkeypatch)
        client = await KubeClient.connect()
        with pytest.raises(BackendRefused):
            await client.get(CONFIG_MAPS, "any", "default")

        (tmp_path / "token").write_text(document["users"][0]["user"]["token"])
        body = await client.get(CONFIG_MAPS, "any", "default")

        await client.close()
        assert body is None


def _let_tokens_age_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads the file again after a minute; a test cannot wait that long."""
    read = InClusterConfigLoader._read_token_file

    def read_and_age(self: Any) -> None:
        read(self)
        self.token_expires_at -= self._token_refresh_period

    monkeypatch.setattr(InClusterConfigLoader, "_read_token_file", read_and_age)


def kubeconfig(folder: Path, server: str) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": {"token": "test"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


@asynccontextmanager
async def served(answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[KubeClient]:
    """A client of a server that answers as told."""
    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    client = KubeClient(_api_of(f"http://127.0.0.1:{port}"))
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def _api_of(url: str) -> Any:
    configuration = Configuration(host=url)
    configuration.retries = None
    return ApiClient(configuration)
