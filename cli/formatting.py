"""Format times, durations and conditions for the terminal."""

from datetime import UTC, datetime, timedelta

from cli.terminal import plain
from clients.resources import Json
from plattr.status import SUMMARY

# Conditions that are True while an object is not well, or not yet ready.
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
    """Return a duration as people write it: 0.42 s, 1.4 s, 12 s, 3 min, 5 h, 2 d."""
    seconds = abs(span.total_seconds())
    if seconds < 10:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def clock(moment: datetime, now: datetime | None = None) -> str:
    """Return a moment in local time and its distance from now: 14:03:22 (in 12 s)."""
    off = moment - (now or datetime.now(UTC))
    shown = moment.astimezone()
    is_near = abs(off) < timedelta(hours=12)
    text = shown.strftime("%H:%M:%S" if is_near else "%Y-%m-%d %H:%M")
    if abs(off) < timedelta(seconds=1):
        return f"{text} (now)"
    return f"{text} (in {duration(off)})" if off > timedelta(0) else f"{text} ({duration(off)} ago)"


def since(text: str | None) -> str:
    """Return how long ago a timestamp of the API server was."""
    return f"{duration(datetime.now(UTC) - datetime.fromisoformat(text))} ago" if text else ""


def coloured(phase: str) -> str:
    """Return a phase in its colour, as Rich markup."""
    return f"[{COLOURS.get(phase, 'default')}]{plain(phase)}[/]"


def mark(condition: Json) -> str:
    """Return a condition's status as a mark. For the conditions in `ABNORMAL`, True is bad."""
    if condition["status"] == "True":
        return ABNORMAL.get(condition["type"], MARKS["True"])
    return MARKS.get(condition["status"], "?")


def brief_conditions(conditions: list[Json]) -> str:
    """Return all conditions in one cell: a mark and a word each, and a reason for each one that is not True."""
    parts = []
    for condition in conditions:
        # The phase is shown beside them, so the summary conditions would only repeat it.
        if condition["type"] in SUMMARY:
            continue
        name = plain(condition["type"]).removesuffix("Ready")
        reason = "" if condition["status"] == "True" else f" {plain(condition.get('reason', ''))}"
        parts.append(f"{mark(condition)} {name}{reason}")
    if not parts:
        # The object was refused before any step was known.
        parts = [f"{mark(each)} {plain(each['type'])} {plain(each.get('reason', ''))}" for each in failures(conditions)]
    return "  ".join(parts)


def failures(conditions: list[Json]) -> list[Json]:
    """Return the False conditions that decide the phase; the summary ones only if no other is False."""
    failed = [condition for condition in conditions if condition["status"] == "False"]
    return [condition for condition in failed if condition["type"] not in SUMMARY] or failed
