"""The dashboard's panels as one SVG, laid out by their gridPos; drawn here, for Grafana is not everywhere."""

import datetime as dt
import math
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from tests.deploy.helm import Json

# Grafana's grid has 24 columns; its rows are 30 px and 8 px between.
COLUMN, ROW, GAP = 60, 38, 8
TITLE, AXIS, MARGIN = 30, 54, 12
LINE = 17
# Of 11 px sans-serif, with the mark before it.
LETTER, MARK = 6.8, 26

COLOURS = ("#3f7d3a", "#b58900", "#2a6fb0", "#c4561c", "#b3263a", "#0f8b8d", "#7b3fa0", "#5c6670", "#a0527a", "#70812b")
THRESHOLDS = {"green": "#3f7d3a", "red": "#b3263a", "orange": "#c4561c", None: "#2a6fb0"}
INK, FAINT, BORDER = "#24292e", "#6a737d", "#d8dde2"


@dataclass(frozen=True)
class Series:
    """One line of a panel; a moment without a value has no point."""

    name: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Box:
    """Where a panel stands, in pixels."""

    x: float
    y: float
    width: float
    height: float


def draw(panels: list[Json], found: dict[int, list[Series]], begin: float, end: float) -> str:
    """Return the whole picture."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) * ROW + GAP
    words = "drawn from the chart's dashboard and its queries by tests/deploy/prove_dashboard.sh, not by Grafana"
    size = f'viewBox="0 0 {24 * COLUMN + GAP} {height}"'
    font = 'font-family="Helvetica, Arial, sans-serif" font-size="11"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>',
        f"<title>{escape(words)}</title>",
        '<rect width="100%" height="100%" fill="#f4f5f7"/>',
    ]
    for panel in panels:
        grid = panel["gridPos"]
        box = Box(grid["x"] * COLUMN + GAP, grid["y"] * ROW + GAP, grid["w"] * COLUMN - GAP, grid["h"] * ROW - GAP)
        if panel["type"] == "row":
            parts.append(_text(box.x, box.y + 20, panel["title"], size=14, weight="bold"))
            continue
        place = f'x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}"'
        parts.append(f'<rect {place} rx="3" fill="#fff" stroke="{BORDER}"/>')
        parts.append(_text(box.x + MARGIN, box.y + 19, panel["title"], size=12, weight="bold"))
        lines = [series for series in found.get(panel["id"], []) if series.points]
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] == "stat":
            parts.append(_stat(box, lines, defaults))
        elif lines:
            parts += _graph(box, lines, defaults["unit"], begin, end)
        else:
            parts.append(_text(box.x + box.width / 2, box.y + box.height / 2, "no data", anchor="middle", fill=FAINT))
    return "\n".join([*parts, "</svg>", ""])


def _stat(box: Box, lines: list[Series], defaults: Json) -> str:
    value = lines[0].points[-1][1] if lines else 0.0
    steps = defaults.get("thresholds", {}).get("steps", [])
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    colour = THRESHOLDS[reached[-1] if reached else None]
    return _text(
        box.x + box.width / 2, box.y + box.height / 2 + 28, f"{value:g}", size=44, anchor="middle", fill=colour
    )


def _graph(box: Box, lines: list[Series], unit: str, begin: float, end: float) -> list[str]:
    legend = _legend(box, [series.name for series in lines])
    left, right = box.x + AXIS, box.x + box.width - MARGIN
    top, bottom = box.y + TITLE + 4, box.y + box.height - len(legend) * LINE - 26
    highest = max((value for series in lines for _, value in series.points), default=0.0)
    step = _round(highest / 4, unit)
    ceiling = step * max(1, math.ceil(highest / step - 1e-9))

    def across(at: float) -> float:
        return left + (at - begin) / (end - begin) * (right - left)

    def up(value: float) -> float:
        return bottom - value / ceiling * (bottom - top)

    parts = []
    for number in range(round(ceiling / step) + 1):
        y = up(number * step)
        parts.append(f'<path d="M{left:.1f} {y:.1f}H{right:.1f}" stroke="{BORDER}" stroke-width=".6"/>')
        parts.append(_text(left - 6, y + 4, _figure(number * step, unit), anchor="end", fill=FAINT))
    minute = math.ceil(begin / 60) * 60
    while minute <= end:
        clock = dt.datetime.fromtimestamp(minute, dt.UTC).strftime("%H:%M")
        parts.append(_text(across(minute), bottom + 15, clock, anchor="middle", fill=FAINT))
        minute += 60
    for number, series in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        # The colours come round; the second time they are dashed.
        style = f'stroke="{colour}" stroke-width="1.5" stroke-linecap="round"'
        if number >= len(COLOURS):
            style += ' stroke-dasharray="3 3"'
        path = _path([(across(at), up(value), at) for at, value in series.points])
        parts.append(f'<path d="{path}" fill="none" {style}/>')
    number = 0
    for row, names in enumerate(legend):
        x, y = box.x + MARGIN, box.y + box.height - (len(legend) - row) * LINE + 6
        for name in names:
            parts.append(
                f'<path d="M{x:.1f} {y - 4:.1f}h14" stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="3"/>'
            )
            parts.append(_text(x + 18, y, name))
            x += len(name) * LETTER + MARK
            number += 1
    return parts


def _path(points: list[tuple[float, float, float]]) -> str:
    """Join neighbours; where a moment is missing, start again. A point that stands alone is drawn as a dot."""
    path, before = "", -math.inf
    steps = [later[2] - earlier[2] for earlier, later in pairwise(points)]
    step = min(steps, default=1.0)
    for x, y, at in points:
        path += f"{'L' if at - before <= 1.5 * step else 'M'}{x:.1f} {y:.1f}"
        # Of no length, but with a round cap.
        path += "h0" if at - before > 1.5 * step else ""
        before = at
    return path


def _legend(box: Box, names: list[str]) -> list[list[str]]:
    rows: list[list[str]] = [[]]
    room = box.width - 2 * MARGIN
    for name in names:
        width = len(name) * LETTER + MARK
        if rows[-1] and width > room:
            rows.append([])
            room = box.width - 2 * MARGIN
        rows[-1].append(name)
        room -= width
    return rows


def _round(raw: float, unit: str) -> float:
    """Return the next of 1, 2, 5, 10, ... (of bytes: 1, 2, 4, ...) that is not less."""
    if raw <= 0:
        return 1.0
    if unit == "bytes":
        return 2.0 ** math.ceil(math.log2(raw))
    ten = 10.0 ** math.floor(math.log10(raw))
    return next(ten * factor for factor in (1, 2, 5, 10) if ten * factor >= raw * (1 - 1e-9))


def _figure(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 2**20:g} MiB"
    if unit == "s" and 0 < value < 1:
        return f"{value * 1000:g} ms"
    return f"{value:g}" + {"s": " s", "cps": " /s"}.get(unit, "")


def _text(x: float, y: float, text: str, *, size: int = 11, weight: str = "", anchor: str = "", fill: str = INK) -> str:
    extra = (f' font-weight="{weight}"' if weight else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}"{extra}>{escape(text)}</text>'
