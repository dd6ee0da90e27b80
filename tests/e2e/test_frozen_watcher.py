"""The leading watcher stands still for a while: another takes over, and what it does on waking changes nothing."""

import asyncio
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from clients.resources import DEPLOYMENTS, LEASES
from stack.services.base import answers
from stack.services.cluster import NAMESPACE
from tests.e2e.view import SMALL, View, random_name
from watcher.leadership import LEASE_NAME

DATABASE = SMALL | {"database": {"enabled": True}}
# Past the Lease's 15 s in the short form too.
FREEZES = [25, pytest.param(60, marks=pytest.mark.long)]


@pytest.fixture
async def replicas(view: View, tmp_path: Path) -> AsyncIterator[list[Process]]:
    """Two watchers as the chart runs them, in place of the platform's own; the first is the leader."""
    await asyncio.to_thread(view.platform.stop_service, "watcher")
    processes = []
    try:
        for number in range(2):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = str(free.getsockname()[1])
            settings = view.platform.environment("watcher") | {"METRICS_PORT": port, "LEADER_ELECTION": "true"}
            with (tmp_path / f"watcher-{number}.log").open("w") as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "watcher", env=os.environ | settings, stdout=log, stderr=log
                )
            processes.append(process)
            async with asyncio.timeout(30):
                while not await asyncio.to_thread(answers, f"http://127.0.0.1:{port}/readyz"):
                    await asyncio.sleep(0.1)
            if number == 0:
                async with asyncio.timeout(30):
                    while not await holder(view):
                        await asyncio.sleep(0.1)
        yield processes
    finally:
        for process in processes:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        await asyncio.gather(*(process.wait() for process in processes))
        await asyncio.to_thread(view.platform.start_service, "watcher")


async def holder(view: View) -> str:
    lease = await view.kube.get(LEASES, LEASE_NAME, NAMESPACE)
    return str((lease or {}).get("spec", {}).get("holderIdentity") or "")


async def state(view: View, names: list[str]) -> list[Any]:
    found: list[Any] = []
    for name in names:
        bodies = [await view.application(name), await view.kube.get(DEPLOYMENTS, name, view.namespace)]
        found += [(body or {}).get("metadata", {}).get("resourceVersion") for body in bodies]
        found += [await view.secret(f"{name}-db"), await view.schemas_and_roles(f"staging_{name.replace('-', '_')}")]
    return found


@pytest.mark.parametrize("seconds", FREEZES)
async def test_a_watcher_that_was_frozen_duplicates_nothing(view: View, replicas: list[Process], seconds: int) -> None:
    leader, _ = replicas
    first = await holder(view)
    leader.send_signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    new, changed, gone = random_name(), random_name(), random_name()
    for name in (new, changed, gone):
        await view.apply(name, DATABASE)
    for name in (new, changed, gone):
        await view.wait_running(name)
    took_over = await holder(view)
    await view.apply(changed, DATABASE | {"imageRef": "registry.example/app:2"})
    await view.delete(gone)
    await view.wait_running(changed)
    await view.wait_gone(gone)
    for name in (new, changed):
        await view.settle(name)
    before = await state(view, [new, changed])

    await asyncio.sleep(max(seconds - (time.monotonic() - stopped_at), 0))
    leader.send_signal(signal.SIGCONT)
    # It finds its Lease taken and ends; Kubernetes would start it again, to wait like any other.
    async with asyncio.timeout(30):
        assert await leader.wait() != 0
    await asyncio.sleep(5)

    assert took_over != first
    assert await holder(view) == took_over
    assert await state(view, [new, changed]) == before
    assert await view.application(gone) is None
    assert await view.schemas_and_roles(f"staging_{gone.replace('-', '_')}") == set()
