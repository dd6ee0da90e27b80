"""A frozen worker, or one cut off from Temporal, writes nothing once another may act; see activities/interceptor.py."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from cli.auditing.auditor import audit
from clients.claim_store import ClaimStore
from clients.resources import PREVIEWS
from plattr.objects import Kind
from stack.platform import Platform
from stack.services.cluster import NAMESPACE as LEASE_NAMESPACE
from tests.faults.lanes import open_lane
from tests.faults.partition import Line
from tests.faults.scenarios import Actor
from tests.faults.timing import EARNEST
from tests.faults.worker import Fault
from tests.faults.zombies import Evidence, Zombie, haunt, parent_of_previews, remove_haunted

# Longer than the fence (10 s) and the heartbeat timeout (15 s) as they are for real.
FROZEN_SECONDS = 20.0
# What a frozen and killed worker had begun to delete is gone so soon after the next one begins: 20 s on a machine with
# nothing else to do, and 50 s have been seen on one with many tests; not the five minutes of the lost call.
BACK_SECONDS = 120.0
ZOMBIES = (
    Zombie("provision", "claim_object", 4, "finished"),
    Zombie("provision", "reconcile_database", 1, "removed"),
    Zombie("provision", "reconcile_database", 2, "finished"),
    Zombie("provision", "reconcile_storage", 2, "removed"),
    Zombie("provision", "reconcile_auth", 1, "removed"),
    Zombie("provision", "reconcile_auth", 2, "removed"),
    Zombie("provision", "reconcile_workload", 3, "removed"),
    Zombie("cleanup", "delete_auth", 2, "made again"),
    Zombie("cleanup", "delete_database", 4, "made again"),
    Zombie("preview", "reconcile_namespace", 1, "removed", Kind.PREVIEW),
    Zombie("cleanup", "delete_namespace", 1, "made again", Kind.PREVIEW),
)


@pytest.fixture(scope="module")
async def evidence(
    platform: Platform, actor: Actor, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[Zombie, Evidence]]:
    """All of them at once: what takes time is waiting."""
    environment, folder = platform.environment("worker"), tmp_path_factory.mktemp("zombies")
    before = set(audit(platform.environment("cli")).findings)

    async with parent_of_previews(actor, environment, folder / "parent") as parent:
        found = await haunt(actor, environment, folder, ZOMBIES, seconds=FROZEN_SECONDS, parent=parent)

        findings = (await asyncio.to_thread(audit, platform.environment("cli"))).findings
        assert set(findings) <= before
        yield {each.zombie: each for each in found}
        await remove_haunted(actor, environment, folder / "cleanup", found)


@pytest.mark.parametrize("zombie", ZOMBIES, ids=str)
def test_a_frozen_worker_writes_nothing_when_it_wakes(evidence: dict[Zombie, Evidence], zombie: Zombie) -> None:
    found = evidence[zombie]

    assert found.seconds_frozen >= FROZEN_SECONDS
    assert found.writes == ()
    # It did wake and try: the fence let its attempt fail, and the next one as well if its poll was handed that too.
    assert set(found.ending) == {"failed"}


async def test_a_worker_cut_off_from_temporal_stops_writing_before_another_begins(
    platform: Platform, actor: Actor, tmp_path: Path
) -> None:
    environment = platform.environment("worker")
    async with (
        Line(environment["TEMPORAL_ADDRESS"]) as line,
        open_lane(
            environment | {"TEMPORAL_ADDRESS": f"127.0.0.1:{line.port}"}, tmp_path / "cut-off", EARNEST
        ) as cut_off,
    ):
        item = actor.new_application(cut_off)
        # One bucket hangs until another worker has the attempt, 16 s after its start; at 20 s the SDK itself would
        # cut it off. The worker is as alive as can be all the while, and beats.
        fault = Fault(activity="reconcile_storage", point="write", count=4, workflow=item.workflow, sleep_seconds=18)
        cut_off.arm(fault)
        await actor.act("provision", item)
        await cut_off.fired()
        line.cut()
        seen = len(cut_off.journal(item.workflow))

        async with open_lane(environment, tmp_path / "other", EARNEST, cut_off.task_queue) as other:
            await actor.done("provision", item)
            taken_over = next(e for e in other.journal(item.workflow) if e.activity == "reconcile_storage")
            await asyncio.sleep(10)
            late = [
                entry
                for entry in cut_off.journal(item.workflow)[seen:]
                if entry.event == "write" and entry.at > taken_over.at
            ]
            item.lane = other
            await actor.act("cleanup", item)
            await actor.done("cleanup", item)

    assert late == []


@pytest.mark.attack
async def test_a_worker_killed_while_it_deletes_a_realm_holds_no_object_back(
    platform: Platform, actor: Actor, tmp_path: Path
) -> None:
    """Frozen before Keycloak is asked, then killed: whether it was nobody knows, and for 5 min it may come true."""
    environment, before = platform.environment("worker"), set(audit(platform.environment("cli")).findings)
    timing = EARNEST.model_copy(update={"late_call": timedelta(minutes=5)})
    async with open_lane(environment, tmp_path / "lane", timing) as lane:
        parent = actor.new_application(lane)
        await actor.act("provision", parent)
        await actor.done("provision", parent)
        preview = actor.new_preview(lane, parent)
        await actor.act("preview", preview)
        await actor.done("preview", preview)
        fault = Fault(activity="delete_auth", point="write", count=2, workflow=parent.workflow, signal=signal.SIGSTOP)
        lane.arm(fault)
        await actor.act("cleanup", preview)
        await actor.act("cleanup", parent)
        await lane.frozen()
        await asyncio.sleep(FROZEN_SECONDS)

        # The lane starts the next one.
        lane.signal(signal.SIGKILL)
        began = time.monotonic()
        await actor.view.wait_gone(parent.name, seconds=BACK_SECONDS)
        await actor.view.wait_gone(preview.name, seconds=BACK_SECONDS, resource=PREVIEWS)
        seconds = time.monotonic() - began
        findings = set((await asyncio.to_thread(audit, platform.environment("cli"))).findings)

    try:
        assert seconds < BACK_SECONDS
        assert findings <= before
        claim_store = ClaimStore(actor.view.kube, LEASE_NAMESPACE)
        held = await claim_store.held_under(parent.reference)
        assert [each.claim.name for each in held if each.quarantined_until] == [parent.name]
    finally:
        # What waits for the end of the five minutes has no worker any more.
        for item in (parent, preview):
            await actor.forget(item)
