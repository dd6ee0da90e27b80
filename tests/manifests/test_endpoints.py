"""What applications are told about Redis and OpenSearch."""

import pytest

from plattr.endpoints import redis_values, search_values
from plattr.errors import MissingSetting
from plattr.settings import Settings
from tests.manifests.targets import application


def settings(**values: str) -> Settings:
    required = {
        "DB_ADMIN_URL": "postgresql://a:b@localhost/plattr",
        "DB_HOST": "localhost",
        "BASE_DOMAIN": "platform.test",
        "KEYCLOAK_URL": "http://localhost:8080",
        "KEYCLOAK_CLIENT_ID": "plattr",
        "KEYCLOAK_CLIENT_SECRET": "s",
    }
    return Settings.from_mapping(required | values)


@pytest.mark.parametrize(
    ("endpoint", "url", "host", "port"),
    [
        ("", "redis://redis.plattr-system.svc.cluster.local:6379", "redis.plattr-system.svc.cluster.local", "6379"),
        ("cache.test", "redis://cache.test:6379", "cache.test", "6379"),
        ("cache.test:6380", "redis://cache.test:6380", "cache.test", "6380"),
        ("rediss://cache.test", "rediss://cache.test:6379", "cache.test", "6379"),
        ("redis://cache.test:7000/2", "redis://cache.test:7000/2", "cache.test", "7000"),
        ("[fd00::1]:6380", "redis://[fd00::1]:6380", "fd00::1", "6380"),
    ],
    ids=["in-cluster", "host", "host and port", "tls", "database number", "ipv6"],
)
def test_redis_is_named_by_url_host_and_port(endpoint: str, url: str, host: str, port: str) -> None:
    values = redis_values(application(), settings(REDIS_ENDPOINT=endpoint))

    assert values == {"REDIS_URL": url, "REDIS_HOST": host, "REDIS_PORT": port, "REDIS_PREFIX": "prod_shop:"}


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("", "http://opensearch.plattr-system.svc.cluster.local:9200"),
        ("search.test:9201", "http://search.test:9201"),
        ("https://search.test", "https://search.test:443"),
        ("https://search.test/logs/", "https://search.test:443/logs"),
    ],
    ids=["in-cluster", "host and port", "https", "path"],
)
def test_opensearch_is_named_by_url_and_the_applications_own_prefix(endpoint: str, url: str) -> None:
    values = search_values(application(), settings(OPENSEARCH_ENDPOINT=endpoint))

    assert values == {"OPENSEARCH_URL": url, "OPENSEARCH_INDEX_PREFIX": "prod_shop"}


@pytest.mark.parametrize(
    "endpoint",
    [
        "redis://:hunter2@cache.test",
        "redis://cache.test?password=hunter2",
        "http://hunter2.test",
        "cache.test:hunter2",
        "redis://",
    ],
    ids=["password", "parameter", "another scheme", "bad port", "no host"],
)
def test_a_bad_redis_endpoint_is_refused_without_being_quoted(endpoint: str) -> None:
    with pytest.raises(MissingSetting) as refusal:
        redis_values(application(), settings(REDIS_ENDPOINT=endpoint))

    assert "REDIS_ENDPOINT" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
