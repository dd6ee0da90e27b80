"""The environment that the chart gives its processes is one that they start with."""

from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from temporalio.envconfig import ClientConfig

from plattr.errors import MissingSetting
from plattr.settings import Settings, WatcherSettings
from tests.deploy.helm import CHART, EXAMPLES, LEAST, PROCESSES, Helm, Json, environment_of, merged

NAMESPACE = "plattr-system"
# What stands in the Secrets; of another shape than a word only where a parser looks into it.
KEPT = {
    "DB_ADMIN_URL": "postgresql://plattr:kept@db:5432/plattr",
    "REDIS_ADMIN_URL": "redis://plattr:kept@redis:6379",
}
TLS_FIELDS = {
    "TEMPORAL_TLS_CLIENT_CERT_DATA": "client_cert",
    "TEMPORAL_TLS_CLIENT_KEY_DATA": "client_private_key",
    "TEMPORAL_TLS_SERVER_CA_CERT_DATA": "server_root_ca_cert",
}
# What a rendered value can go wrong in: numbers, booleans, files of a certificate, all that is optional.
FULL: Json = {
    "settings": {
        "DB_PORT": 5433,
        "DB_POOL_SIZE": 7,
        "RESYNC_INTERVAL_MINUTES": 60,
        "REFERENCES_INTERVAL_SECONDS": 30,
        "PLACEHOLDER_PORT": 8081,
        "LOG_LEVEL": "DEBUG",
        "INGRESS_PROFILE": "traefik",
        "TEMPORAL_NAMESPACE": "plattr",
        "TEMPORAL_TLS": True,
        "TEMPORAL_TLS_SERVER_NAME": "temporal.example.test",
    },
    "secrets": {
        name: {"name": "kept", "key": name}
        for name in (
            *("TEMPORAL_API_KEY", "TEMPORAL_TLS_CLIENT_CERT_DATA", "TEMPORAL_TLS_CLIENT_KEY_DATA"),
            *("TEMPORAL_TLS_SERVER_CA_CERT_DATA", "IDP_GOOGLE_CLIENT_SECRET"),
        )
    },
}
VALUES: dict[str, Json] = {path.stem: yaml.safe_load(path.read_text()) for path in EXAMPLES} | {
    "least": LEAST,
    "full": merged(LEAST, FULL),
}


@dataclass(frozen=True)
class Rendered:
    """Values, and what helm makes of them and nothing else."""

    values: Json
    objects: list[Json]


@pytest.fixture(scope="module", params=VALUES)
def rendered(request: pytest.FixtureRequest, helm: Helm) -> Rendered:
    values = VALUES[request.param]
    text = helm.call("template", "plattr", CHART, "-n", NAMESPACE, values=values)
    return Rendered(values, [each for each in yaml.safe_load_all(text) if each])


def variables(objects: list[Json], process: str) -> dict[str, str]:
    """Return what the kubelet would make of a container's `env`."""
    return {name: _value(name, variable) for name, variable in environment_of(objects, process).items()}


def _value(name: str, variable: Json) -> str:
    if "value" in variable:
        assert isinstance(variable["value"], str), name
        return str(variable["value"])
    (source,) = variable["valueFrom"]
    if source == "fieldRef":
        assert variable["valueFrom"][source]["fieldPath"] == "metadata.namespace"
        return NAMESPACE
    assert source == "secretKeyRef"
    return KEPT.get(name, f"kept-{name}")


def given(values: Json) -> dict[str, Any]:
    """Return the plain settings, without empty ones: those count as not set."""
    return {name: value for name, value in values.get("settings", {}).items() if value != ""}


def test_the_worker_takes_its_environment(rendered: Rendered) -> None:
    settings = Settings.from_mapping(variables(rendered.objects, "worker"))

    assert settings.lease_namespace == NAMESPACE
    for name, value in given(rendered.values).items():
        if name.lower() in Settings.model_fields:
            assert getattr(settings, name.lower()) == value, name
    for name in rendered.values.get("secrets", {}):
        if name.lower() in Settings.model_fields:
            assert getattr(settings, name.lower()) == SecretStr(KEPT.get(name, f"kept-{name}")), name


