"""What a command imports decides how long a person waits for it; counted, because seconds depend on the machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer import rich_utils
from typer.main import get_command

from cli.main import Plattr, app
from stack.platform import Platform

# Each of them takes a tenth of a second or more.
HEAVY = {
    "aiohttp",
    "boto3",
    "botocore",
    "httpx",
    "keycloak",
    "kubernetes",
    "opentelemetry",
    "psycopg",
    "psycopg_pool",
    "pydantic",
    "pydantic_settings",
    "redis",
    "requests",
    "rich.markdown",
    "rich.traceback",
    "temporalio",
    "yaml",
    # Ours.
    "activities",
    "clients",
    "stack",
    "workflows",
}
# The shell's environment must not name a cluster or turn on traces.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("KUBECONFIG", "OTEL_", "TEMPORAL_"))
}

IMPORTS = """
import json, sys
from cli.main import app
try:
    app(sys.argv[1:], prog_name="plattr")
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]), file=sys.stderr)
"""


def imports_of(*arguments: str, **environment: str) -> tuple[int, set[str]]:
    """Run a command in a Python of its own; return its exit code and the heavy modules that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *arguments],
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, HEAVY.intersection(modules)


def test_help_imports_no_library_but_those_that_print_it(tmp_path: Path) -> None:
    assert imports_of("--help", PLATTR_STATE=str(tmp_path)) == (0, set())


def test_a_mistyped_command_imports_none_of_the_commands(tmp_path: Path) -> None:
    code, imported = imports_of("stauts", PLATTR_STATE=str(tmp_path))

    assert code == 2
    # Typer prints the error by its own module, which imports more.
    assert imported.isdisjoint({"clients", "kubernetes", "stack", "temporalio"})


# What reads and writes objects, and how the claims are kept.
KUBERNETES = {"activities", "aiohttp", "clients", "kubernetes", "pydantic", "yaml"}
COMMANDS_WITHOUT_TEMPORAL = [
    ("status",),
    ("status", "no-such-application"),
    ("pause", "no-such-application"),
    ("where", "no-such-application"),
    ("preview", "list"),
]


@pytest.mark.parametrize("arguments", COMMANDS_WITHOUT_TEMPORAL, ids=" ".join)
def test_a_command_that_asks_kubernetes_imports_nothing_for_another_backend(
    arguments: tuple[str, ...], platform: Platform
) -> None:
    code, imported = imports_of(*arguments, KUBECONFIG=str(platform.endpoints.kubeconfig_admin))

    assert code in (0, 1)
    assert imported <= KUBERNETES


def test_the_local_platform_is_found_without_importing_its_code(platform: Platform) -> None:
    code, imported = imports_of("status", "no-such-application", PLATTR_STATE=str(platform.folders.state))

    assert code == 1
    assert imported <= KUBERNETES


def test_every_line_of_the_help_is_its_commands_own() -> None:
    for lazy in Plattr.COMMANDS:
        command = lazy.load()

        assert command.name == lazy.name
        assert (command.help or "").split("\n\n")[0] == lazy.help


def test_the_help_looks_as_typer_prints_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"COLUMNS": "90", "FORCE_COLOR": "1", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rich_utils, "FORCE_TERMINAL", True)
    group = get_command(app)
    assert isinstance(group, Plattr)
    context = group.make_context("plattr", ["status"])

    group.format_help(context, None)
    ours = capsys.readouterr().out
    rich_utils.rich_format_help(obj=group, ctx=context, markup_mode="rich")

    assert ours == capsys.readouterr().out


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path) -> None:
    # As if it were not installed.
    (tmp_path / "psutil.py").write_text("raise ModuleNotFoundError(\"No module named 'psutil'\", name='psutil')")

    done = subprocess.run(
        [sys.executable, "-c", "from cli.main import app; app()", "dev"],
        env=ENVIRONMENT | {"PYTHONPATH": str(tmp_path), "PLATTR_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "cannot run plattr dev: Python has no module 'psutil'; install plattr[dev], or run make setup in a checkout\n"
    )
