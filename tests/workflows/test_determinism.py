"""No module of workflows/ reaches for what differs between a run and its replay; see docs/decisions/0011."""

import ast
from pathlib import Path

import pytest

MODULES = sorted(Path(__file__).parents[2].glob("workflows/*.py"))
FORBIDDEN_MODULES = {"os", "random", "secrets", "socket", "subprocess", "threading", "time", "uuid"}
# workflow.now() and workflow.sleep() are the run's own clock.
FORBIDDEN_CALLS = {"now", "utcnow", "today", "monotonic", "getenv", "open"}


def violations(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            found.append(node.module or "")
        elif isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute) and function.attr in FORBIDDEN_CALLS:
                if not (isinstance(function.value, ast.Name) and function.value.id == "workflow"):
                    found.append(ast.unparse(function))
            elif isinstance(function, ast.Name) and function.id in FORBIDDEN_CALLS:
                found.append(function.id)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_workflow_module_is_deterministic(path: Path) -> None:
    assert violations(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    ["import time", "from random import uniform", "datetime.now(UTC)", "import os.path", "open('x')"],
)
def test_the_check_sees_what_it_is_for(source: str) -> None:
    assert violations(source) != []
