"""docs/decisions/index.md lists every decision, as its page has it."""

import re
from pathlib import Path

DECISIONS = Path(__file__).parents[2] / "docs" / "decisions"
ROW = re.compile(r"^\| (\d+) \| \[(.+)\]\((.+)\) \| (\w+) \| (.+) \|$", re.MULTILINE)
HEAD = re.compile(r"# (\d+)\. (.+)\n\nStatus: (\w+)")


def test_index_lists_every_decision_with_its_title_and_status() -> None:
    heads = [(path.name, HEAD.match(path.read_text())) for path in sorted(DECISIONS.glob("[0-9]*.md"))]
    expected = [(head[1], head[2], name, head[3]) for name, head in heads if head is not None]

    listed = [row[:4] for row in ROW.findall((DECISIONS / "index.md").read_text())]

    assert len(expected) == len(heads)
    assert listed == expected


def test_number_of_a_decision_is_that_of_its_file() -> None:
    for path in DECISIONS.glob("[0-9]*.md"):
        assert path.read_text().startswith(f"# {int(path.name[:4])}. "), path.name
