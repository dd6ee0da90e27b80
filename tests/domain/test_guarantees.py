"""docs/guarantees.md names a test for every trap, and each of them exists; so does what docs/traps.md points to."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "guarantees.md"
TRAPS_PAGE = PAGE.with_name("traps.md")

TRAPS = {
    f"{letter}{number}"
    for letter, count in {"T": 16, "K": 11, "P": 7, "S": 7, "C": 4, "X": 9, "F": 5}.items()
    for number in range(1, count + 1)
}
ROW = re.compile(r"^\| ([A-Z]\d+) \| (.+) \| (.+) \|$", re.MULTILINE)
POINTED_AT = re.compile(r"`([\w.-]+/[\w./-]*)(?:::(\w+))?`")
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def functions_of(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def attacks_of(path: Path) -> set[str]:
    """Return the tests that `make attack` runs: those with the mark, or all of a module that has it."""
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark" and has_attack(node.value):
            return functions_of(path)
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(map(has_attack, node.decorator_list))
    }


def has_attack(expression: ast.expr) -> bool:
    """Tell whether a decorator or a module's marks are, or hold, the mark itself."""
    marks = expression.elts if isinstance(expression, ast.List | ast.Tuple) else [expression]
    return any(ast.unparse(mark) == "pytest.mark.attack" for mark in marks)


def test_every_trap_has_one_row() -> None:
    rows = [trap for trap, _, _ in ROW.findall(PAGE.read_text())]

    assert sorted(rows) == sorted(TRAPS)


@pytest.mark.parametrize("trap", sorted(TRAPS))
def test_a_trap_is_held_by_a_test_or_does_not_apply(trap: str) -> None:
    [(guarantee, proof)] = [row[1:] for row in ROW.findall(PAGE.read_text()) if row[0] == trap]

    assert bool(NAMED.search(proof)) != guarantee.startswith("does not apply")


def test_every_named_test_exists() -> None:
    named = NAMED.findall(PAGE.read_text())

    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (TESTS / file).is_file() or test not in functions_of(TESTS / file)
    ]

    assert named
    assert missing == []


def test_every_test_of_what_a_tenant_cannot_do_is_an_attack() -> None:
    [section] = re.findall(r"^## What a tenant cannot do$(.+?)^## ", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    named = set(NAMED.findall(section))

    unmarked = sorted(f"{file}::{test}" for file, test in named if test not in attacks_of(TESTS / file))

    assert named
    assert unmarked == []


def test_what_the_page_of_traps_points_to_exists() -> None:
    # `/api/rest` and the like begin with a slash; an annotation has a domain before its own.
    pointed_at = [
        (path, function)
        for path, function in POINTED_AT.findall(TRAPS_PAGE.read_text())
        if ".io/" not in path and not path.endswith("rest")
    ]

    missing = [
        f"{path}::{function}"
        for path, function in pointed_at
        for found in [next((root / path for root in (TESTS.parent, TESTS) if (root / path).exists()), None)]
        if found is None or (function and function not in functions_of(found))
    ]

    assert pointed_at
    assert missing == []
