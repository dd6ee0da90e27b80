import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.infra import app
from stack.platform import Platform

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(state: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.setenv("PLATTR_STATE", str(state))

    def run(*arguments: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(app, arguments, input=answer)

    return run


def test_status_of_a_platform_that_never_ran_fails_and_says_so(invoke: Invoke) -> None:
    result = invoke("status")

    assert result.exit_code == 1
    assert "never started" in result.stdout


def test_status_shows_each_process_with_its_log(invoke: Invoke, state: Path) -> None:
    platform = Platform(state)
    platform.start(services=["s3"])

    result = invoke("status")
    stopped = invoke("stop")

    assert result.exit_code == 0
    row = next(line.split() for line in result.stdout.splitlines() if line.strip().startswith("s3"))
    assert row[1:3] == ["running", platform.endpoints.s3_url]
    assert row[-1] == "logs/s3.log"
    assert stopped.exit_code == 0
    assert not platform.is_running


def test_unknown_service_is_one_line_and_exit_code_1(invoke: Invoke) -> None:
    result = invoke("logs", "mysql")

    assert result.exit_code == 1
    assert result.stderr.startswith("cannot find service 'mysql'")
    assert result.stderr.count("\n") == 1


def test_logs_of_a_service_that_never_ran_are_refused(invoke: Invoke) -> None:
    result = invoke("logs", "s3")

    assert result.exit_code == 1
    assert "it never ran" in result.stderr


def test_logs_end_with_the_last_lines(invoke: Invoke, state: Path) -> None:
    folders = Platform(state).folders
    folders.create()
    folders.log("s3").write_text("one\ntwo\nthree\n")

    result = invoke("logs", "s3", "-n", "2")

    assert result.stdout == "two\nthree\n"


def test_environment_can_be_evaluated_by_a_shell(invoke: Invoke, state: Path) -> None:
    result = invoke("environment", "worker")

    settings = Platform(state).environment("worker")
    assert f"export DB_ADMIN_URL={settings['DB_ADMIN_URL']}" in result.stdout.splitlines()
    assert result.stdout.splitlines()[-1] == f'export PATH={state}/bin:{Path(sys.executable).parent}:"$PATH"'


def test_destroy_asks_and_keeps_everything_on_no(invoke: Invoke, state: Path) -> None:
    _ = Platform(state).endpoints

    result = invoke("destroy", answer="n\n")

    assert result.exit_code == 1
    assert (state / "run" / "settings.json").exists()


def test_destroy_refuses_a_folder_that_is_no_platform(invoke: Invoke, state: Path) -> None:
    (state / "thesis.txt").write_text("ten years of work")

    result = invoke("destroy", "--yes")

    assert result.exit_code == 1
    assert "check PLATTR_STATE" in result.stderr
    assert (state / "thesis.txt").exists()


def test_destroy_deletes_the_state(invoke: Invoke, state: Path) -> None:
    _ = Platform(state).endpoints

    result = invoke("destroy", "--yes")

    assert result.exit_code == 0
    assert not state.exists()
