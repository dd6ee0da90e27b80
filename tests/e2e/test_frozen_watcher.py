"""The leading watcher stands still for a while: another takes over, and what it does on waking changes nothing."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from activities.clients.resources import DEPLOYMENTS, LEASES
from stack.services.cluster import NAMESPACE
from tests.e2e.view import SMALL, View, random_name
from watcher.leadership import LEASE_NAME

DATABASE = SMALL | {"database": {"enabled": True}}
# Past the Lease's 15 s in the short form too.
FREEZES = [25, pytest.param(60, marks=pytest.mark.long)]


def watcher_pid(view: View) -> int:
    return next(status.pid for status in view.platform.status() if status.service == "watcher" and status.pid)


@pytest.fixture
async def frozen(view: View, tmp_path: Path) -> AsyncIterator[int]:
    """The pid of the leading watcher, stopped, and a second watcher that waits for its Lease."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | view.platform.environment("watcher") | {"METRICS_PORT": str(port)}
    with (tmp_path / "second.log").open("w") as log:
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "watcher", env=environment, stdout=log, stderr=log
        )
    leader = watcher_pid(view)
    try:
        await answers(f"http://127.0.0.1:{port}/readyz")
        os.kill(leader, signal.SIGSTOP)
        yield leader
    finally:
        if psutil.pid_exists(leader):
            os.kill(leader, signal.SIGCONT)
        second.terminate()
        async with asyncio.timeout(30):
            await second.wait()


async def answers(url: str) -> None:
    async with asyncio.timeout(30), httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                if (await http.get(url)).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


async def holder(view: View) -> str:
    lease = await view.kube.get(LEASES, LEASE_NAME, NAMESPACE)
    return str((lease or {}).get("spec", {}).get("holderIdentity"))


async def state(view: View, names: list[str]) -> list[Any]:
    found: list[Any] = []
    for name in names:
        bodies = [await view.application(name), await view.kube.get(DEPLOYMENTS, name, view.namespace)]
        found += [(body or {}).get("metadata", {}).get("resourceVersion") for body in bodies]
        found += [await view.secret(f"{name}-db"), await view.schemas_and_roles(f"staging_{name.replace('-', '_')}")]
    return found


@pytest.mark.parametrize("seconds", FREEZES)
async def test_a_watcher_that_was_frozen_duplicates_nothing(view: View, frozen: int, seconds: int) -> None:
    stopped_at = time.monotonic()
    first = await holder(view)
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
    os.kill(frozen, signal.SIGCONT)
    # It finds its Lease taken and ends; the platform starts it again, and it waits like any other.
    async with asyncio.timeout(30):
        while psutil.pid_exists(frozen):
            await asyncio.sleep(0.1)
    await asyncio.sleep(5)

    assert took_over != first
    assert await holder(view) == took_over
    assert await state(view, [new, changed]) == before
    assert await view.application(gone) is None
    assert await view.schemas_and_roles(f"staging_{gone.replace('-', '_')}") == set()
