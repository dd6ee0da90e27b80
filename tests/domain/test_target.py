"""What an object asks for, and the refusals that need the platform's settings or a preview's parent to decide."""

from datetime import UTC, datetime
from typing import Any

import pytest

from plattr.errors import InvalidSpec
from plattr.objects import Kind
from plattr.spec import ApplicationSpec, Environment
from plattr.target import Target, owner_annotations, owner_labels, preview_target
from tests.domain.corpus import APPLICATION, BASE_DOMAIN, Case, object_of, target_of

PARENT: dict[str, Any] = {
    **APPLICATION,
    "branch": "main",
    "imageRef": "registry.example.com/my-app:main",
    "domain": "shop.example.org",
    "envVars": [
        {"name": "LOG_LEVEL", "value": "debug"},
        {"name": "VENDOR_TOKEN", "secretKeyRef": {"name": "vendor", "key": "token"}},
        {"name": "OWN_HOST", "secretKeyRef": {"name": "my-app-db", "key": "DB_HOST"}},
    ],
    "database": {"enabled": True, "schemaName": "shop"},
    "storage": {"enabled": True, "buckets": [{"name": "uploads", "public": True}]},
    "auth": {"enabled": True, "providers": ["google"]},
    "redis": {"enabled": True},
    "search": {"enabled": True},
    "scaling": {"min": 5, "max": 50, "targetCPU": 60},
    "deletionPolicy": "Retain",
}


def _preview(parent: dict[str, Any] = PARENT, **spec: Any) -> Target:
    return target_of(Case("", spec, Kind.PREVIEW, "my-app-pr-42"), parent=parent)


def test_preview_has_the_parents_features() -> None:
    parent = target_of(Case("", PARENT)).spec

    spec = _preview().spec

    for feature in ("storage", "auth", "redis", "search", "health_check", "cors", "framework"):
        assert getattr(spec, feature) == getattr(parent, feature), feature
    assert spec.database.enabled


def test_preview_has_names_of_its_own_whatever_the_parent_calls_its_schema_and_host() -> None:
    target = _preview()

    assert target.spec.domain is None
    assert target.names.schema_name == "my_app_pr42"
    assert target.names.host == f"pr-42.my-app.preview.{BASE_DOMAIN}"
    assert target.spec.environment is Environment.PREVIEW


def test_preview_scales_from_one_to_two_at_eighty_percent() -> None:
    scaling = _preview().spec.scaling

    assert (scaling.min, scaling.max, scaling.target_cpu) == (1, 2, 80)


def test_preview_never_retains() -> None:
    assert _preview().spec.deletion_policy == "Delete"


def test_preview_leaves_out_what_the_parent_takes_from_secrets_and_says_which() -> None:
    target = _preview()

    assert [variable.name for variable in target.spec.env_vars] == ["LOG_LEVEL"]
    assert target.dropped_variables == ("VENDOR_TOKEN", "OWN_HOST")


@pytest.mark.parametrize(
    ("spec", "parent", "expected"),
    [
        ({"imageRef": "pr:1"}, PARENT, "pr:1"),
        ({}, PARENT, "registry.example.com/my-app:main"),
        ({}, APPLICATION, None),
    ],
    ids=["own", "parents", "none"],
)
def test_preview_runs_its_own_image_else_the_parents(
    spec: dict[str, Any], parent: dict[str, Any], expected: str | None
) -> None:
    assert _preview(parent, **spec).spec.image_ref == expected


def test_preview_tells_its_parent_and_number() -> None:
    target = _preview()

    assert (target.is_preview, target.parent, target.pull_request) == (True, "my-app", 42)


def test_preview_of_a_broken_parent_is_refused() -> None:
    with pytest.raises(InvalidSpec) as refusal:
        _preview({**PARENT, "framework": "php"})

    assert refusal.value.field == "spec.framework"


def test_parents_bucket_whose_name_is_too_long_for_a_preview_is_refused() -> None:
    parent = {**PARENT, "storage": {"enabled": True, "buckets": [{"name": "b" * 40}]}}

    assert target_of(Case("", parent)).spec.storage.enabled
    with pytest.raises(InvalidSpec) as refusal:
        _preview(parent)
    assert refusal.value.field == "spec.storage.buckets[0].name"


def test_domain_below_the_platforms_is_allowed() -> None:
    domain = f"shop.{BASE_DOMAIN}"

    assert target_of(Case("", {"domain": domain})).names.host == domain


def test_database_secret_of_another_application_is_refused() -> None:
    variables = [
        {"name": "A", "value": "x"},
        {"name": "B", "secretKeyRef": {"name": "other-db", "key": "DATABASE_URL"}},
    ]

    with pytest.raises(InvalidSpec) as refusal:
        target_of(Case("", {"envVars": variables}))

    assert refusal.value.field == "spec.envVars[1].secretKeyRef.name"


@pytest.mark.parametrize(
    "spec",
    [
        {"envVars": [{"name": "A", "value": "hunter2", "secretKeyRef": {"name": "s", "key": "k"}}]},
        {"envVars": [{"name": "A", "value": "hunter2" * 10_000}]},
        {"envVars": [{"name": "A", "value": ["hunter2"]}]},
        {"envVars": [{"name": "A", "value": "hunter2"}, {"name": "A", "value": "hunter2"}]},
        {"envVars": "hunter2"},
        {"repository": {"password": "hunter2"}},
    ],
    ids=["both", "too-long", "no-text", "twice", "no-list", "elsewhere"],
)
def test_refusal_never_shows_a_value(spec: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        target_of(Case("", spec))

    assert "hunter2" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


def test_value_that_json_cannot_carry_is_refused() -> None:
    with pytest.raises(InvalidSpec) as refusal:
        target_of(Case("", {"branch": datetime(2026, 1, 1, tzinfo=UTC)}))

    assert refusal.value.field == "spec"


@pytest.mark.parametrize("field", list(ApplicationSpec.model_fields))
def test_every_field_of_the_parent_reaches_the_preview_or_is_replaced_on_purpose(field: str) -> None:
    replaced = {
        "environment", "branch", "image_ref", "domain", "env_vars", "database", "scaling", "deletion_policy"
    }  # fmt: skip
    parent, preview = target_of(Case("", PARENT)).spec, _preview(imageRef="pr:1").spec

    assert (getattr(preview, field) == getattr(parent, field)) == (field not in replaced)


@pytest.mark.parametrize("target", [target_of(Case("")), _preview()], ids=["application", "preview"])
def test_owner_is_found_by_labels_and_named_in_annotations(target: Target) -> None:
    owner = target.owner

    assert owner_labels(owner.reference).items() <= target.labels.items()
    assert target.annotations == owner_annotations(owner)
    assert owner.reference.key in target.annotations.values()
    assert [label for label in target.labels.values() if len(label) > 63] == []


def test_selector_of_an_application_is_not_that_of_a_preview_of_the_same_name() -> None:
    application = target_of(Case("", name="my-app-pr42"))

    assert application.names.stem == _preview().names.stem
    assert application.selector_labels != _preview().selector_labels


def test_preview_target_needs_its_own_parent() -> None:
    custom_object = object_of(Case("", {}, Kind.PREVIEW))

    with pytest.raises(InvalidSpec):
        preview_target(custom_object, {}, base_domain=BASE_DOMAIN)
