"""Objects as large as the API server takes them do not fill the memory of whoever lists or watches all."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import pytest

from activities.fleet import FleetActivities
from clients import kube as kube_module
from clients.kube import KubeClient
from clients.resources import APPLICATIONS
from plattr.fleet import FleetQuery
from plattr.objects import PAUSED_ANNOTATION, Kind
from tests.fix_kubernetes import Cluster, application_spec
from tests.fix_memory import Peak
from watcher.metrics import WatcherMetrics
from watcher.reflector import Listed, Reflector
from watcher.snapshots import take_snapshot

pytestmark = pytest.mark.attack

OBJECTS = 24
# What the CRD lets through: values of 128 Ki characters, up to four bytes each; and 256 KiB of annotations.
SPEC = application_spec(envVars=[{"name": f"V{number}", "value": "\u20ac" * 32768} for number in range(4)])
ANNOTATIONS = {PAUSED_ANNOTATION: "true", "example.test/notes": "n" * 250_000}
# 15 MB on the wire, and more when read. With pages of 1 MiB no more than a few megabytes may be in memory at once.
PAGE_BYTES = 2**20
MOST = 10_000_000


async def test_lists_of_large_objects_are_never_in_memory_as_a_whole(
    cluster: Cluster, namespace: str, kube: KubeClient, metrics: WatcherMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_module, "PAGE_BYTES", PAGE_BYTES)
    for number in range(OBJECTS):
        await cluster.apply(namespace, f"large-{number}", SPEC, metadata={"annotations": ANNOTATIONS})
    stream = Reflector(kube, APPLICATIONS, lambda body: take_snapshot(Kind.APPLICATION, body), metrics)
    tracker = FleetActivities(cluster.kube, cluster.claim_store, cast("Any", None))

    with Peak() as whole:
        await kube.list(APPLICATIONS)
    with Peak() as watcher:
        async with aclosing(cast("AsyncGenerator[Any]", stream.changes())) as changes:
            listed = await anext(changes)
    with Peak() as resync:
        await tracker.list_fleet(FleetQuery(purpose="resync", limit=500))
    with Peak() as restore:
        page = await tracker.list_fleet(FleetQuery(purpose="restore", limit=500))

    assert isinstance(listed, Listed)
    assert sum(seen.reference.namespace == namespace for seen in listed.seen) == OBJECTS
    # Paused, all of them.
    assert not [member for member in page.members if member.reference.namespace == namespace]
    assert max(watcher.bytes, resync.bytes, restore.bytes) < MOST < whole.bytes
