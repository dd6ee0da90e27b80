"""values.schema.json and plattr/settings.py say the same, and a bad value is refused by its name."""

import json
import re
from typing import Any, get_args

import pytest
import yaml
from pydantic import SecretStr

from plattr.settings import DOMAIN_PATTERN, URL_PATTERN, Settings
from plattr.steps import TASK_QUEUE
from stack.services.temporal import DYNAMIC_CONFIG
from tests.deploy.helm import CHART, LEAST, ROOT, Helm, Json, merged, only
from worker.__main__ import GRACE

SCHEMA: Json = json.loads((CHART / "values.schema.json").read_text())
PLAIN: Json = SCHEMA["properties"]["settings"]["properties"]
SECRET: Json = SCHEMA["properties"]["secrets"]["properties"]
# Neither is of use without the other.
PAIRS = [
    ("TEMPORAL_TLS_CLIENT_CERT_DATA", "TEMPORAL_TLS_CLIENT_KEY_DATA"),
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
]
# The chart's own affair.
GIVEN_BY_THE_CHART = {"LEADER_ELECTION", "LEASE_NAMESPACE", "METRICS_PORT", "METRICS_HOST"}


def _is_secret(name: str) -> bool:
    annotation = Settings.model_fields[name].annotation
    return SecretStr in (annotation, *get_args(annotation))


def test_every_setting_can_be_given() -> None:
    for name in Settings.model_fields:
        variable = name.upper()
        if variable in GIVEN_BY_THE_CHART:
            assert variable not in PLAIN
        else:
            assert variable in (SECRET if _is_secret(name) else PLAIN), variable


