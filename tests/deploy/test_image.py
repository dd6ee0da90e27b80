"""What deploy/Dockerfile takes in; `make prove` builds it."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def test_the_image_has_every_package_but_the_local_platform() -> None:
    copied = set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.MULTILINE))

    assert copied == PACKAGES - {"stack"}


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    lines = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {name for line in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()}

    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied


def test_the_image_takes_no_group_of_dependencies_and_no_extra() -> None:
    syncs = re.findall(r"uv sync (.+)$", DOCKERFILE, re.MULTILINE)

    assert len(syncs) == 2
    assert all("--no-default-groups" in sync and "--extra" not in sync for sync in syncs)