def test_the_worker_takes_lists_as_they_were_given(helm: Helm) -> None:
    lists: Json = {
        "RESERVED_HOSTS": "wiki.example.test, *.corp.test",
        "DOMAINS_BY_NAMESPACE": {"team": ["shop.example.test", "*.shop.example.test"], "*": []},
        "PREVIEW_QUOTA": {"pods": 4},
        "PREVIEW_LIMIT_RANGE": [{"type": "Pod", "max": {"cpu": "1"}}],
        "PREVIEW_NETWORK_POLICY": {"egress": []},
        "PREVIEW_NAMESPACE_LABELS": {"istio-injection": "enabled"},
    }

    settings = Settings.from_mapping(variables(helm.render(merged(LEAST, {"settings": lists})), "worker"))

    assert settings.reserved_hosts == ("wiki.example.test", "*.corp.test")
    assert settings.domains_by_namespace == {"team": ("shop.example.test", "*.shop.example.test"), "*": ()}
    assert settings.preview_quota is not None
    assert settings.preview_quota["pods"] == "4"
    assert settings.preview_limit_range == lists["PREVIEW_LIMIT_RANGE"]
    assert settings.preview_network_policy is not None
    assert settings.preview_network_policy["egress"] == []
    assert settings.preview_namespace_labels == {"istio-injection": "enabled"}


def test_previews_are_bounded_unless_the_values_say_otherwise(helm: Helm) -> None:
    names = ("PREVIEW_QUOTA", "PREVIEW_LIMIT_RANGE", "PREVIEW_NETWORK_POLICY", "PREVIEWS_PER_NAMESPACE")
    usual = Settings.from_mapping(variables(helm.render(LEAST), "worker"))
    values = {**LEAST, "settings": {**LEAST["settings"], **dict.fromkeys(names)}}

    # Not helm.render: it takes what is None out of the values before helm sees it.
    text = helm.run("template", "plattr", CHART, "--namespace", NAMESPACE, values=values).stdout
    unbounded = Settings.from_mapping(variables([each for each in yaml.safe_load_all(text) if each], "worker"))

    assert [getattr(usual, name.lower()) is None for name in names] == [False] * 4
    assert [getattr(unbounded, name.lower()) for name in names] == [None] * 4


def test_the_watcher_takes_its_environment(rendered: Rendered) -> None:
    settings = WatcherSettings.from_mapping(variables(rendered.objects, "watcher"))

    assert settings.leader_election
    assert settings.lease_namespace == NAMESPACE
    assert settings.log_level == rendered.values["settings"].get("LOG_LEVEL", "INFO")


@pytest.mark.parametrize("process", PROCESSES)
def test_temporals_client_takes_it(rendered: Rendered, process: str) -> None:
    connection = ClientConfig.load_client_connect_config(
        override_env_vars=variables(rendered.objects, process), disable_file=True
    )
    settings, kept = rendered.values["settings"], rendered.values.get("secrets", {})

    assert connection["target_host"] == settings["TEMPORAL_ADDRESS"]
    assert connection.get("namespace", "default") == settings.get("TEMPORAL_NAMESPACE", "default")
    assert connection.get("api_key") == ("kept-TEMPORAL_API_KEY" if "TEMPORAL_API_KEY" in kept else None)
    tls = connection.get("tls")
    if not any(name.startswith(("TEMPORAL_TLS", "TEMPORAL_API_KEY")) for name in settings | kept):
        assert not tls
        return
    assert tls
    parts = {} if tls is True else vars(tls)
    for name, field in TLS_FIELDS.items():
        assert parts.get(field) == (f"kept-{name}".encode() if name in kept else None), name
    assert parts.get("domain") == settings.get("TEMPORAL_TLS_SERVER_NAME")


def test_an_environment_that_does_not_do_is_refused(rendered: Rendered) -> None:
    environment = variables(rendered.objects, "worker")

    with pytest.raises(MissingSetting, match="BASE_DOMAIN"):
        Settings.from_mapping(environment | {"BASE_DOMAIN": ""})
