"""Hosts that no application may have: whoever is served at one is taken for the platform."""

from typing import Any

import pytest

from plattr.errors import InvalidSpec, MissingSetting
from plattr.hosts import RESERVED_LABELS, hosts_in
from plattr.objects import Kind
from plattr.settings import Settings
from plattr.target import Target, application_target, preview_target
from tests.domain.corpus import APPLICATION, BASE_DOMAIN, Case, object_of
from tests.domain.test_settings import LEAST

# Every setting that names a host, each of its own.
ADDRESSES = {
    "DB_ADMIN_URL": "postgresql://admin:hunter2@one.db.test:5432,two.db.test/plattr?host=three.db.test",
    "DB_HOST": "Told.DB.test.",
    "AWS_ENDPOINT_URL": "http://inner.s3.test:9000",
    "S3_PUBLIC_ENDPOINT": "https://outer.s3.test",
    "S3_ACCOUNTS_URL": "http://admin.s3.test:7070",
    "KEYCLOAK_URL": "http://inner.keycloak.test:8080",
    "AUTH_URL": "https://login.keycloak.test/auth",
    "IDP_OIDC_ISSUER_URL": "https://oidc.idp.test/realms/a",
    "IDP_SAML_ISSUER_URL": "https://saml.idp.test/metadata",
    "REDIS_ENDPOINT": "cache.redis.test:6379",
    "REDIS_ADMIN_URL": "rediss://admin:hunter2@inner.redis.test:6380",
    "OPENSEARCH_ENDPOINT": "https://search.opensearch.test:9200",
    "OPENSEARCH_ADMIN_URL": "https://admin:hunter2@inner.opensearch.test",
    "TEMPORAL_ADDRESS": "frontend.temporal.test:7233",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.otel.test:4317",
}
PLATFORM = [
    *("one.db.test", "two.db.test", "three.db.test", "told.db.test", "inner.s3.test", "outer.s3.test"),
    *("inner.keycloak.test", "login.keycloak.test", "oidc.idp.test", "saml.idp.test", "cache.redis.test"),
    *(
        "inner.redis.test",
        "inner.opensearch.test",
        "search.opensearch.test",
        "frontend.temporal.test",
        "collector.otel.test",
        "admin.s3.test",
    ),
    # What is served below: realms' pages, and a host for each bucket.
    *("evil.login.keycloak.test", "a.b.inner.keycloak.test", "bucket.outer.s3.test", "bucket.inner.s3.test"),
    # Nobody had to name these.
    *(BASE_DOMAIN, f"auth.{BASE_DOMAIN}", f"evil.auth.{BASE_DOMAIN}", f"s3.{BASE_DOMAIN}", f"bucket.s3.{BASE_DOMAIN}"),
    *(f"temporal.{BASE_DOMAIN}", f"grafana.{BASE_DOMAIN}", f"argocd.{BASE_DOMAIN}", f"wpad.{BASE_DOMAIN}"),
    *(f"staging.{BASE_DOMAIN}", f"preview.{BASE_DOMAIN}", f"pr-42.other.preview.{BASE_DOMAIN}"),
    # RESERVED_HOSTS.
    *("wiki.example.org", "deep.corp.test"),
]


def settings_of(**more: str) -> Settings:
    return Settings.from_mapping({**LEAST, "BASE_DOMAIN": BASE_DOMAIN, **more})


def target_of(settings: Settings, name: str = "my-app", **spec: Any) -> Target:
    return application_target(
        object_of(Case("", spec, name=name)), base_domain=settings.base_domain, hosts=settings.host_rules
    )


@pytest.mark.attack
@pytest.mark.parametrize("domain", PLATFORM)
def test_a_host_of_the_platform_is_nobodys_domain(domain: str) -> None:
    settings = settings_of(**ADDRESSES, RESERVED_HOSTS="wiki.example.org, *.corp.test")

    with pytest.raises(InvalidSpec) as refusal:
        target_of(settings, domain=domain)

    assert refusal.value.field == "spec.domain"
    assert "hunter2" not in str(refusal.value)


def test_every_setting_that_is_an_address_is_looked_at() -> None:
    """A new setting joins ADDRESSES above; its host is the platform's without further code, if it ends as these do."""
    endings = ("_url", "_endpoint", "_host", "_address", "_uri", "_server")

    addresses = {name.upper() for name in Settings.model_fields if name.endswith(endings)}

    assert addresses - {"METRICS_HOST"} == set(ADDRESSES)


