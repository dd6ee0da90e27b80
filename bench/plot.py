"""Draw the results of bench.provision: floor and Plattr side by side, p50 as a bar and p99 as a mark.

uv run python -m bench.plot     # writes docs/performance/provision.svg
"""

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from bench.platform import results_folder

TARGET = Path(__file__).resolve().parent.parent / "docs" / "performance" / "provision.svg"
WIDTH, LEFT, RIGHT, TOP = 760, 190, 90, 64
BAR, GAP = 16, 20
COLOURS = {"floor": "#9aa5b1", "plattr": "#2563eb"}
LABELS = {"floor": "floor", "plattr": "Plattr"}
FONT = 'font-family="system-ui, sans-serif"'


def draw(rows: list[dict[str, Any]], caption: str) -> str:
    """Return the plot as SVG text. The rows are those of bench.provision."""
    longest = max(value for row in rows for side in COLOURS for value in row[side])
    height = TOP + len(rows) * (2 * BAR + GAP) + 30
    scale = (WIDTH - LEFT - RIGHT) / longest
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(16, 24, "Milliseconds without the wait for pods: bar p50, mark p99", size=15, weight="600"),
        _text(16, 42, caption, size=11, colour="#5b6570"),
    ]
    for number, row in enumerate(rows):
        top = TOP + number * (2 * BAR + GAP)
        parts.append(_text(16, top + BAR + 4, f"{row['operation']}, {row['kind']}", size=13))
        for line, side in enumerate(COLOURS):
            parts += _bar(row, side, top + line * BAR, scale)
    parts.append(_legend(height - 14))
    return "\n".join([*parts, "</svg>\n"])


def _bar(row: dict[str, Any], side: str, top: int, scale: float) -> list[str]:
    middle, high = row[side]
    ratio = f", {middle / row['floor'][0]:.2f} x" if side == "plattr" else ""
    end, mark, centre = LEFT + middle * scale, LEFT + high * scale, top + (BAR - 2) / 2
    stroke = f'stroke="{COLOURS[side]}" stroke-width="2"'
    return [
        f'<rect x="{LEFT}" y="{top}" width="{end - LEFT:.1f}" height="{BAR - 2}" fill="{COLOURS[side]}"/>',
        f'<line x1="{end:.1f}" x2="{mark:.1f}" y1="{centre}" y2="{centre}" {stroke}/>',
        f'<line x1="{mark:.1f}" x2="{mark:.1f}" y1="{top}" y2="{top + BAR - 2}" {stroke}/>',
        _text(mark + 6, top + 11, f"{middle:.0f}{ratio}", size=11),
    ]


def _legend(baseline: int) -> str:
    parts = []
    for number, (side, colour) in enumerate(COLOURS.items()):
        x = LEFT + number * 90
        parts += [
            f'<rect x="{x}" y="{baseline - 9}" width="10" height="10" fill="{colour}"/>',
            _text(x + 15, baseline, LABELS[side], size=11),
        ]
    return "\n".join(parts)


def _text(x: float, y: float, words: str, *, size: int, weight: str = "400", colour: str = "#1f2933") -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {FONT} {style}>{escape(words)}</text>'


def main() -> None:
    kept = json.loads((results_folder() / "provision.json").read_text())
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    count = kept["results"][0]["count"]
    TARGET.write_text(draw(kept["results"], f"{kept['place']}; {count} of each, in turn"))
    print(TARGET)


if __name__ == "__main__":
    main()
