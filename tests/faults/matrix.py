"""The crash matrix: one object for each place, a kill there, and an independent audit of what came of it."""

import asyncio
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from temporalio.client import WorkflowFailureError

from cli.auditing.auditor import audit
from cli.auditing.inventory import Finding
from tests.faults.lanes import Lane
from tests.faults.scenarios import ENDS, Actor, Item, Scenario
from tests.faults.worker import Entry, Fault


@dataclass(frozen=True)
class Point:
    """A place at which the worker is killed."""

    scenario: Scenario
    activity: str
    place: Literal["before", "write", "after"]
    count: int = 1

    def __str__(self) -> str:
        where = f"before write {self.count}" if self.place == "write" else self.place
        return f"{self.scenario}: {self.activity}: {where}"


@dataclass(frozen=True)
class Outcome:
    """What came of one kill; `trouble` is empty when nothing did."""

    point: Point
    trouble: str
    seconds: float
    """From the kill until the object was as it should be."""


class Matrix:
    """Runs points on objects, in every lane at once."""

    def __init__(self, actor: Actor, lanes: Sequence[Lane], settings: Mapping[str, str]) -> None:
        self._actor = actor
        self._lanes = lanes
        self._settings = settings
        self._baseline: frozenset[Finding] = frozenset()
        self.outcomes: list[Outcome] = []

    async def begin(self) -> None:
        """Remember what was wrong before."""
        self._baseline = frozenset(await self.findings())

    async def findings(self) -> list[Finding]:
        """Return what the auditor finds now that it did not find at the beginning."""
        report = await asyncio.to_thread(audit, self._settings)
        return [finding for finding in report.findings if finding not in self._baseline]

    def applications(self, count: int) -> list[Item]:
        """Return new objects, spread over the lanes; nothing exists of them yet."""
        return [self._actor.new_application(self._lanes[number % len(self._lanes)]) for number in range(count)]

    def previews(self, parent: Item, count: int) -> list[Item]:
        return [self._actor.new_preview(self._lanes[number % len(self._lanes)], parent) for number in range(count)]

    async def perform(self, scenario: Scenario, items: Iterable[Item]) -> None:
        """Do the same to objects without any fault."""

        async def one(item: Item) -> None:
            await self._actor.act(scenario, item)
            await self._actor.done(scenario, item)

        await asyncio.gather(*(one(item) for item in items))

    async def strike(self, pairs: Iterable[tuple[Point, Item]]) -> None:
        """Kill at each point, one after the other in each lane; then audit, and keep the outcomes."""
        order = list(pairs)
        queues: dict[Lane, list[tuple[Point, Item]]] = {lane: [] for lane in self._lanes}
        for point, item in order:
            queues[item.lane].append((point, item))

        async def work(lane: Lane) -> list[tuple[Item, Outcome]]:
            return [(item, await self._strike(point, item)) for point, item in queues[lane]]

        struck = [pair for done in await asyncio.gather(*map(work, self._lanes)) for pair in done]
        places = [point for point, _ in order]
        struck.sort(key=lambda pair: places.index(pair[1].point))
        findings = await self.findings()
        for item, outcome in struck:
            own = [finding for finding in findings if concerns(finding, item)]
            findings = [finding for finding in findings if finding not in own]
            trouble = "; ".join(text for text in (outcome.trouble, told(own)) if text)
            self.outcomes.append(Outcome(outcome.point, trouble, outcome.seconds))
        assert not findings, f"of no object that was struck: {findings}"

    async def strike_fleet(self, points: Iterable[Point], items: Iterable[Item]) -> None:
        """Kill at each point of a resync of the whole fleet, while nothing else goes on.

        Always on the object whose turn in it comes last: wherever the worker dies, there is something left to do. So
        they come one after the other, in one lane: another resync would mend what this one leaves.
        """
        last = max(items, key=lambda item: item.reference.key)
        await self.strike((point, last) for point in points)

    async def _strike(self, point: Point, item: Item) -> Outcome:
        actor, lane, workflow = self._actor, item.lane, item.workflow_of(point.scenario)
        lane.arm(Fault(activity=point.activity, point=point.place, count=point.count, workflow=workflow))
        password = await actor.password(item)
        kills = len(lane.exits)
        try:
            await actor.act(point.scenario, item)
            # 120 s: a preview is warned of its end after 54 s at the earliest.
            await lane.fired(120)
        except TimeoutError:
            lane.disarm()
            return Outcome(point, "the place was never reached", 0)
        began = time.monotonic()
        # A first password may have been made just before the kill; then it must be the one that stays.
        password = password or await actor.password(item)
        if point.scenario == "half made":
            await actor.act("cleanup", item)
        try:
            await actor.done(point.scenario, item)
        except (TimeoutError, AssertionError, WorkflowFailureError) as error:
            return Outcome(point, f"it did not come to what it should be: {error}", time.monotonic() - began)
        seconds = time.monotonic() - began
        ends = lane.exits[kills:]
        trouble = "" if ends == [-signal.SIGKILL] else f"the worker ended with {ends}"
        if point.scenario not in ENDS and password is not None and await actor.password(item) != password:
            trouble = "the password is another one"
        return Outcome(point, trouble, seconds)


def told(findings: Iterable[Finding]) -> str:
    """Return what an auditor found, in a line."""
    return "; ".join(f"{finding.problem} {finding.thing} {finding.detail}".strip() for finding in findings)


def writes_of(journal: Sequence[Entry]) -> dict[str, int]:
    """Return each activity that ran, in order, with the most writes that one attempt of it made."""
    writes: dict[str, int] = {}
    current: dict[tuple[str, int], int] = {}
    for entry in journal:
        key = (entry.activity, entry.attempt)
        if entry.event == "start":
            current[key] = 0
            writes.setdefault(entry.activity, 0)
        elif entry.event == "write":
            current[key] += 1
            writes[entry.activity] = max(writes[entry.activity], current[key])
    return writes


def points_of(scenario: Scenario, journal: Sequence[Entry]) -> list[Point]:
    """Return every place that a run without faults came by: around each activity, and between any two writes."""
    points = []
    for activity, count in writes_of(journal).items():
        points.append(Point(scenario, activity, "before"))
        points += [Point(scenario, activity, "write", number) for number in range(2, count + 1)]
        points.append(Point(scenario, activity, "after"))
    return points


def concerns(finding: Finding, item: Item) -> bool:
    """Tell whether a finding is about an object, or about something that bears its name and no owner's."""
    sql_name = item.name.replace("-pr-", "-pr").replace("-", "_")
    names = {item.name, item.name.replace("-pr-", "-pr"), sql_name}
    if finding.owner:
        return finding.owner == item.reference.key
    return any(name in finding.thing.name for name in names)
