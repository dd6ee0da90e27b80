"""CHANGELOG.md: one change, one line. Its merges keep both sides, so an old text can come back unseen."""

import re
from collections import Counter
from pathlib import Path

PAGE = Path(__file__).parents[2] / "CHANGELOG.md"
REMEDY = "take CHANGELOG.md as it is on main (git checkout main -- CHANGELOG.md), and add your one line again"


def test_every_change_has_one_line_of_its_own() -> None:
    lines = PAGE.read_text().splitlines()

    changes = [line for line in lines if line.startswith("- ")]
    continued = [line for line in lines if re.match(r" +\S", line)]
    doubled = [line for line, count in Counter(changes).items() if count > 1]

    assert changes
    assert (continued, doubled) == ([], []), REMEDY
