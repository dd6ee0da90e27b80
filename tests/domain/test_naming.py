"""Every derived name has its exact form; nothing is ever truncated."""

import pytest

from plattr.errors import InvalidSpec, NameTooLong
from plattr.naming import bucket_variable, workflow_id
from plattr.objects import Kind, ObjectReference
from plattr.target import application_target
from tests.domain.corpus import APPLICATION, AUTH, BASE_DOMAIN, DATABASE, Case, object_of, target_of

BUCKETS = {"storage": {"enabled": True, "buckets": [{"name": "uploads"}]}}

TABLE = {
    "application": (
        Case("", {**DATABASE, **BUCKETS, **AUTH}),
        {
            "namespace": "team",
            "stem": "my-app",
            "api_ingress": "my-app-api",
            "tls_secret": "my-app-tls",
            "database_secret": "my-app-db",
            "user_env": "my-app-env",
            "schema_name": "prod_my_app",
            "app_role": "prod_my_app_app",
            "anon_role": "prod_my_app_anon",
            "realm": "my-app",
            "client_id": "my-app",
            "host": f"my-app.{BASE_DOMAIN}",
            "url": f"https://my-app.{BASE_DOMAIN}",
            "search_prefix": "prod_my_app",
        },
        "plattr-prod-my-app-uploads",
    ),
    "preview": (
        Case("", {}, Kind.PREVIEW, "anything"),
        {
            "namespace": "preview-my-app-pr-42",
            "stem": "my-app-pr42",
            "api_ingress": "my-app-pr42-api",
            "tls_secret": "my-app-pr42-tls",
            "database_secret": "my-app-pr42-db",
            "user_env": "my-app-pr42-env",
            "schema_name": "my_app_pr42",
            "app_role": "my_app_pr42_app",
            "anon_role": "my_app_pr42_anon",
            "realm": "my-app-pr42",
            "client_id": "my-app-pr42",
            "host": f"pr-42.my-app.preview.{BASE_DOMAIN}",
            "url": f"https://pr-42.my-app.preview.{BASE_DOMAIN}",
            "search_prefix": "my_app_pr42",
        },
        "plattr-preview-my-app-pr42-uploads",
    ),
}


@pytest.mark.parametrize("column", TABLE)
def test_names_are_those_of_the_specification(column: str) -> None:
    case, expected, bucket = TABLE[column]

    names = target_of(case).names

    assert {name: getattr(names, name) for name in expected} == expected
    assert names.bucket("uploads") == bucket


@pytest.mark.parametrize("feature", ["storage", "auth", "redis", "search"])
def test_config_maps_are_named_for_their_feature(feature: str) -> None:
    names = target_of(Case("")).names

    assert names.config_map(feature) == f"my-app-{feature}"


@pytest.mark.parametrize(
    ("environment", "schema", "bucket", "realm", "host"),
    [
        ("staging", "staging_my_app", "plattr-staging-my-app-b", "staging-my-app", f"my-app.staging.{BASE_DOMAIN}"),
        ("uat", "uat_my_app", "plattr-uat-my-app-b", "uat-my-app", f"my-app.uat.{BASE_DOMAIN}"),
        ("preview", "preview_my_app", "plattr-preview-my-app-b", "preview-my-app", f"my-app.preview.{BASE_DOMAIN}"),
    ],
)
def test_other_environments_have_their_prefix(
    environment: str, schema: str, bucket: str, realm: str, host: str
) -> None:
    names = target_of(Case("", {"environment": environment})).names

    assert (names.schema_name, names.bucket("b"), names.realm, names.host) == (schema, bucket, realm, host)


def test_schema_name_replaces_the_applications_name_and_not_the_roles() -> None:
    names = target_of(Case("", {"database": {"enabled": True, "schemaName": "shop"}})).names

    assert (names.schema_name, names.app_role, names.anon_role) == ("prod_shop", "prod_my_app_app", "prod_my_app_anon")


def test_domain_replaces_the_host() -> None:
    names = target_of(Case("", {"domain": "shop.example.org"})).names

    assert names.url == "https://shop.example.org"


def test_local_platform_appends_its_suffix_to_the_client() -> None:
    target = application_target(object_of(Case("")), base_domain=BASE_DOMAIN, client_suffix="-app")

    assert target.names.client_id == "my-app-app"


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        (Kind.APPLICATION, "my-app", "application/team/my-app"),
        (Kind.PREVIEW, "my-preview", "preview/team/my-preview"),
    ],
    ids=str,
)
def test_workflow_id_names_the_object(kind: Kind, name: str, expected: str) -> None:
    reference = ObjectReference(kind=kind, namespace="team", name=name)

    assert workflow_id(reference) == expected


def test_bucket_variable_is_in_capitals() -> None:
    assert bucket_variable("user-uploads") == "S3_BUCKET_USER_UPLOADS"


@pytest.mark.parametrize(
    ("case", "field", "mentions"),
    [
        (Case("", name="a" * 56), "metadata.name", ["'" + "a" * 56 + "-storage'", "63"]),
        (Case("", name="a" * 64), "metadata.name", ["'" + "a" * 64 + "'", "64 bytes", "63"]),
        (Case("", DATABASE, name="a" * 54), "metadata.name", ["'prod_" + "a" * 54 + "_anon'", "64 bytes", "63"]),
        (
            Case("", {"database": {"enabled": True, "schemaName": "s" * 59}}),
            "spec.database.schemaName",
            ["'prod_" + "s" * 59 + "'", "64 bytes", "63"],
        ),
        (
            Case("", {"storage": {"enabled": True, "buckets": [{"name": "a"}, {"name": "b" * 45}]}}),
            "spec.storage.buckets[1].name",
            ["'plattr-prod-my-app-" + "b" * 45 + "'", "64 bytes", "63"],
        ),
        (
            Case("", {"applicationRef": "a" * 50}, Kind.PREVIEW),
            "spec.applicationRef",
            ["'preview-" + "a" * 50 + "-pr-42'", "64 bytes", "63"],
        ),
        (Case("", {}, Kind.PREVIEW, "p" * 64), "metadata.name", ["64 bytes", "63"]),
    ],
    ids=["config-map", "name", "role", "schema", "bucket", "preview", "preview-name"],
)
def test_name_over_its_limit_is_refused_with_name_and_limit(case: Case, field: str, mentions: list[str]) -> None:
    with pytest.raises(NameTooLong) as refusal:
        target_of(case)

    assert refusal.value.field == field
    assert [text for text in mentions if text not in str(refusal.value)] == []


def test_host_over_the_limit_of_its_claim_is_refused() -> None:
    base_domain = ".".join(["d" * 60] * 4)

    with pytest.raises(NameTooLong) as refusal:
        application_target(object_of(Case("", name="a" * 5)), base_domain=base_domain)

    assert refusal.value.field == "spec.domain"
    assert "248" in str(refusal.value)


def test_preview_of_an_application_that_postgres_would_refuse_is_refused() -> None:
    case = Case("", {"applicationRef": "pg-admin"}, Kind.PREVIEW)

    with pytest.raises(InvalidSpec) as refusal:
        target_of(case, parent={**APPLICATION, **DATABASE})

    assert refusal.value.field == "spec.applicationRef"
    assert target_of(case).names.schema_name == "pg_admin_pr42"
