"""The short form of the crash matrix: one place an activity. `make faults` runs every place."""

import asyncio
from typing import Any, cast

import pytest

from plattr.settings import Settings
from stack.platform import Platform
from tests.faults import report
from tests.faults.lanes import open_lanes
from tests.faults.matrix import Matrix, Outcome, Point
from tests.faults.scenarios import Actor
from tests.faults.timing import QUICK
from worker.registry import Clients, build_activities

PROVISION = (
    Point("provision", "claim_object", "write", 4),
    Point("provision", "reconcile_database", "write", 2),
    Point("provision", "reconcile_storage", "write", 5),
    Point("provision", "reconcile_auth", "write", 2),
    Point("provision", "reconcile_redis", "after"),
    Point("provision", "reconcile_search", "before"),
    Point("provision", "reconcile_workload", "write", 3),
    Point("provision", "await_rollout", "before"),
    Point("provision", "write_status", "write", 2),
)
HALF_MADE = (
    Point("half made", "claim_object", "write", 5),
    Point("half made", "reconcile_database", "write", 2),
    Point("half made", "reconcile_storage", "write", 2),
    Point("half made", "reconcile_auth", "write", 3),
)
UPDATE = (
    Point("domain changed", "claim_object", "write", 2),
    Point("domain changed", "reconcile_auth", "after"),
    Point("domain changed", "reconcile_workload", "write", 4),
    Point("domain changed", "write_status", "after"),
)
RESYNC = (
    Point("resync", "list_fleet", "after"),
    Point("resync", "request_reconciles", "before"),
    Point("resync", "request_reconciles", "write", 3),
    Point("secret changed", "find_changed_references", "after"),
)
# Of an adoption's 19 writes the claims' come first, from 12 the database's, from 15 the bucket's, then the objects'.
ADOPTION = (
    Point("adopted", "adopt_resources", "before"),
    Point("adopted", "adopt_resources", "write", 2),
    *(Point("adopted", "adopt_resources", "write", count) for count in (12, 14, 16, 17, 18)),
    Point("adopted", "adopt_resources", "after"),
)
CLEANUP = (
    Point("cleanup", "plan_cleanup", "after"),
    Point("cleanup", "delete_workload", "write", 4),
    Point("cleanup", "delete_search", "before"),
    Point("cleanup", "delete_redis", "after"),
    Point("cleanup", "delete_auth", "write", 2),
    Point("cleanup", "delete_storage", "write", 3),
    Point("cleanup", "delete_database", "write", 4),
    Point("cleanup", "release_object", "write", 5),
)
STUCK = (
    Point("stuck cleanup", "report_stuck", "before"),
    Point("stuck cleanup", "report_stuck", "write", 2),
    Point("stuck cleanup", "report_stuck", "after"),
)
PREVIEW = (Point("preview", "read_lifetime", "after"), Point("preview", "reconcile_namespace", "after"))
WARNING = (Point("warning", "warn_of_expiry", "write", 2),)
EXPIRY = (Point("expiry", "delete_expired", "after"), Point("expiry", "delete_namespace", "write", 2))
PLACES = (*PROVISION, *HALF_MADE, *UPDATE, *RESYNC, *ADOPTION, *CLEANUP, *STUCK, *PREVIEW, *WARNING, *EXPIRY)


@pytest.fixture(scope="module")
async def outcomes(platform: Platform, actor: Actor, tmp_path_factory: pytest.TempPathFactory) -> dict[Point, Outcome]:
    """What came of the kills; each scenario's objects are the one before's."""
    async with open_lanes(platform, tmp_path_factory.mktemp("lanes"), 4, QUICK) as lanes:
        matrix = Matrix(actor, lanes, platform.environment("cli"))
        await matrix.begin()
        [parent, *items] = matrix.applications(1 + len(PROVISION))
        stuck = matrix.applications(len(STUCK))
        *previews, short_lived = matrix.previews(parent, len(PREVIEW) + len(WARNING))
        await matrix.perform("provision", [parent, *stuck])
        # While there are few: each looks at all of them again.
        await matrix.strike_fleet(RESYNC, stuck)
        await matrix.strike(zip(PREVIEW, previews, strict=True))
        half_made = matrix.applications(len(HALF_MADE))
        places = (*WARNING, *PROVISION, *HALF_MADE)
        await matrix.strike(zip(places, (short_lived, *items, *half_made), strict=True))
        await asyncio.gather(*map(actor.write_data, items))
        await matrix.strike(zip(UPDATE, items, strict=False))
        await matrix.strike(zip(ADOPTION, items, strict=False))
        await matrix.strike(zip(EXPIRY, previews, strict=True))
        lost = [await actor.lost_data(item) for item in items]
        assert not any(lost), lost
        await matrix.strike(zip((*STUCK, *CLEANUP), (*stuck, *items), strict=False))
        await matrix.perform("cleanup", [parent, *items[len(CLEANUP) :]])
        assert await matrix.findings() == []
    return {outcome.point: outcome for outcome in matrix.outcomes}


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_worker_killed_there_leaves_nothing_wrong(outcomes: dict[Point, Outcome], place: Point) -> None:
    assert outcomes[place].trouble == ""


def test_every_activity_has_a_place(platform: Platform) -> None:
    settings = Settings.from_mapping(platform.environment("worker"))
    nobody = cast("Any", None)
    clients = Clients(kube=nobody, postgres=nobody, s3=nobody, keycloak=nobody)

    names = {activity.__name__ for activity in build_activities(settings, clients, nobody)}

    assert {place.activity for place in PLACES} == names


def test_the_table_counts_what_held() -> None:
    good = Outcome(Point("provision", "claim_object", "before"), "", 2)
    bad = Outcome(Point("provision", "claim_object", "write", 2), "orphan", 4)

    table = report.table([good, bad])

    assert "| provision | `claim_object` | 1 of 1 | 0 of 1 | - | 3 (at most 4) |" in table
    assert report.troubles([good, bad]) == "provision: claim_object: before write 2: orphan"