def test_every_documented_variable_can_be_given() -> None:
    documented = re.findall(r"^\| `([A-Z0-9_]+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    # Of a process outside a cluster; files where the chart has _DATA; one value only; a name for each process.
    elsewhere = {"KUBECONFIG", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_SERVICE_NAME"}

    missing = set(documented) - PLAIN.keys() - SECRET.keys() - GIVEN_BY_THE_CHART - elsewhere
    assert not [name for name in missing if name.replace("_PATH", "_DATA") not in SECRET]


def test_what_can_be_given_is_documented() -> None:
    documented = re.findall(r"^\| `([A-Z0-9_]+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)

    assert not (PLAIN.keys() | SECRET.keys()) - set(documented)


def test_no_secret_can_be_given_in_clear() -> None:
    assert not [name for name in PLAIN if name.lower() in Settings.model_fields and _is_secret(name.lower())]
    assert not [name for name in PLAIN if re.search(r"PASSWORD|_SECRET$|_KEY$|_DATA$", name)]


def test_what_the_schema_knows_exists() -> None:
    libraries = re.compile(
        r"TEMPORAL_(ADDRESS|NAMESPACE|API_KEY|TLS|TLS_[A-Z_]+)|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY)|OTEL_[A-Z_]+"
    )

    assert not [
        name for name in PLAIN | SECRET if name.lower() not in Settings.model_fields and not libraries.fullmatch(name)
    ]


@pytest.mark.parametrize("name", sorted(PLAIN.keys() & {name.upper() for name in Settings.model_fields}))
def test_the_limits_are_those_of_the_settings(name: str) -> None:
    field = Settings.model_fields[name.lower()]
    rule = PLAIN[name]
    limits: dict[str, Any] = {}
    for bound in field.metadata:
        limits |= {"minimum": bound.ge} if hasattr(bound, "ge") else {}
        limits |= {"maximum": bound.le} if hasattr(bound, "le") else {}

    assert {key: rule[key] for key in ("minimum", "maximum") if key in rule} == limits
    if field.annotation is not None and (choices := get_args(field.annotation)) and isinstance(choices[0], str):
        assert rule["enum"] == list(choices)


def test_the_patterns_are_those_of_the_settings() -> None:
    urls = {name for name, rule in PLAIN.items() if rule.get("pattern") == URL_PATTERN}

    assert PLAIN["BASE_DOMAIN"]["pattern"] == DOMAIN_PATTERN
    assert urls >= {"KEYCLOAK_URL", "AUTH_URL", "AWS_ENDPOINT_URL", "S3_PUBLIC_ENDPOINT"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        pytest.param({"settings": {"BASE_DOMAIN": None}}, "BASE_DOMAIN", id="missing"),
        pytest.param({"settings": {"DB_PORT": 65536}}, "DB_PORT", id="range"),
        pytest.param({"settings": {"DB_PORT": "5432"}}, "DB_PORT", id="type"),
        pytest.param({"settings": {"BASE_DOMAIN": "Platform.Example"}}, "BASE_DOMAIN", id="domain"),
        pytest.param({"settings": {"KEYCLOAK_URL": "https://a:b@keycloak"}}, "KEYCLOAK_URL", id="url"),
        pytest.param({"settings": {"TEMPORAL_ADDRESS": "https://temporal:7233"}}, "TEMPORAL_ADDRESS", id="address"),
        pytest.param({"settings": {"INGRESS_PROFILE": "haproxy"}}, "INGRESS_PROFILE", id="choice"),
        pytest.param({"settings": {"BASE_DOMIAN": "a.b"}}, "BASE_DOMIAN", id="misspelt"),
        pytest.param({"settings": {"KEYCLOAK_CLIENT_SECRET": "hunter2"}}, "KEYCLOAK_CLIENT_SECRET", id="in-clear"),
        pytest.param({"settings": {"LEASE_NAMESPACE": "other"}}, "LEASE_NAMESPACE", id="the-charts-own"),
        pytest.param(
            {"secrets": {"DB_ADMIN_URL": "postgresql://a:hunter2@b/c"}}, "DB_ADMIN_URL", id="value-for-secret"
        ),
        pytest.param({"secrets": {"DB_ADMIN_URL": {"key": None}}}, "DB_ADMIN_URL", id="secret-without-key"),
        pytest.param({"secrets": {"DB_ADMIN_URL": None}}, "DB_ADMIN_URL", id="no-database-login"),
        pytest.param({"secrets": {"KEYCLOAK_CLIENT_SECRET": None}}, "KEYCLOAK_CLIENT_ID", id="no-keycloak-login"),
        pytest.param(
            {"secrets": {"KEYCLOAK_CLIENT_ID": {"name": "a", "key": "b"}}}, "KEYCLOAK_CLIENT_ID", id="given-twice"
        ),
        pytest.param({"image": {"repository": ""}}, "repository", id="no-image"),
        pytest.param({"image": {"digest": "latest"}}, "digest", id="digest"),
        pytest.param({"worker": {"replicas": 0}}, "replicas", id="no-worker"),
        pytest.param(
            # 25 s of grace, and 10 for the last results.
            {"worker": {"terminationGracePeriodSeconds": GRACE.seconds + 9}},
            "terminationGracePeriod",
            id="too-short-an-end",
        ),
        *(
            pytest.param({"secrets": {given: {"name": "a", "key": "b"}}}, missing, id=f"without-{missing}")
            for pair in PAIRS
            for given, missing in (pair, pair[::-1])
        ),
        pytest.param(
            {"watcher": {"serviceAccount": {"create": False}}},
            "watcher.serviceAccount.name",
            id="an-account-without-a-name",
        ),
        pytest.param(
            {"metrics": {"prometheusRule": {"enabled": True}}},
            "metrics.prometheusRule.enabled",
            id="alerts-on-what-nobody-scrapes",
        ),
        pytest.param(
            {"worker": {"replicas": 7}, "keda": {"enabled": True}}, "keda.maxReplicas", id="more-workers-than-the-most"
        ),
        pytest.param({"keda": {"scaleDownAfterSeconds": 3601}}, "scaleDownAfterSeconds", id="longer-than-an-hpa-waits"),
        pytest.param({"worker": {"replica": 3}}, "replica", id="misspelt-elsewhere"),
        pytest.param({"metrics": {"port": 80}}, "port", id="port-of-root"),
    ],
)
def test_a_bad_value_is_refused_by_name(helm: Helm, changes: Json, named: str) -> None:
    words = helm.refusal(changes)

    assert named in words
    assert "hunter2" not in words


SECRET_REFERENCE = {"name": "temporal", "key": "any"}
CLIENT_CERTIFICATE = {
    "TEMPORAL_TLS_CLIENT_CERT_DATA": SECRET_REFERENCE,
    "TEMPORAL_TLS_CLIENT_KEY_DATA": SECRET_REFERENCE,
}


@pytest.mark.parametrize(
    ("settings", "secrets", "named"),
    [
        pytest.param({"TEMPORAL_TLS": True}, {}, "TEMPORAL_TLS_CLIENT_CERT_DATA", id="tls-alone"),
        pytest.param({"TEMPORAL_TLS": "true"}, {}, "TEMPORAL_TLS_CLIENT_CERT_DATA", id="tls-alone-as-a-word"),
        pytest.param(
            {}, {"TEMPORAL_TLS_SERVER_CA_CERT_DATA": SECRET_REFERENCE}, "TEMPORAL_TLS_CLIENT_CERT_DATA", id="ca-alone"
        ),
        pytest.param(
            {"TEMPORAL_TLS_SERVER_NAME": "temporal"}, {}, "TEMPORAL_TLS_CLIENT_CERT_DATA", id="server-name-alone"
        ),
        pytest.param(
            {},
            {"TEMPORAL_API_KEY": SECRET_REFERENCE, "TEMPORAL_TLS_SERVER_CA_CERT_DATA": SECRET_REFERENCE},
            "TEMPORAL_TLS_SERVER_CA_CERT_DATA",
            id="key-and-private-ca",
        ),
        pytest.param(
            {"TEMPORAL_TLS": False}, {"TEMPORAL_API_KEY": SECRET_REFERENCE}, "TEMPORAL_TLS", id="key-without-tls"
        ),
    ],
)
def test_keda_is_not_let_loose_on_a_temporal_it_cannot_reach(
    helm: Helm, settings: Json, secrets: Json, named: str
) -> None:
    words = helm.refusal({"settings": settings, "secrets": secrets, "keda": {"enabled": True}})

    assert "keda.enabled" in words
    assert named in words
    # The worker itself can.
    assert helm.render({"settings": settings, "secrets": secrets})


@pytest.mark.parametrize(
    ("settings", "secrets"),
    [
        pytest.param({}, {}, id="plain"),
        pytest.param({"TEMPORAL_TLS": True}, {"TEMPORAL_API_KEY": SECRET_REFERENCE}, id="key"),
        pytest.param(
            {"TEMPORAL_TLS": True, "TEMPORAL_TLS_SERVER_NAME": "temporal"},
            {"TEMPORAL_TLS_SERVER_CA_CERT_DATA": SECRET_REFERENCE, **CLIENT_CERTIFICATE},
            id="certificate-and-private-ca",
        ),
    ],
)
def test_keda_gets_what_it_can_use(helm: Helm, settings: Json, secrets: Json) -> None:
    assert helm.render({"settings": settings, "secrets": secrets, "keda": {"enabled": True}})


@pytest.mark.parametrize("monitoring", ["serviceMonitor", "prometheusRule"])
def test_alerts_come_with_whatever_scrapes(helm: Helm, monitoring: str) -> None:
    given = {"serviceMonitor": {"enabled": True}, "prometheusRule": {"scrapedOtherwise": True}}

    objects = helm.render({"metrics": merged({"prometheusRule": {"enabled": True}}, {monitoring: given[monitoring]})})

    assert only(objects, "PrometheusRule")


def test_a_release_name_is_as_long_as_the_longest_name_allows(helm: Helm) -> None:
    # With -plattr-watcher behind it: 63, and one more.
    objects = helm.render(release="r" * 48)
    refused = helm.run("template", "r" * 49, CHART, values=LEAST)

    assert only(objects, "Service", "watcher")
    assert refused.returncode != 0
    assert "release name" in refused.stderr


def test_either_way_of_signing_in_suffices(helm: Helm) -> None:
    arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:db"
    login = {"name": "keycloak", "key": "password"}

    objects = helm.render(
        {
            "settings": {"DB_SECRET_ARN": arn, "KEYCLOAK_ADMIN_USER": "admin", "KEYCLOAK_CLIENT_ID": None},
            "secrets": {"DB_ADMIN_URL": None, "KEYCLOAK_CLIENT_SECRET": None, "KEYCLOAK_ADMIN_PASSWORD": login},
        }
    )

    assert objects


def _dynamic_configuration() -> dict[str, Json]:
    entries = yaml.safe_load((ROOT / "deploy/temporal-dynamic-config.yaml").read_text())
    return {name: value for name, [value] in entries.items()}


def test_the_dynamic_configuration_to_copy_is_that_of_the_tests() -> None:
    told = {f"{name}={json.dumps(entry['value'])}" for name, entry in _dynamic_configuration().items()}

    # That the dev server does not ask for newer versions is nobody else's affair.
    assert told == {flag for flag in DYNAMIC_CONFIG if not flag.startswith("frontend.")}


def test_only_what_is_plattrs_is_changed_on_a_server_that_others_share() -> None:
    places = [entry["constraints"] for name, entry in _dynamic_configuration().items() if name.startswith("matching.")]

    assert places
    assert all(place == {"namespace": "plattr", "taskQueueName": TASK_QUEUE} for place in places)
