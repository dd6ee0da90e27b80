"""kill -9 of Temporal's server in the middle of an activity, and of the watcher around a change."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cli.auditing.auditor import audit
from stack.platform import Platform
from tests.e2e.view import View
from tests.faults.ground import ground
from tests.faults.lanes import open_lane
from tests.faults.matrix import Point
from tests.faults.scenarios import SPEC, Actor
from tests.faults.timing import QUICK
from tests.faults.worker import Fault

PLACES = (
    Point("provision", "reconcile_storage", "write", 4),
    Point("image changed", "reconcile_workload", "after"),
    Point("cleanup", "delete_database", "write", 3),
)


def temporal_pid(platform: Platform) -> int:
    [pid] = [status.pid for status in platform.status() if status.service == "temporal"]
    assert pid is not None
    return pid


async def test_temporal_killed_during_an_activity_loses_nothing(
    platform: Platform, actor: Actor, tmp_path: Path
) -> None:
    settings = platform.environment("cli")
    before = set(audit(settings).findings)
    passwords = []
    async with open_lane(platform.environment("worker"), tmp_path / "lane", QUICK) as lane:
        item = actor.new_application(lane)
        for place in PLACES:
            pid = temporal_pid(platform)
            lane.arm(
                Fault(
                    activity=place.activity,
                    point=place.place,
                    count=place.count,
                    workflow=item.workflow,
                    pid=pid,
                )
            )
            await actor.act(place.scenario, item)
            await lane.fired()
            await actor.done(place.scenario, item)
            assert temporal_pid(platform) != pid
            passwords.append(await actor.password(item))
            assert set((await asyncio.to_thread(audit, settings)).findings) <= before

    assert lane.exits == []
    assert passwords[0] is not None
    assert passwords == [passwords[0], passwords[0], None]


@pytest.fixture(scope="module")
def system(platform: Platform) -> Iterator[Platform]:
    """With the platform's own worker and watcher."""
    platform.start(apps=("worker", "watcher"))
    yield platform
    for app in ("watcher", "worker"):
        platform.stop_service(app)


@pytest.fixture(scope="module")
async def view(system: Platform) -> AsyncIterator[View]:
    async with ground(system) as (view, _):
        yield view


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_the_watcher_killed_around_a_change_misses_nothing(system: Platform, view: View, moment: str) -> None:
    name = f"watched-{moment}"
    before = set(audit(system.environment("cli")).findings)

    async def killed_around(change: str) -> None:
        if moment == "before":
            await asyncio.to_thread(system.kill_service, "watcher")
        await (view.apply(name, SPEC) if change == "apply" else view.delete(name))
        if moment == "after":
            await asyncio.to_thread(system.kill_service, "watcher")

    await killed_around("apply")
    await view.wait_running(name, seconds=90)
    found = set((await asyncio.to_thread(audit, system.environment("cli"))).findings)
    await killed_around("delete")
    await view.wait_gone(name, seconds=90)
    left = set((await asyncio.to_thread(audit, system.environment("cli"))).findings)

    assert found <= before
    assert left <= before
