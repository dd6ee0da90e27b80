"""A class name means one thing: who searches for it, or meets it in a trace, needs no file name beside it."""

import ast
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [package for package in PYPROJECT["tool"]["mypy"]["packages"] if package != "tests"]


def test_no_two_classes_share_a_name() -> None:
    places = defaultdict(list)
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")

    assert len(places) > 250
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
