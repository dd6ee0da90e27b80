"""Times, durations and conditions in the words of the terminal."""

from datetime import UTC, datetime, timedelta

from cli.terminal import plain
from clients.resources import Json
from plattr.status import SUMMARY

# What is True of an object that is not well, or not yet.
ABNORMAL = {"Reconciling": "[yellow]…[/]", "Stalled": "[red]✗[/]"}
MARKS = {"True": "[green]✓[/]", "False": "[red]✗[/]", "Unknown": "[yellow]…[/]"}
COLOURS = {
    "Running": "green",
    "Failed": "red",
    "Provisioning": "cyan",
    "Terminating": "yellow",
    "Pending": "dim",
    "paused": "yellow",
    "vanished": "red",
}


def duration(span: timedelta) -> str:
    """Return a length of time as people say it: 0.42 s, 1.4 s, 12 s, 3 min, 5 h, 2 d."""
    seconds = abs(span.total_seconds())
    if seconds < 10:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def clock(moment: datetime, now: datetime | None = None) -> str:
    """Return a moment in local time, with how far off it is: 14:03:22 (in 12 s)."""
    off = moment - (now or datetime.now(UTC))
    shown = moment.astimezone()
    is_near = abs(off) < timedelta(hours=12)
    text = shown.strftime("%H:%M:%S" if is_near else "%Y-%m-%d %H:%M")
    if abs(off) < timedelta(seconds=1):
        return f"{text} (now)"
    return f"{text} (in {duration(off)})" if off > timedelta(0) else f"{text} ({duration(off)} ago)"


def since(text: str | None) -> str:
    """Return how long ago a time of the API server was."""
    return f"{duration(datetime.now(UTC) - datetime.fromisoformat(text))} ago" if text else ""


def coloured(phase: str) -> str:
    """Return a phase in its colour, as Rich markup."""
    return f"[{COLOURS.get(phase, 'default')}]{plain(phase)}[/]"


def mark(condition: Json) -> str:
    """Return a condition's status as a mark; of two of them True is no good news."""
    if condition["status"] == "True":
        return ABNORMAL.get(condition["type"], MARKS["True"])
    return MARKS.get(condition["status"], "?")


def brief_conditions(conditions: list[Json]) -> str:
    """Return all conditions in one cell: a mark and a word each, and the reason of those that are not True."""
    parts = []
    for condition in conditions:
        # The phase stands beside them; the conditions that sum up say it once more.
        if condition["type"] in SUMMARY:
            continue
        name = plain(condition["type"]).removesuffix("Ready")
        reason = "" if condition["status"] == "True" else f" {plain(condition.get('reason', ''))}"
        parts.append(f"{mark(condition)} {name}{reason}")
    if not parts:
        # Refused before any step was known.
        parts = [f"{mark(each)} {plain(each['type'])} {plain(each.get('reason', ''))}" for each in failures(conditions)]
    return "  ".join(parts)


def failures(conditions: list[Json]) -> list[Json]:
    """Return the conditions that are False and decide the phase; Ready only where it is not another one's echo."""
    failed = [condition for condition in conditions if condition["status"] == "False"]
    return [condition for condition in failed if condition["type"] not in SUMMARY] or failed
