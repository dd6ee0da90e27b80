"""What the pods read at their start, and the checksum over it; the namespace of a preview."""

import base64
import hashlib
import json
from typing import Any

import pytest

from clients.resources import Json
from plattr.manifests.checksum import config_checksum
from plattr.manifests.config_map import build_config_map
from plattr.manifests.metadata import FEATURE_LABEL
from plattr.manifests.namespace import build_namespace
from plattr.manifests.secret import build_database_secret
from plattr.target import OWNER_ANNOTATION
from tests.manifests.targets import application, preview


def secret(name: str = "shop-db", version: str = "1", **values: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": "u", "resourceVersion": version}, "data": values}


def config_map(name: str = "shop-redis", **values: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": "u", "resourceVersion": "1"}, "data": values}


def test_the_database_secret_holds_the_values_encoded() -> None:
    manifest = build_database_secret(application(), {"DB_PASSWORD": "päss"})

    assert base64.b64decode(manifest["data"]["DB_PASSWORD"]).decode() == "päss"
    assert manifest["metadata"]["name"] == "shop-db"
    assert manifest["metadata"]["labels"][FEATURE_LABEL] == "database"
    assert manifest["metadata"]["annotations"][OWNER_ANNOTATION] == "team-a/Application/shop"


def test_a_config_map_is_named_and_labelled_for_its_feature() -> None:
    manifest = build_config_map(preview(), "storage", {"S3_REGION": "eu-central-1"})

    assert manifest["data"] == {"S3_REGION": "eu-central-1"}
    assert manifest["metadata"]["name"] == "shop-pr42-storage"
    assert manifest["metadata"]["namespace"] == "preview-shop-pr-42"
    assert manifest["metadata"]["labels"][FEATURE_LABEL] == "storage"


KEY = b"k" * 32


def test_the_checksum_does_not_depend_on_order() -> None:
    one = config_checksum([secret("a"), secret("b")], [config_map("c"), config_map("d")], KEY)
    other = config_checksum([secret("b"), secret("a")], [config_map("d"), config_map("c")], KEY)

    assert one == other


@pytest.mark.attack
def test_who_reads_the_checksum_cannot_try_the_few_values_that_a_secret_may_have() -> None:
    seen = config_checksum([secret(PIN="1234")], [], KEY)
    parts = {"secret/shop-db": [{"PIN": "1234"}, {}]}

    plain = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    tried = {config_checksum([secret(PIN=f"{pin:04}")], [], b"") for pin in range(10_000)}

    assert seen not in tried | {plain}


@pytest.mark.parametrize(
    "changed",
    [
        ([secret(PIN="9999")], [config_map()]),
        ([secret(PIN="1234")], [config_map(REDIS_URL="redis://other")]),
        ([], [config_map()]),
        ([secret(PIN="1234")], []),
        ([secret(PIN="1234")], [config_map("shop-search")]),
    ],
    ids=["secret's value", "config map's value", "secret gone", "config map gone", "another name"],
)
def test_the_checksum_changes_with_what_the_pods_read(changed: tuple[list[Json], list[Json]]) -> None:
    secrets, config_maps = changed

    assert config_checksum(secrets, config_maps, KEY) != config_checksum([secret(PIN="1234")], [config_map()], KEY)


def test_a_version_alone_does_not_change_the_checksum() -> None:
    marked, relabelled = secret(version="2", PIN="1234"), config_map(A="1")
    relabelled["metadata"]["resourceVersion"] = "2"

    one = config_checksum([marked], [relabelled], KEY)

    assert one == config_checksum([secret(PIN="1234")], [config_map(A="1")], KEY)


def test_a_previews_namespace_says_what_it_is_for_and_admits_restricted_pods_only() -> None:
    labels = build_namespace(preview())["metadata"]["labels"]

    assert labels["platform.internal/type"] == "preview"
    assert labels["platform.internal/app"] == "shop"
    assert labels["platform.internal/pr"] == "42"
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_an_application_gets_no_namespace() -> None:
    with pytest.raises(ValueError, match="only previews"):
        build_namespace(application())
