import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import psutil
import psycopg
import pytest

from stack.errors import PlatformError
from stack.platform import Platform
from tests.stack.conftest import SERVICES

PROCESSES = (
    *("temporal", "postgres", "s3"),
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"),
)
# Started by whoever connects: tests/stack/test_doorbell.py.
ON_DEMAND = ("redis", "opensearch")


def tool(platform: Platform, name: str, *arguments: str) -> str:
    endpoints = platform.endpoints
    environment = {"KUBECONFIG": str(endpoints.kubeconfig_admin), "TEMPORAL_ADDRESS": endpoints.temporal_address}
    environment["HOME"] = str(platform.folders.state)
    return subprocess.run(
        [endpoints.bin_dir / name, *arguments], env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout


def s3_client(platform: Platform) -> Any:
    endpoints = platform.endpoints
    return boto3.client(
        "s3",
        endpoint_url=endpoints.s3_url,
        region_name="us-east-1",
        aws_access_key_id=endpoints.s3_key,
        aws_secret_access_key=endpoints.s3_secret,
    )


def write_everywhere(platform: Platform) -> None:
    with psycopg.connect(platform.endpoints.database_admin_url) as connection:
        connection.execute("CREATE SCHEMA kept")
    s3_client(platform).create_bucket(Bucket="kept")
    tool(platform, "kubectl", "create", "configmap", "kept", "--from-literal=a=b")
    tool(platform, "temporal", "workflow", "start", "--type", "Kept", "--task-queue", "none", "--workflow-id", "kept")


def read_everywhere(platform: Platform) -> set[str]:
    found = set()
    with psycopg.connect(platform.endpoints.database_admin_url) as connection:
        if connection.execute("SELECT FROM pg_namespace WHERE nspname = 'kept'").rowcount:
            found.add("schema")
    if "kept" in [bucket["Name"] for bucket in s3_client(platform).list_buckets()["Buckets"]]:
        found.add("bucket")
    if json.loads(tool(platform, "kubectl", "get", "configmap", "kept", "-o", "json"))["data"] == {"a": "b"}:
        found.add("config map")
    if "Kept" in tool(platform, "temporal", "workflow", "describe", "--workflow-id", "kept"):
        found.add("workflow")
    return found


def pids(platform: Platform) -> dict[str, int | None]:
    return {status.service: status.pid for status in platform.status()}


@pytest.fixture(scope="module")
def written(own_platform: Platform) -> Platform:
    write_everywhere(own_platform)
    return own_platform


def test_every_process_is_running_and_says_where(own_platform: Platform) -> None:
    statuses = {status.service: status for status in own_platform.status()}

    waiting = {name: statuses.pop(name) for name in ON_DEMAND}
    assert {status.state for status in waiting.values()} == {"on demand"}
    assert tuple(statuses) == PROCESSES
    assert {status.state for status in statuses.values()} == {"running"}
    assert statuses["temporal"].address == own_platform.endpoints.temporal_address
    assert all(psutil.pid_exists(status.pid) and status.log.exists() for status in statuses.values())


def test_admin_of_the_database_is_no_superuser(own_platform: Platform) -> None:
    with psycopg.connect(own_platform.endpoints.database_admin_url) as connection:
        row = connection.execute("SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user").fetchone()

    assert row == (False, True)


def test_search_attributes_are_there(own_platform: Platform) -> None:
    listed = tool(own_platform, "temporal", "operator", "search-attribute", "list")

    for name in ("PlattrNamespace", "PlattrName", "PlattrEnvironment", "PlattrPhase"):
        assert any(line.split()[:2] == [name, "Keyword"] for line in listed.splitlines())


def test_pod_of_a_deployment_becomes_ready(own_platform: Platform) -> None:
    tool(own_platform, "kubectl", "create", "deployment", "probe", "--image=registry.test/probe:1")

    tool(own_platform, "kubectl", "wait", "--for=condition=Available", "deployment/probe", "--timeout=30s")


def test_second_start_returns_at_once_and_starts_nothing(own_platform: Platform) -> None:
    before = pids(own_platform)
    began = time.monotonic()

    own_platform.start(services=SERVICES)

    assert pids(own_platform) == before
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("process", PROCESSES)
def test_killed_process_comes_back_with_its_state(written: Platform, process: str) -> None:
    before = {status.service: status for status in written.status()}

    written.kill_service(process)
    written.start(services=SERVICES)

    after = {status.service: status for status in written.status()}
    assert after[process].pid != before[process].pid
    assert after[process].restarts == before[process].restarts + 1
    assert read_everywhere(written) == {"schema", "bucket", "config map", "workflow"}


def test_held_service_stays_down_until_it_is_started(own_platform: Platform) -> None:
    own_platform.stop_service("s3")
    # Longer than the first back-off, after which a dead service would be back.
    time.sleep(1)
    held = {status.service: status for status in own_platform.status()}["s3"]
    own_platform.start_service("s3")
    started = {status.service: status for status in own_platform.status()}["s3"]

    assert (held.state, held.pid) == ("stopped", None)
    assert started.state == "running"


def test_killed_supervisor_is_replaced_and_its_processes_with_it(written: Platform) -> None:
    supervisor = written.control.supervisor()
    assert supervisor is not None
    before = pids(written)
    psutil.Process(supervisor.pid).send_signal(signal.SIGKILL)
    psutil.Process(supervisor.pid).wait(5)
    orphaned = {status.message for status in written.status() if status.service in PROCESSES}

    written.start(services=SERVICES)

    assert orphaned == {"not supervised; run plattr infra start"}
    assert not {pid for pid in before.values() if pid is not None and psutil.pid_exists(pid)}
    assert {status.state for status in written.status() if status.service in PROCESSES} == {"running"}
    assert read_everywhere(written) == {"schema", "bucket", "config map", "workflow"}


def test_second_supervisor_of_a_folder_gives_up(own_platform: Platform) -> None:
    before = pids(own_platform)

    done = subprocess.run(
        [sys.executable, "-m", "stack", "supervise", str(own_platform.folders.state)], capture_output=True, check=False
    )

    assert done.returncode == 1
    assert b"another supervisor does" in done.stderr
    assert pids(own_platform) == before


def test_stop_leaves_no_process_and_a_start_finds_the_state(written: Platform) -> None:
    before = [psutil.Process(pid) for pid in pids(written).values() if pid is not None]

    written.stop()
    stopped = {(status.state, status.pid) for status in written.status()}
    left = [process for process in before if process.is_running()]
    written.start(services=SERVICES)

    assert left == []
    assert stopped == {("stopped", None)}
    assert read_everywhere(written) == {"schema", "bucket", "config map", "workflow"}


def test_keys_and_passwords_are_private(own_platform: Platform) -> None:
    state: Path = own_platform.folders.state
    private = [*state.glob("kubeconfig*"), *state.glob("run/*.json"), *state.glob("kubernetes-keys/*")]

    assert len(private) > 10
    assert [path for path in private if path.stat().st_mode & 0o077] == []


def test_killing_what_does_not_run_is_refused(own_platform: Platform) -> None:
    with pytest.raises(PlatformError, match="cannot kill keycloak: it is not running"):
        own_platform.kill_service("keycloak")
