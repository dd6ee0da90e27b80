"""A release is whole: one version everywhere, its CRDs kept and its histories recorded (CONTRIBUTING.md)."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.deploy.helm import CHART, ROOT

RELEASED = Path(__file__).with_name("released")
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
WRITTEN = [
    path
    for path in (ROOT / "README.md", *ROOT.joinpath("docs").rglob("*.md"), *ROOT.joinpath("deploy").rglob("*"))
    if path.is_file() and "decisions" not in path.parts
]
IMAGE_TAG = re.compile(r"\bplattr:(v?\d[\w.-]*\w)")


def test_the_chart_the_image_and_the_lock_have_the_projects_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    (locked,) = [package["version"] for package in lock["package"] if package["name"] == "plattr"]

    assert {chart["version"], chart["appVersion"], locked} == {VERSION}


def test_every_image_tag_that_is_written_down_is_the_projects_version() -> None:
    tags = {
        (str(path.relative_to(ROOT)), tag)
        for path in WRITTEN
        for tag in IMAGE_TAG.findall(path.read_text(errors="ignore"))
    }

    assert {place for place, _ in tags} >= {"docs/installing.md", "deploy/Dockerfile"}
    assert {tag for _, tag in tags} == {VERSION}


def test_the_projects_version_has_its_crds_kept() -> None:
    assert (RELEASED / f"v{VERSION}").is_dir(), "copy deploy/crds, as CONTRIBUTING.md says under Releasing"


@pytest.mark.parametrize("release", sorted(path.name for path in RELEASED.iterdir()))
def test_a_release_kept_every_crd(release: str) -> None:
    assert re.fullmatch(r"v\d+\.\d+\.\d+(-[\w.]+)?", release)
    assert {path.name for path in (RELEASED / release).iterdir()} >= {"application.yaml", "previewenvironment.yaml"}
