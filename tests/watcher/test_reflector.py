import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from clients import kube as kube_module
from clients.kube import KubeClient
from clients.resources import APPLICATIONS, CONFIG_MAPS, DEPLOYMENTS, Json
from stack.platform import Platform
from tests.watcher.proxy import Proxy
from watcher.metrics import WatcherMetrics
from watcher.reflector import Changed, Listed, Reflector

# What a stream yields, as (type, name) and ("LISTED", names).
Seen = asyncio.Queue[tuple[str, Any]]


@pytest.fixture
def label() -> str:
    return f"watcher-test={uuid.uuid4().hex[:8]}"


def config_map(name: str, label: str, **data: Any) -> Json:
    key, value = label.split("=")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {key: value}},
        "data": data,
    }


def application(name: str, label: str) -> Json:
    key, value = label.split("=")
    return {
        "apiVersion": APPLICATIONS.api_version,
        "kind": APPLICATIONS.kind,
        "metadata": {"name": name, "labels": {key: value}},
        "spec": {"repository": "https://example.com/a.git", "framework": "docker", "environment": "staging"},
    }


@asynccontextmanager
async def following(stream: Reflector[Json]) -> AsyncIterator[Seen]:
    """Collect what the stream yields, as (type, name) and ("LISTED", names)."""
    seen: Seen = asyncio.Queue()

    async def follow() -> None:
        async for change in stream.changes():
            if isinstance(change, Listed):
                seen.put_nowait(("LISTED", sorted(body["metadata"]["name"] for body in change.seen)))
            else:
                assert isinstance(change, Changed)
                seen.put_nowait((change.type, change.seen["metadata"]["name"]))

    task = asyncio.create_task(follow())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def next_of(seen: Seen, seconds: float = 60.0) -> tuple[str, Any]:
    return await asyncio.wait_for(seen.get(), seconds)


async def test_a_list_then_every_change(kube: KubeClient, namespace: str, metrics: WatcherMetrics, label: str) -> None:
    await kube.create(CONFIG_MAPS, config_map("first", label), namespace)
    stream = Reflector(kube, CONFIG_MAPS, dict, metrics, label_selector=label)

    async with following(stream) as seen:
        assert await next_of(seen) == ("LISTED", ["first"])
        await kube.create(CONFIG_MAPS, config_map("second", label), namespace)
        assert await next_of(seen) == ("ADDED", "second")
        await kube.apply(CONFIG_MAPS, config_map("second", label, key="value"), namespace)
        assert await next_of(seen) == ("MODIFIED", "second")
        await kube.delete(CONFIG_MAPS, "first", namespace)
        assert await next_of(seen) == ("DELETED", "first")

    assert stream.is_synced
    assert stream.heard_at is not None


