"""CRDs only ever gain: what an object of an earlier release says, a later one takes.

At a release: `cp deploy/crds/*.yaml tests/deploy/released/VERSION/`.
"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.helm import ROOT, Json

CURRENT = ROOT / "deploy" / "crds"
RELEASED = sorted(Path(__file__).parent.joinpath("released").glob("*/*.yaml"))
LOWER_IS_NARROWER = ("maximum", "maxLength", "maxItems", "maxProperties")
HIGHER_IS_NARROWER = ("minimum", "minLength", "minItems", "minProperties")


def narrowings(old: Json, new: Json, path: str = "") -> Iterator[str]:
    """Yield what the new schema refuses or forgets though the old one took it; CEL rules are for people to compare."""
    if old.get("type") != new.get("type"):
        yield f"{path}: type"
    for name in sorted(set(new.get("required", [])) - set(old.get("required", []))):
        yield f"{path}.{name}: required"
    if "enum" in new and ("enum" not in old or set(old["enum"]) - set(new["enum"])):
        yield f"{path}: enum"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield f"{path}: pattern"
    for limit in LOWER_IS_NARROWER:
        if limit in new and new[limit] < old.get(limit, float("inf")):
            yield f"{path}: {limit}"
    for limit in HIGHER_IS_NARROWER:
        if limit in new and new[limit] > old.get(limit, float("-inf")):
            yield f"{path}: {limit}"
    for name, field in old.get("properties", {}).items():
        if name in new.get("properties", {}):
            yield from narrowings(field, new["properties"][name], f"{path}.{name}")
        else:
            yield f"{path}.{name}: gone"
    if "items" in old:
        yield from narrowings(old["items"], new.get("items", {}), f"{path}[]")


def schema(crd: Json) -> dict[str, Json]:
    return {version["name"]: version["schema"]["openAPIV3Schema"] for version in crd["spec"]["versions"]}


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_a_release_took_is_still_taken(path: Path) -> None:
    released = schema(yaml.safe_load(path.read_text()))
    current = schema(yaml.safe_load((CURRENT / path.name).read_text()))

    assert released.keys() <= current.keys()
    assert [each for version in released for each in narrowings(released[version], current[version])] == []


def test_every_crd_of_a_release_is_still_there() -> None:
    assert RELEASED
    assert {path.name for path in RELEASED} <= {path.name for path in CURRENT.glob("*.yaml")}


def _drop(spec: Json) -> None:
    del spec["properties"]["branch"]


def _require(spec: Json) -> None:
    spec["required"] = [*spec["required"], "domain"]


def _retype(spec: Json) -> None:
    spec["properties"]["branch"] = {"type": "integer"}


def _choose(spec: Json) -> None:
    spec["properties"]["framework"]["enum"] = spec["properties"]["framework"]["enum"][1:]


def _limit(spec: Json) -> None:
    spec["properties"]["scaling"]["properties"]["max"]["maximum"] = 3


def _raise(spec: Json) -> None:
    spec["properties"]["scaling"]["properties"]["max"]["minimum"] = 7


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param(_drop, ".spec.branch: gone", id="dropped"),
        pytest.param(_require, ".spec.domain: required", id="required"),
        pytest.param(_retype, ".spec.branch: type", id="retyped"),
        pytest.param(_choose, ".spec.framework: enum", id="fewer-choices"),
        pytest.param(_limit, ".spec.scaling.max: maximum", id="lower-maximum"),
        pytest.param(_raise, ".spec.scaling.max: minimum", id="higher-minimum"),
    ],
)
def test_a_narrowing_is_found(change: Callable[[Json], None], found: str) -> None:
    old = schema(yaml.safe_load((CURRENT / "application.yaml").read_text()))["v1alpha1"]
    new = copy.deepcopy(old)
    change(new["properties"]["spec"])

    assert found in list(narrowings(old, new))


def test_a_new_field_is_no_narrowing() -> None:
    old = schema(yaml.safe_load((CURRENT / "application.yaml").read_text()))["v1alpha1"]
    new = copy.deepcopy(old)
    new["properties"]["spec"]["properties"]["queue"] = {
        "type": "object",
        "properties": {"enabled": {"type": "boolean"}},
    }

    assert list(narrowings(old, new)) == []
