"""What a run found, as the tables of docs/guarantees-matrix.md."""

import datetime as dt
import os
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median

import psutil

from tests.faults.matrix import Outcome
from tests.faults.mutation import Trial
from tests.faults.zombies import Evidence

RESULTS = Path(__file__).parents[2] / "docs" / "guarantees-matrix.md"


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the matrix in Markdown: a row an activity, with how many places held of how many there are."""
    rows: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        rows.setdefault((outcome.point.scenario, outcome.point.activity), []).append(outcome)
    lines = [
        "| scenario | activity | before it | between its writes | after it, before its result | at rest after, s |",
        "|---|---|---|---|---|---|",
    ]
    for (scenario, activity), own in rows.items():
        cells = [_cell([o for o in own if o.point.place == place]) for place in ("before", "write", "after")]
        seconds = [outcome.seconds for outcome in own]
        lines.append(
            f"| {scenario} | `{activity}` | {' | '.join(cells)} | {median(seconds):.0f} (at most {max(seconds):.0f}) |"
        )
    return "\n".join(lines)


def zombie_table(evidence: Iterable[Evidence]) -> str:
    """Return what the frozen workers did when they woke, in Markdown."""
    lines = [
        "| activity | frozen before write | the object meanwhile | frozen for, s | writes afterwards | its attempt |",
        "|---|---|---|---|---|---|",
    ]
    for each in evidence:
        zombie = each.zombie
        lines.append(
            f"| `{zombie.activity}` | {zombie.write} | {zombie.meanwhile} | {each.seconds_frozen:.0f} |"
            f" {len(each.writes)} | {' '.join(each.ending)} |"
        )
    return "\n".join(lines)


def mutant_table(found: Mapping[Trial, str]) -> str:
    """Return what gave each broken worker away, in Markdown; names, which are random, are left out."""
    lines = ["| the worker | killed or frozen | what was found |", "|---|---|---|"]
    for trial, text in found.items():
        first, *more = re.sub(r"\bf[0-9a-f]{7}\b", "*", text).split("; ")
        told = f"{first}, and {len(more)} more" if more else first
        lines.append(f"| {trial.mutant} | {trial.place} | {told or 'nothing'} |")
    return "\n".join(lines)


def troubles(outcomes: Iterable[Outcome]) -> str:
    """Return what went wrong, a line each."""
    return "\n".join(f"{outcome.point}: {outcome.trouble}" for outcome in outcomes if outcome.trouble)


def when_and_where() -> str:
    """Return the date and the machine."""
    memory = psutil.virtual_memory().total / 2**30
    today = dt.datetime.now(dt.UTC).date().isoformat()
    return (
        f"{today}, {os.cpu_count()} cores of {platform.machine()}, {memory:.0f} GiB, {platform.system()},"
        f" Python {platform.python_version()}"
    )


def write_section(name: str, text: str) -> None:
    """Put a text between the markers of its name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = RESULTS.read_text()
    head, _, rest = page.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"{RESULTS} has no markers for {name!r}")
    RESULTS.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def _cell(outcomes: list[Outcome]) -> str:
    if not outcomes:
        return "-"
    good = sum(not outcome.trouble for outcome in outcomes)
    return f"{good} of {len(outcomes)}"
