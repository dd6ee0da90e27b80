"""Every place of the matrix, in the order in which one pool of objects can go through all of it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.faults.lanes import Lane
from tests.faults.matrix import Matrix, Point, points_of
from tests.faults.scenarios import OLD_ENOUGH_SECONDS, UPDATES, Actor, Item, Scenario


async def places(actor: Actor, lanes: Sequence[Lane], parent: Item) -> dict[Scenario, list[Point]]:
    """Return all places, found by going through everything once without a fault."""
    found: dict[Scenario, list[Point]] = {}

    async def go(item: Item, scenarios: Sequence[Scenario]) -> None:
        for scenario in scenarios:
            workflow = item.workflow_of(scenario)
            seen = len(item.lane.journal(workflow))
            if scenario == "expiry":
                await asyncio.sleep(OLD_ENOUGH_SECONDS)
            if scenario == "cleanup":
                await actor.write_data(item)
            await actor.act(scenario, item)
            await actor.done(scenario, item)
            found[scenario] = points_of(scenario, item.lane.journal(workflow)[seen:])

    lasting = actor.new_application(lanes[0])
    await asyncio.gather(
        go(lasting, ("provision", *UPDATES)),
        # With the storage still enabled: an adoption and a cleanup of everything.
        go(actor.new_application(lanes[1]), ("provision", "adopted", "cleanup")),
        go(actor.new_preview(lanes[2], parent), ("preview", "expiry")),
        go(actor.new_preview(lanes[3], parent), ("warning",)),
    )
    # With a second object beside the parent, so that there is a place between two requests; nothing else goes on.
    await go(lasting, ("resync", "secret changed", "stuck cleanup"))
    # The rest of that short life is what `preview` and `expiry` are about, of a cleanup `cleanup` is.
    kept: tuple[tuple[Scenario, str], ...] = (("warning", "warn_of_expiry"), ("stuck cleanup", "report_stuck"))
    for scenario, activity in kept:
        found[scenario] = [point for point in found[scenario] if point.activity == activity]
    return found


async def run(matrix: Matrix, actor: Actor, lanes: Sequence[Lane], tell: Callable[[str], None]) -> None:
    """Kill the worker at every place: while objects are made, changed four times, and removed; then previews."""
    [parent] = matrix.applications(1)
    await matrix.perform("provision", [parent])
    found = await places(actor, lanes, parent)
    tell(f"{sum(map(len, found.values()))} places")
    await matrix.begin()

    stuck = matrix.applications(len(found["stuck cleanup"]))
    await matrix.perform("provision", stuck)
    # While there are few objects: each resync looks at all of them again.
    await matrix.strike_fleet([*found["resync"], *found["secret changed"]], stuck)
    tell("resync is done")
    await matrix.strike(zip(found["stuck cleanup"], stuck, strict=True))
    tell("stuck cleanup is done")
    items = matrix.applications(max(len(found[scenario]) for scenario in ("provision", "adopted", *UPDATES, "cleanup")))
    await matrix.strike(zip(found["provision"], items, strict=False))
    tell("provision is done")
    half_made = [replace(point, scenario="half made") for point in found["provision"]]
    await matrix.strike(zip(half_made, matrix.applications(len(half_made)), strict=True))
    tell("half made is done")
    await matrix.perform("provision", items[len(found["provision"]) :])
    await asyncio.gather(*map(actor.write_data, items))
    # Before a storage is disabled.
    await matrix.strike(zip(found["adopted"], items, strict=False))
    tell("adopted is done")
    for scenario in UPDATES:
        await matrix.strike(zip(found[scenario], items, strict=False))
        tell(f"{scenario} is done")
    for item in items:
        lost = await actor.lost_data(item)
        assert not lost, f"{item.name} lost {lost}"
    # Those whose storage was disabled included: what was made before goes as well.
    await matrix.strike(zip(found["cleanup"], reversed(items), strict=False))
    await matrix.perform("cleanup", items[: len(items) - len(found["cleanup"])])
    tell("cleanup is done")

    previews = matrix.previews(parent, max(len(found["preview"]), len(found["expiry"])))
    await matrix.strike(zip(found["preview"], previews, strict=False))
    tell("preview is done")
    await matrix.perform("preview", previews[len(found["preview"]) :])
    await matrix.strike(zip(found["warning"], matrix.previews(parent, len(found["warning"])), strict=True))
    await asyncio.sleep(OLD_ENOUGH_SECONDS)
    await matrix.strike(zip(found["expiry"], previews, strict=False))
    await matrix.perform("cleanup", previews[len(found["expiry"]) :])
    await matrix.perform("cleanup", [parent])
    tell("expiry is done")
    assert await matrix.findings() == []
