"""The CRDs and the models say the same of every field."""

import re
from itertools import product

import pytest

from plattr.features import FEATURES, ConditionType
from plattr.objects import GROUP, VERSION, Kind
from plattr.parent import Parent
from plattr.spec import ApplicationSpec, PreviewSpec, SpecModel
from plattr.status import Condition, Phase
from tests.domain.crds import crd, properties, rules, version

KINDS = pytest.mark.parametrize("kind", list(Kind), ids=str)
SPECS: dict[Kind, type[SpecModel]] = {Kind.APPLICATION: ApplicationSpec, Kind.PREVIEW: PreviewSpec}


@KINDS
def test_crd_and_model_agree_field_by_field(kind: Kind) -> None:
    of_model = rules(SPECS[kind].model_json_schema(by_alias=True), "spec")

    of_crd = rules(properties(kind)["spec"], "spec")

    assert of_crd.keys() == of_model.keys()
    assert {path: facts for path, facts in of_crd.items() if facts != of_model[path]} == {}


@KINDS
def test_conditions_agree_with_their_model(kind: Kind) -> None:
    of_model = rules(Condition.model_json_schema(by_alias=True), "condition")

    of_crd = rules(properties(kind)["status"]["properties"]["conditions"]["items"], "condition")

    assert of_crd == of_model


def test_what_a_preview_was_built_from_agrees_with_its_model() -> None:
    of_model = rules(Parent.model_json_schema(by_alias=True), "parent")

    of_crd = rules(properties(Kind.PREVIEW)["status"]["properties"]["parent"], "parent")

    assert of_crd == of_model


@KINDS
def test_phases_and_condition_types_are_those_of_the_models(kind: Kind) -> None:
    status = properties(kind)["status"]["properties"]

    types = status["conditions"]["items"]["properties"]["type"]["enum"]

    assert status["phase"]["enum"] == list(Phase)
    assert types == list(ConditionType)


def names_of(pattern: str) -> list[str]:
    """Return each name that a feature's pattern stands for; a family as what it begins with."""
    parts = [part.strip("()").split("|") for part in re.split(r"(\(.*?\))", pattern.removesuffix(".*")) if part]
    return ["".join(names) for names in product(*parts)]


def test_the_crd_refuses_every_variable_that_a_feature_injects() -> None:
    patterns = [pattern for feature in FEATURES for pattern in feature.variables]
    families = {name for pattern in patterns if pattern.endswith(".*") for name in names_of(pattern)}
    names = {name for pattern in patterns if not pattern.endswith(".*") for name in names_of(pattern)}

    variable = properties(Kind.APPLICATION)["spec"]["properties"]["envVars"]["items"]["properties"]["name"]
    (rule,) = [
        each["rule"] for each in variable["x-kubernetes-validations"] if "set by Plattr itself" in each["message"]
    ]
    listed, begun = rule.split("])")

    assert set(re.findall(r"'(.*?)'", listed)) == names
    assert set(re.findall(r"'(.*?)'", begun)) == families


@pytest.mark.parametrize(
    ("kind", "short_names", "columns"),
    [
        (Kind.APPLICATION, ["app", "apps"], ["Framework", "Environment", "Phase", "URL", "Age"]),
        (Kind.PREVIEW, ["preview", "previews"], ["App", "PR", "Phase", "URL", "Expires"]),
    ],
    ids=["application", "preview"],
)
def test_kubectl_shows_what_the_specification_lists(kind: Kind, short_names: list[str], columns: list[str]) -> None:
    definition = crd(kind)["spec"]

    only = version(kind)

    assert (definition["group"], only["name"]) == (GROUP, VERSION)
    assert (definition["names"]["kind"], definition["names"]["plural"]) == (kind, kind.plural)
    assert definition["names"]["shortNames"] == short_names
    assert [column["name"] for column in only["additionalPrinterColumns"]] == columns


@KINDS
def test_status_is_a_subresource(kind: Kind) -> None:
    only = version(kind)

    assert only["subresources"] == {"status": {}}


@KINDS
def test_every_rule_has_a_message(kind: Kind) -> None:
    found = list(_validations(version(kind)["schema"]["openAPIV3Schema"]))

    assert found
    assert [rule for rule in found if not rule.get("message")] == []


def _validations(schema: object) -> list[dict[str, str]]:
    if isinstance(schema, dict):
        own = schema.get("x-kubernetes-validations", [])
        return [*own, *(rule for child in schema.values() for rule in _validations(child))]
    return []