@pytest.mark.attack
@pytest.mark.parametrize("name", ["auth", "s3", "temporal", "grafana", "staging", "uat", "preview", "production"])
def test_an_application_is_not_named_for_a_host_of_the_platform(name: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        target_of(settings_of(), name)

    assert refusal.value.field == "metadata.name"


def test_such_a_name_is_good_where_its_host_is_another() -> None:
    settings = settings_of()

    hosts = [
        target_of(settings, "grafana", environment="staging").names.host,
        target_of(settings, "grafana", domain="boards.example.org").names.host,
    ]

    assert hosts == [f"grafana.staging.{BASE_DOMAIN}", "boards.example.org"]


def test_a_preview_is_not_served_at_a_reserved_host_either() -> None:
    settings = settings_of(RESERVED_HOSTS=f"*.preview.{BASE_DOMAIN}")
    preview = object_of(Case("", kind=Kind.PREVIEW))

    with pytest.raises(InvalidSpec) as refusal:
        preview_target(preview, APPLICATION, base_domain=BASE_DOMAIN, hosts=settings.host_rules)

    assert refusal.value.field == "spec.applicationRef"


@pytest.mark.parametrize(
    ("auth_url", "domain"),
    [
        (f"https://{BASE_DOMAIN}/auth", f"shop.{BASE_DOMAIN}"),
        ("https://example.com/auth", f"shop.{BASE_DOMAIN}"),
        ("https://login.example.org", "shop.example.org"),
    ],
    ids=["auth-at-the-base-domain", "auth-above-it", "auth-beside-it"],
)
def test_the_applications_own_hosts_stay_free_wherever_auth_is(auth_url: str, domain: str) -> None:
    assert target_of(settings_of(AUTH_URL=auth_url), domain=domain).names.host == domain


@pytest.mark.attack
def test_a_namespace_may_have_only_the_domains_that_are_listed_for_it() -> None:
    settings = settings_of(
        DOMAINS_BY_NAMESPACE='{"team": ["shop.example.org", "*.team.example.org"], "other": ["other.test"]}'
    )

    allowed = [target_of(settings, domain=domain).names.host for domain in ("shop.example.org", "a.team.example.org")]
    refusals = []
    for domain in ("team.example.org", "evil-shop.example.org", "other.test", f"pay.{BASE_DOMAIN}"):
        with pytest.raises(InvalidSpec) as refusal:
            target_of(settings, domain=domain)
        refusals.append(refusal.value)

    assert allowed == ["shop.example.org", "a.team.example.org"]
    assert {refusal.field for refusal in refusals} == {"spec.domain"}
    assert all("'team'" in str(refusal) for refusal in refusals)
    assert target_of(settings).names.host == f"my-app.{BASE_DOMAIN}"


@pytest.mark.parametrize(
    ("lists", "is_allowed"),
    [('{"*": ["*.example.org"]}', True), ('{"other": ["*.example.org"]}', False), ("{}", False)],
    ids=["any-other", "not-listed", "nobody"],
)
def test_a_namespace_without_a_list_of_its_own_has_that_of_any_other(lists: str, is_allowed: bool) -> None:
    settings = settings_of(DOMAINS_BY_NAMESPACE=lists)

    if is_allowed:
        assert target_of(settings, domain="shop.example.org").names.host == "shop.example.org"
    else:
        with pytest.raises(InvalidSpec):
            target_of(settings, domain="shop.example.org")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RESERVED_HOSTS", "https://a.test"),
        ("RESERVED_HOSTS", "A.test"),
        ("RESERVED_HOSTS", "a.*.test"),
        ("DOMAINS_BY_NAMESPACE", "team=a.test"),
        ("DOMAINS_BY_NAMESPACE", '{"team": "a.test"}'),
        ("DOMAINS_BY_NAMESPACE", '{"team": ["a_b.test"]}'),
    ],
)
def test_a_list_that_says_nothing_stops_the_start_by_its_name(name: str, value: str) -> None:
    with pytest.raises(MissingSetting) as refusal:
        settings_of(**{name: value})

    assert f"setting {name}:" in str(refusal.value)


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        ("a.test", ("a.test",)),
        ("a.test:80", ("a.test",)),
        ("rediss://a.test/0", ("a.test",)),
        ("postgresql://u:p%40x@a.test:1,b.test:2/db?sslmode=require&host=c.test", ("a.test", "b.test", "c.test")),
        ("postgresql:///db?host=/run/postgres,a.test", ("/run/postgres", "a.test")),
    ],
)
def test_hosts_of_an_address(address: str, hosts: tuple[str, ...]) -> None:
    assert hosts_in(address) == hosts


def test_reserved_labels_are_labels() -> None:
    assert all(label == label.lower() and "." not in label for label in RESERVED_LABELS)
