from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from cli.environment import settings
from cli.formatting import clock, duration
from cli.objects import ObjectNotFound, parse_name
from cli.options import parse_duration
from plattr.objects import Kind
from stack.platform import Platform
from tests.cli.conftest import run_plattr

# Nothing listens on port 1, and nothing may be asked before the arguments are understood.
NOWHERE = {"KUBECONFIG": "/nonexistent", "TEMPORAL_ADDRESS": "127.0.0.1:1"}

APPLICATION = """
apiVersion: platform.internal/v1alpha1
kind: Application
metadata: {name: shop}
spec: {repository: https://git.example/shop, framework: docker, environment: production}
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--env", "preview"),
        ("status", "--pr", "7"),
        ("status", "shop", "--env", "preview"),
        ("status", "--env", "production", "-n", "team"),
        ("status", "--env", "nowhere"),
        ("resync",),
        ("resync", "shop", "--all"),
        ("apply", "file.yaml", "--timeout", "soon"),
        ("preview", "start", "--app", "shop"),
        ("preview", "extend", "shop-pr-7"),
        ("preview", "extend", "shop-pr-7", "--ttl", "3h", "--by", "1h"),
    ],
    ids=" ".join,
)
def test_arguments_that_do_not_go_together_are_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert run_plattr(*arguments, environment=NOWHERE).exit_code == 2


def test_without_a_connection_there_is_one_line_and_no_trace() -> None:
    outcome = run_plattr("status", environment=NOWHERE)

    assert outcome.exit_code == 1
    assert outcome.stdout == ""
    assert outcome.stderr.count("\n") == 1
    assert outcome.stderr.startswith("cannot connect to Kubernetes")


def test_debugging_shows_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATTR_DEBUG", "1")

    outcome = run_plattr("status", environment=NOWHERE)

    assert outcome.exit_code == 1
    assert outcome.stderr == ""  # the interpreter writes the trace itself


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1h", 3600)], ids=["plain", "s", "m", "h"]
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "0", "-5m", "5d", "m", "1.5h", "99999999"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("shop", (Kind.APPLICATION, Kind.PREVIEW)),
        ("app/shop", (Kind.APPLICATION,)),
        ("Application/shop", (Kind.APPLICATION,)),
        ("preview/shop", (Kind.PREVIEW,)),
    ],
    ids=["plain", "short", "kind", "preview"],
)
def test_a_name_may_say_its_kind(text: str, kinds: tuple[Kind, ...]) -> None:
    assert parse_name(text) == (kinds, "shop")


@pytest.mark.parametrize("text", ["pod/shop", "app/"], ids=["foreign kind", "no name"])
def test_a_kind_that_is_not_ours_is_refused(text: str) -> None:
    with pytest.raises(ObjectNotFound):
        parse_name(text)


@pytest.mark.parametrize("name", ["KUBECONFIG", "TEMPORAL_ADDRESS"])
def test_either_address_of_the_environment_turns_the_local_platform_off(name: str) -> None:
    environment = {name: "elsewhere"}

    assert settings(environment) == environment


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.416, "0.42 s"), (1.44, "1.4 s"), (42, "42 s"), (300, "5 min"), (10800, "3 h"), (259200, "3 d")],
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(timedelta(seconds=seconds)) == words


def test_a_moment_says_how_far_off_it_is() -> None:
    now = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)

    assert clock(now + timedelta(seconds=30), now).endswith("(in 30 s)")
    assert clock(now - timedelta(minutes=3), now).endswith("(3 min ago)")
    assert clock(now, now).endswith("(now)")


BAD_FILES = {
    "not YAML": ("{", "not YAML"),
    "empty": ("", "no object"),
    "a list": ("[1, 2]", "no object"),
    "a foreign kind": ("{apiVersion: v1, kind: Pod, metadata: {name: x}}", "'Pod'"),
    "a foreign version": (APPLICATION.replace("v1alpha1", "v2"), "v2"),
    "no name": (APPLICATION.replace("name: shop", "labels: {}"), "metadata.name"),
    "another namespace": (APPLICATION.replace("name: shop", "name: shop, namespace: other"), "'other'"),
    "no spec": (APPLICATION.split("spec:")[0], "spec is missing"),
    "a wrong field": (APPLICATION.replace("production}", "production, databse: {}}"), "spec.databse"),
    "a wrong value": (APPLICATION.replace("production}", "production, scaling: {min: 5, max: 2}}"), "spec.scaling"),
    "a bad second document": (APPLICATION + "---\n" + APPLICATION.replace("docker", "cobol"), "document 2"),
}


@pytest.mark.parametrize(("text", "named"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_refused_before_anything_is_asked(
    text: str, named: str, tmp_path: Path, platform: Platform
) -> None:
    file = tmp_path / "objects.yaml"
    file.write_text(text)
    # Temporal is not there, so a file that passed would fail in another way.
    environment = {"KUBECONFIG": str(platform.endpoints.kubeconfig_admin), "TEMPORAL_ADDRESS": "127.0.0.1:1"}

    outcome = run_plattr("apply", str(file), "-n", "no-such-namespace", environment=environment)

    assert outcome.exit_code == 1
    assert outcome.stderr.count("\n") == 1
    assert named in outcome.stderr


def test_a_file_that_is_not_there_is_said(platform: Platform) -> None:
    environment = {"KUBECONFIG": str(platform.endpoints.kubeconfig_admin)}

    outcome = run_plattr("apply", "/nonexistent.yaml", environment=environment)

    assert (outcome.exit_code, outcome.stderr.count("\n")) == (1, 1)
    assert "/nonexistent.yaml" in outcome.stderr
