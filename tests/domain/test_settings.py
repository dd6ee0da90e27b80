"""Settings: a missing or bad one stops the start with one line that names it, and no secret is ever shown."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from plattr.errors import MissingSetting
from plattr.settings import Settings, WatcherSettings
from plattr.spec import Provider

LEAST = {
    "DB_ADMIN_URL": "postgresql://admin:hunter2@db/plattr",
    "DB_HOST": "db",
    "BASE_DOMAIN": "platform.example.com",
    "KEYCLOAK_URL": "https://keycloak.example.com",
    "KEYCLOAK_CLIENT_ID": "plattr",
    "KEYCLOAK_CLIENT_SECRET": "hunter2",
}
DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def _without(*names: str) -> dict[str, str]:
    return {name: value for name, value in LEAST.items() if name not in names}


def test_least_settings_suffice() -> None:
    settings = Settings.from_mapping(LEAST)

    assert (settings.db_host, settings.db_port, settings.issuer_base) == (
        "db",
        5432,
        "https://auth.platform.example.com",
    )


def test_watcher_needs_none_and_is_given_no_credentials() -> None:
    settings = WatcherSettings.from_mapping(LEAST)

    assert "hunter2" not in repr(settings.__dict__)
    assert not hasattr(settings, "db_admin_url")


@pytest.mark.parametrize("name", ["DB_HOST", "BASE_DOMAIN", "KEYCLOAK_URL", "DB_ADMIN_URL", "KEYCLOAK_CLIENT_SECRET"])
@pytest.mark.parametrize("value", [None, ""], ids=["absent", "empty"])
def test_missing_setting_names_itself_in_one_line(name: str, value: str | None) -> None:
    mapping = _without(name) | ({name: value} if value is not None else {})

    with pytest.raises(MissingSetting) as refusal:
        Settings.from_mapping(mapping)

    assert re.fullmatch(rf"cannot start: setting .*{name}.*; see docs/settings\.md", str(refusal.value))
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_PORT", "hunter2"),
        ("DB_PORT", "0"),
        ("DB_PORT", "65536"),
        ("DB_POOL_SIZE", "0"),
        ("BASE_DOMAIN", "Platform.Example.com"),
        ("BASE_DOMAIN", "https://example.com"),
        ("BASE_DOMAIN", "10.0.0.1"),
        ("KEYCLOAK_URL", "keycloak:8080"),
        ("KEYCLOAK_URL", "https://admin:hunter2@keycloak"),
        ("AUTH_URL", "http://[hunter2"),
        ("AWS_ENDPOINT_URL", "minio:9000"),
        ("S3_PUBLIC_ENDPOINT", "s3"),
        ("INGRESS_PROFILE", "haproxy"),
        ("LEADER_ELECTION", "perhaps"),
        ("LOG_LEVEL", "verbose"),
        ("METRICS_PORT", "-1"),
        ("RESYNC_INTERVAL_MINUTES", "0"),
    ],
    ids=lambda text: text,
)
def test_bad_setting_names_itself_and_not_its_value(name: str, value: str) -> None:
    with pytest.raises(MissingSetting) as refusal:
        Settings.from_mapping({**LEAST, name: value})

    assert str(refusal.value).startswith(f"cannot start: setting {name}: ")
    assert "\n" not in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("add", "without"),
    [
        ({"DB_SECRET_ARN": "arn:aws:secretsmanager:eu-west-1:1:secret:db"}, ["DB_ADMIN_URL"]),
        (
            {"KEYCLOAK_ADMIN_USER": "admin", "KEYCLOAK_ADMIN_PASSWORD": "hunter2"},
            ["KEYCLOAK_CLIENT_ID", "KEYCLOAK_CLIENT_SECRET"],
        ),
    ],
    ids=["secrets-manager", "keycloak-admin"],
)
def test_either_way_of_signing_in_suffices(add: dict[str, str], without: list[str]) -> None:
    assert Settings.from_mapping(_without(*without) | add).db_host == "db"


def test_secrets_are_not_in_the_settings_representation() -> None:
    # One of them is looked at, and has to be an address.
    secrets = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]
    # Two of them are looked at, and have to be addresses.
    addresses = {"redis_admin_url": "redis://hunter2@cache", "opensearch_admin_url": "http://hunter2@search"}
    names = {name.upper(): addresses.get(name, "hunter2") for name in secrets}

    settings = Settings.from_mapping({**LEAST, **names})

    assert len(secrets) >= 7
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_every_setting_that_sounds_like_a_secret_is_one() -> None:
    suspicious = re.compile(r"password|_secret$|admin_url")

    exposed = [
        name
        for name, field in Settings.model_fields.items()
        if suspicious.search(name) and "SecretStr" not in str(field.annotation)
    ]

    assert exposed == []


def test_settings_cannot_be_changed() -> None:
    settings = Settings.from_mapping(LEAST)

    with pytest.raises(ValidationError, match="frozen"):
        settings.db_host = "other"  # type: ignore[misc]


def test_process_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_HOST", "environment")

    assert Settings.from_mapping(LEAST).db_host == "db"


def test_unknown_variables_are_ignored() -> None:
    assert Settings.from_mapping({**LEAST, "HOME": "/root", "TEMPORAL_ADDRESS": "t:7233"}).db_host == "db"


def test_public_address_of_keycloak_is_the_issuers() -> None:
    settings = Settings.from_mapping({**LEAST, "AUTH_URL": "https://login.example.org/"})

    assert settings.issuer_base == "https://login.example.org"


@pytest.mark.attack
@pytest.mark.parametrize(
    "template",
    [
        "arn:aws:iam::123456789012:role/applications",
        "arn:aws:iam::123456789012:role/{namespace}",
        "arn:aws:iam::123456789012:role/x/{name}",
        "arn:aws:iam::123456789012:role/{namespace}-{name}",
        "arn:aws:iam::123456789012:role/{namespace}{name}/x",
        "arn:aws:iam::123456789012:role/{namespace}/{name}/{name}",
        "arn:aws:iam::123456789012:role/{namespace}/{name.__class__}",
        "{namespace}/{name}",
    ],
)
def test_one_role_for_several_applications_stops_the_start(template: str) -> None:
    with pytest.raises(MissingSetting) as refusal:
        Settings.from_mapping({**LEAST, "IRSA_ROLE_ARN_TEMPLATE": template})

    assert "setting IRSA_ROLE_ARN_TEMPLATE:" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PREVIEW_QUOTA", "pods=2"),
        ("PREVIEW_QUOTA", "[]"),
        ("PREVIEW_LIMIT_RANGE", '{"type": "Pod"}'),
        ("PREVIEW_NETWORK_POLICY", '{"podSelector": {}}'),
        ("PREVIEW_NETWORK_POLICY", '{"ingress": {}}'),
        ("PREVIEW_NAMESPACE_LABELS", '{"pod-security.kubernetes.io/enforce": "privileged"}'),
        ("PREVIEW_NAMESPACE_LABELS", '{"pod-security.kubernetes.io/warn": "baseline"}'),
        ("PREVIEW_NAMESPACE_LABELS", '{"platform.internal/type": "other"}'),
        ("PREVIEW_NAMESPACE_LABELS", '{"kubernetes.io/metadata.name": "other"}'),
        ("PREVIEW_NAMESPACE_LABELS", '{"app.kubernetes.io/managed-by": "other"}'),
        ("PREVIEW_NAMESPACE_LABELS", '{"mesh": "not a label"}'),
        ("PREVIEW_NAMESPACE_ANNOTATIONS", '{"platform.internal/owner": "other/Application/shop"}'),
        ("PREVIEW_NAMESPACE_ANNOTATIONS", '{"not a key": ""}'),
        ("PREVIEWS_PER_NAMESPACE", "0"),
    ],
)
def test_bounds_of_previews_that_say_nothing_stop_the_start_by_their_name(name: str, value: str) -> None:
    with pytest.raises(MissingSetting) as refusal:
        Settings.from_mapping({**LEAST, name: value})

    assert f"setting {name}:" in str(refusal.value)


@pytest.mark.parametrize("role", ["plattr/{namespace}/{name}", "{name}.{namespace}", "p-{namespace}_x-{name}-y"])
def test_a_role_of_each_applications_own_is_taken(role: str) -> None:
    template = f"arn:aws-us-gov:iam::123456789012:role/{role}"

    assert Settings.from_mapping({**LEAST, "IRSA_ROLE_ARN_TEMPLATE": template}).irsa_role_arn_template == template


@pytest.mark.parametrize(
    ("provider", "given", "expected"),
    [
        (Provider.GOOGLE, {"CLIENT_ID": "id", "CLIENT_SECRET": "hunter2"}, ("id", "hunter2", "")),
        (Provider.GITHUB, {"CLIENT_ID": "id", "CLIENT_SECRET": "hunter2"}, ("id", "hunter2", "")),
        (Provider.GOOGLE, {"CLIENT_ID": "id"}, None),
        (Provider.GITHUB, {"CLIENT_SECRET": "hunter2"}, None),
        (
            Provider.OIDC,
            {"CLIENT_ID": "id", "CLIENT_SECRET": "hunter2", "ISSUER_URL": "https://i"},
            ("id", "hunter2", "https://i"),
        ),
        (Provider.OIDC, {"CLIENT_ID": "id", "CLIENT_SECRET": "hunter2"}, None),
        (Provider.SAML, {"ISSUER_URL": "https://i"}, ("", "", "https://i")),
        (Provider.SAML, {"CLIENT_ID": "id", "ISSUER_URL": "https://i"}, ("id", "", "https://i")),
        (Provider.SAML, {"CLIENT_ID": "id"}, None),
        *((provider, {}, None) for provider in Provider),
    ],
)
def test_provider_credentials_are_whole_or_missing(
    provider: Provider, given: dict[str, str], expected: tuple[str, str, str] | None
) -> None:
    settings = Settings.from_mapping(LEAST | {f"IDP_{provider.upper()}_{name}": text for name, text in given.items()})

    found = settings.provider_credentials(provider)

    assert (found and (found.client_id, found.client_secret.get_secret_value(), found.issuer_url)) == expected


def test_document_lists_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| ([^|]+) \| ([^|]+) \|$", DOCUMENT.read_text(), re.MULTILINE)

    documented = {name: default.strip() for name, default, meaning in rows if meaning.strip()}

    expected = {name.upper(): _default(name) for name in Settings.model_fields}
    assert {name: documented.get(name) for name in expected} == expected


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if field.is_required():
        return "required"
    if field.default in (None, "", ()) or isinstance(field.default, SecretStr):
        return "none"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def test_document_lists_no_setting_that_does_not_exist() -> None:
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \|", DOCUMENT.read_text(), re.MULTILINE)

    # Read by the libraries themselves: kubernetes, boto3, temporalio.envconfig, OpenTelemetry.
    foreign = re.compile(
        r"KUBECONFIG|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|ROLE_ARN|WEB_IDENTITY_TOKEN_FILE)|(TEMPORAL|OTEL)_.*"
    )
    own = [name for name in rows if not foreign.fullmatch(name)]

    assert sorted(own) == sorted(
        name for field in Settings.model_fields if not foreign.fullmatch(name := field.upper())
    )
