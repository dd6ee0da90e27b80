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
# Whoever gives one of these a new value refuses something, as far as a machine can tell.
NEW_IS_NARROWER = (
    *("pattern", "format", "multipleOf", "exclusiveMinimum", "exclusiveMaximum", "uniqueItems"),
    *("oneOf", "anyOf", "allOf", "not", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
)
# What these allow is forbidden without them.
GONE_IS_NARROWER = ("nullable", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string")


def narrowings(old: Json, new: Json, path: str = "") -> Iterator[str]:
    """Yield what the new schema refuses or forgets though the old one took it."""
    yield from (f"{path}: {keyword}" for keyword in narrower_keywords(old, new))
    yield from (f"{path}.{name}: required" for name in sorted({*new.get("required", [])} - {*old.get("required", [])}))
    # Of two CEL rules nobody but a person can tell which is wider, so each new one on an old field counts.
    yield from (f"{path}: rule {rule}" for rule in sorted(rules(new) - rules(old)))
    for name, field in old.get("properties", {}).items():
        if name in new.get("properties", {}):
            yield from narrowings(field, new["properties"][name], f"{path}.{name}")
        else:
            yield f"{path}.{name}: gone"
    for keyword, place in (("items", "[]"), ("additionalProperties", "{}")):
        inner = new.get(keyword, {})
        # In place of a schema `true` takes everything.
        if isinstance(old.get(keyword), dict) and isinstance(inner, dict):
            yield from narrowings(old[keyword], inner, f"{path}{place}")


def narrower_keywords(old: Json, new: Json) -> Iterator[str]:
    if old.get("type") != new.get("type"):
        yield "type"
    if "enum" in new and ("enum" not in old or set(old["enum"]) - set(new["enum"])):
        yield "enum"
    yield from (keyword for keyword in NEW_IS_NARROWER if keyword in new and new[keyword] != old.get(keyword))
    yield from (keyword for keyword in GONE_IS_NARROWER if old.get(keyword) and not new.get(keyword))
    yield from (k for k in LOWER_IS_NARROWER if k in new and new[k] < old.get(k, float("inf")))
    yield from (k for k in HIGHER_IS_NARROWER if k in new and new[k] > old.get(k, float("-inf")))


def rules(schema: Json) -> set[str]:
    return {validation["rule"] for validation in schema.get("x-kubernetes-validations", [])}


def losses(old: Json, new: Json) -> list[str]:
    """Return what an object, or a client, of the old CRD would miss in the new one."""
    found = [key for key in ("group", "scope") if old["spec"][key] != new["spec"][key]]
    found += [f"names.{key}" for key in ("kind", "plural") if old["spec"]["names"][key] != new["spec"]["names"][key]]
    now = {version["name"]: version for version in new["spec"]["versions"]}
    for version in old["spec"]["versions"]:
        name = version["name"]
        if name not in now:
            found.append(f"{name}: gone")
            continue
        # What lies in etcd was written by the version that stores: moving that on is a person's affair.
        found += [f"{name}: {flag}" for flag in ("served", "storage") if version[flag] and not now[name][flag]]
        found += [
            f"{name}: {kind}" for kind in version.get("subresources", {}) if kind not in now[name]["subresources"]
        ]
        found += narrowings(version["schema"]["openAPIV3Schema"], now[name]["schema"]["openAPIV3Schema"], name)
    return found


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_a_release_took_is_still_taken(path: Path) -> None:
    released, current = yaml.safe_load(path.read_text()), yaml.safe_load((CURRENT / path.name).read_text())

    assert losses(released, current) == []


def test_every_crd_of_a_release_is_still_there() -> None:
    assert RELEASED
    assert {path.name for path in RELEASED} <= {path.name for path in CURRENT.glob("*.yaml")}


@pytest.fixture
def current() -> Json:
    crd: Json = yaml.safe_load((CURRENT / "application.yaml").read_text())
    return crd


def fields_of(crd: Json) -> Json:
    fields: Json = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    return fields


def _drop(fields: Json) -> None:
    del fields["branch"]


def _retype(fields: Json) -> None:
    fields["branch"] = {"type": "integer"}


def _choose(fields: Json) -> None:
    fields["framework"]["enum"] = fields["framework"]["enum"][1:]


def _limit(fields: Json) -> None:
    fields["scaling"]["properties"]["max"]["maximum"] = 3


def _raise(fields: Json) -> None:
    fields["scaling"]["properties"]["max"]["minimum"] = 7


def _format(fields: Json) -> None:
    fields["branch"]["format"] = "date-time"


def _rule(fields: Json) -> None:
    fields["scaling"]["x-kubernetes-validations"] = [{"rule": "self.max < 3"}]


def _compose(fields: Json) -> None:
    fields["branch"]["anyOf"] = [{"pattern": "^main$"}]


def _require_inside(fields: Json) -> None:
    fields["scaling"]["required"] = ["max"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param(_drop, "v1alpha1.spec.branch: gone", id="dropped"),
        pytest.param(_require_inside, "v1alpha1.spec.scaling.max: required", id="required"),
        pytest.param(_retype, "v1alpha1.spec.branch: type", id="retyped"),
        pytest.param(_choose, "v1alpha1.spec.framework: enum", id="fewer-choices"),
        pytest.param(_limit, "v1alpha1.spec.scaling.max: maximum", id="lower-maximum"),
        pytest.param(_raise, "v1alpha1.spec.scaling.max: minimum", id="higher-minimum"),
        pytest.param(_format, "v1alpha1.spec.branch: format", id="format"),
        pytest.param(_rule, "v1alpha1.spec.scaling: rule self.max < 3", id="rule"),
        pytest.param(_compose, "v1alpha1.spec.branch: anyOf", id="any-of"),
    ],
)
def test_a_narrowing_is_found(current: Json, change: Callable[[Json], None], found: str) -> None:
    new = copy.deepcopy(current)
    change(fields_of(new))

    assert found in losses(current, new)


@pytest.mark.parametrize("keyword", GONE_IS_NARROWER)
def test_a_permission_that_goes_is_found(current: Json, keyword: str) -> None:
    old = copy.deepcopy(current)
    fields_of(old)["branch"][keyword] = True

    assert losses(old, current) == [f"v1alpha1.spec.branch: {keyword}"]


def test_a_rule_that_changes_is_found_and_one_that_goes_is_not(current: Json) -> None:
    old, changed = copy.deepcopy(current), copy.deepcopy(current)
    fields_of(old)["branch"]["x-kubernetes-validations"] = [{"rule": "self != 'a'"}]
    fields_of(changed)["branch"]["x-kubernetes-validations"] = [{"rule": "self != 'b'"}]

    assert losses(old, changed) == ["v1alpha1.spec.branch: rule self != 'b'"]
    assert losses(old, current) == []


@pytest.mark.parametrize("flag", ["served", "storage"])
def test_a_version_that_is_not_served_or_stored_any_more_is_found(current: Json, flag: str) -> None:
    new = copy.deepcopy(current)
    newer = copy.deepcopy(new["spec"]["versions"][0]) | {"name": "v1beta1"}
    new["spec"]["versions"].append(newer)
    new["spec"]["versions"][0][flag] = False

    assert losses(current, new) == [f"v1alpha1: {flag}"]


def test_the_values_of_a_map_are_looked_at(current: Json) -> None:
    old, new = copy.deepcopy(current), copy.deepcopy(current)
    fields_of(old)["labels"] = {"type": "object", "additionalProperties": {"type": "string"}}
    fields_of(new)["labels"] = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 3}}

    assert losses(old, new) == ["v1alpha1.spec.labels{}: maxLength"]


def test_a_new_field_with_a_rule_of_its_own_is_no_narrowing(current: Json) -> None:
    new = copy.deepcopy(current)
    fields_of(new)["queue"] = {
        "type": "object",
        "properties": {"enabled": {"type": "boolean"}, "name": {"type": "string", "format": "uuid"}},
        "x-kubernetes-validations": [{"rule": "self.enabled"}],
    }

    assert losses(current, new) == []