async def test_a_watch_that_ends_goes_on_where_it_was(
    kube: KubeClient, namespace: str, metrics: WatcherMetrics, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watcher.reflector.SHORTEST_WATCH_SECONDS", 1)
    monkeypatch.setattr("watcher.reflector.LONGEST_WATCH_SECONDS", 1)
    stream = Reflector(kube, CONFIG_MAPS, dict, metrics, label_selector=label)

    async with following(stream) as seen:
        assert await next_of(seen) == ("LISTED", [])
        for number in range(30):
            await kube.create(CONFIG_MAPS, config_map(f"map-{number}", label), namespace)
            await asyncio.sleep(0.1)
        names = [await next_of(seen) for _ in range(30)]

    assert names == [("ADDED", f"map-{number}") for number in range(30)]
    assert metrics.relists.labels("configmaps")._value.get() == 1


async def test_an_expired_version_is_listed_again_and_shows_what_was_missed(
    kube: KubeClient, namespace: str, metrics: WatcherMetrics, label: str
) -> None:
    # Of Applications the API server has never known version 1: their CRD is younger. Of ConfigMaps it still knows
    # everything on a new platform, and would send the changes instead of the error.
    for name in ("kept", "deleted"):
        await kube.create(APPLICATIONS, application(name, label), namespace)
    stream = Reflector(kube, APPLICATIONS, dict, metrics, label_selector=label)
    async with following(stream) as seen:
        assert await next_of(seen) == ("LISTED", ["deleted", "kept"])
    await kube.delete(APPLICATIONS, "deleted", namespace)

    # Long before what the server keeps.
    stream._version = "1"
    async with following(stream) as seen:
        assert await next_of(seen) == ("LISTED", ["kept"])
        await kube.create(APPLICATIONS, application("after", label), namespace)
        assert await next_of(seen) == ("ADDED", "after")


async def test_a_blackholed_connection_is_noticed_and_nothing_is_missed(
    platform: Platform,
    kube: KubeClient,
    namespace: str,
    metrics: WatcherMetrics,
    label: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(kube_module, "WATCH_SILENCE_SECONDS", 2.0)
    monkeypatch.setattr("clients.kube_connection.TOTAL_SECONDS", 2.0)
    await kube.create(CONFIG_MAPS, config_map("victim", label), namespace)
    kubeconfig = yaml.safe_load(platform.endpoints.kubeconfig_admin.read_text())
    port = int(kubeconfig["clusters"][0]["cluster"]["server"].rsplit(":", 1)[1])
    async with Proxy("127.0.0.1", port) as proxy:
        kubeconfig["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(kubeconfig))
        proxied = await KubeClient.connect(str(path))
        stream = Reflector(proxied, CONFIG_MAPS, dict, metrics, label_selector=label)
        async with following(stream) as seen:
            assert await next_of(seen) == ("LISTED", ["victim"])
            await kube.create(CONFIG_MAPS, config_map("before", label), namespace)
            assert await next_of(seen) == ("ADDED", "before")
            proxy.blackhole()
            await kube.delete(CONFIG_MAPS, "victim", namespace)
            await kube.create(CONFIG_MAPS, config_map("during", label), namespace)
            await asyncio.sleep(4)
            assert seen.empty()
            heard_at = stream.heard_at
            assert heard_at is not None
            # The loop has noticed and tries again, so it is alive though it hears nothing.
            assert stream.alive_at > heard_at
            proxy.heal()
            healed_at = time.monotonic()

            after = {await next_of(seen, 15), await next_of(seen, 15)}

        await proxied.close()
    assert after == {("DELETED", "victim"), ("ADDED", "during")}
    assert time.monotonic() - healed_at < 10
    assert proxy.connections >= 2


async def test_a_large_object_passes(kube: KubeClient, namespace: str, metrics: WatcherMetrics, label: str) -> None:
    stream = Reflector(kube, CONFIG_MAPS, dict, metrics, label_selector=label)

    async with following(stream) as seen:
        assert await next_of(seen) == ("LISTED", [])
        await kube.create(CONFIG_MAPS, config_map("large", label, text="x" * 900_000), namespace)
        assert await next_of(seen) == ("ADDED", "large")


async def test_a_server_that_refuses_is_asked_again(
    kube: KubeClient, namespace: str, metrics: WatcherMetrics, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, value = label.split("=")
    stream = Reflector(kube, CONFIG_MAPS, dict, metrics, label_selector=f"{key}=={value}==")

    async with following(stream) as seen:
        await asyncio.sleep(0.5)
        assert not stream.is_synced
        stream._label_selector = label
        assert await next_of(seen) == ("LISTED", [])

    assert metrics.watch_errors.labels("configmaps", "BackendRefused")._value.get() >= 1


async def test_an_application_is_seen_with_its_deletion(
    kube: KubeClient, namespace: str, metrics: WatcherMetrics
) -> None:
    stream = Reflector(kube, APPLICATIONS, dict, metrics)
    body = {
        "apiVersion": APPLICATIONS.api_version,
        "kind": APPLICATIONS.kind,
        "metadata": {"name": "seen", "finalizers": ["example.com/hold"]},
        "spec": {"repository": "https://example.com/a.git", "framework": "docker", "environment": "staging"},
    }

    async with following(stream) as seen:
        assert (await next_of(seen))[0] == "LISTED"
        await kube.create(APPLICATIONS, body, namespace)
        await kube.delete(APPLICATIONS, "seen", namespace)
        await kube.json_patch(APPLICATIONS, "seen", [{"op": "remove", "path": "/metadata/finalizers"}], namespace)
        ours: list[str] = []
        while len(ours) < 3:
            change = await next_of(seen)
            if change[1] == "seen":
                ours.append(change[0])

    assert ours == ["ADDED", "MODIFIED", "DELETED"]


@pytest.mark.attack
async def test_an_event_that_is_longer_than_the_clients_buffer_is_one_event(
    kube: KubeClient, namespace: str, metrics: WatcherMetrics, label: str
) -> None:
    # Stored as a byte each, in JSON six: an object of 0.9 MB becomes an event of 5 MB.
    key, value = label.split("=")
    labels = {key: value}
    variables = [{"name": f"V{number}", "value": "<" * 110_000} for number in range(6)]
    large = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "large", "labels": labels, "annotations": {"example.test/note": "<" * 200_000}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "app", "image": "example.test/app", "env": variables}]},
            },
        },
    }
    stream = Reflector(kube, DEPLOYMENTS, dict, metrics, label_selector=label)

    async with following(stream) as seen:
        assert await next_of(seen) == ("LISTED", [])
        await kube.create(DEPLOYMENTS, large, namespace)

        assert await next_of(seen) == ("ADDED", "large")
