"""The watcher as a process stays within the memory that the chart gives it, whatever tenants make."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from clients.kube import KubeClient
from clients.resources import APPLICATIONS, Json
from plattr.objects import PAUSED_ANNOTATION
from stack.platform import Platform
from tests.fix_kubernetes import Cluster, application_spec

pytestmark = [
    pytest.mark.attack,
    pytest.mark.long,
    # What the tenant here sends.
    pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning"),
]

CHART_VALUES = Path(__file__).parents[2] / "deploy/chart/values.yaml"
OBJECTS = 130
OBJECT_BYTES = 1_400_000
CHANGES = 20
# Four bytes a character, as many characters as the CRD lets through.
VALUES = [{"name": f"V{number}", "value": "\U0001f600" * 32768} for number in range(4)]
ANNOTATIONS = {PAUSED_ANNOTATION: "true", "example.test/notes": "n" * 250_000}
REST = OBJECT_BYTES - sum(len(each["value"].encode()) for each in VALUES) - 250_000
# The API server keeps an entry of `managedFields` as its writer sends it.
MANAGED = {
    "manager": "tenant",
    "operation": "Apply",
    "apiVersion": APPLICATIONS.api_version,
    "time": "2026-01-01T00:00:00Z",
    "fieldsType": "FieldsV1",
    "fieldsV1": {"f:" + "f" * REST: {}},
}
CHANGE: list[Json] = [{"op": "add", "path": "/metadata/annotations/changed", "value": "once"}]


@pytest.fixture
async def large_objects(cluster: Cluster, namespace: str) -> list[str]:
    """Make 130 paused Applications of 1.4 MB; return their names."""
    names = [f"large-{number:03}" for number in range(OBJECTS)]
    for name in names:
        body = {
            "apiVersion": APPLICATIONS.api_version,
            "kind": APPLICATIONS.kind,
            "metadata": {"name": name, "annotations": ANNOTATIONS, "managedFields": [MANAGED]},
            "spec": application_spec(envVars=VALUES),
        }
        await cluster.admin.create(APPLICATIONS, body, namespace)
    return names


class WatcherProcess:
    """A running watcher."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def most_bytes(self) -> int:
        """Return the most memory that was resident at once since the start, as the kernel counts it."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024

    async def listed(self, count: int) -> None:
        """Return when so many lists have been read."""
        await asyncio.wait_for(asyncio.to_thread(self._read, count), timeout=300)

    def _read(self, count: int) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            count -= '"listed"' in line
            if not count:
                return
        raise AssertionError("the watcher ended before it had listed all")


@contextmanager
def running(platform: Platform) -> Iterator[WatcherProcess]:
    environment = {
        **platform.environment("watcher"),
        # All objects are paused, so it has nothing to say to Temporal.
        "TEMPORAL_ADDRESS": "127.0.0.1:1",
        "METRICS_PORT": "0",
        "METRICS_HOST": "127.0.0.1",
        "PATH": os.environ["PATH"],
    }
    process = subprocess.Popen([sys.executable, "-m", "watcher"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield WatcherProcess(process)
    finally:
        process.kill()
        process.communicate()


async def test_watcher_reads_130_objects_of_1_4_mb_within_its_memory_limit(
    platform: Platform, kube: KubeClient, namespace: str, large_objects: list[str]
) -> None:
    limit = yaml.safe_load(CHART_VALUES.read_text())["watcher"]["resources"]["limits"]["memory"]

    with running(platform) as watcher:
        await watcher.listed(3)
        for name in large_objects[:CHANGES]:
            await kube.json_patch(APPLICATIONS, name, CHANGE, namespace)
        # An event comes at once.
        await asyncio.sleep(2)
        most = watcher.most_bytes

    print(f"at most {most / 2**20:.0f} MiB")  # noqa: T201  the figure of docs/guarantees.md, by -s
    assert limit == "512Mi"
    assert most < 512 * 2**20
