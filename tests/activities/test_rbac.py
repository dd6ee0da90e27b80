"""What worker and watcher may do; that it is enough is shown by every other test, which runs under these rights."""

from pathlib import Path

import pytest
import yaml

from clients.kube import KubeClient
from clients.resources import (
    APPLICATIONS,
    CONFIG_MAPS,
    EVENTS,
    LEASES,
    NAMESPACES,
    PODS,
    PREVIEWS,
    SECRETS,
    Json,
    Resource,
)
from plattr.errors import BackendRefused
from tests.fix_kubernetes import Cluster, config_map, random_name

RBAC = Path(__file__).parents[2] / "deploy" / "rbac"
ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)


def documents() -> list[Json]:
    return [document for path in sorted(RBAC.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text())]


def test_no_rule_holds_a_wildcard() -> None:
    rules = [rule for document in documents() for rule in document.get("rules", [])]

    assert rules
    assert not [rule for rule in rules if any("*" in text for values in rule.values() for text in values)]


def test_nobody_may_change_rights_or_act_as_another() -> None:
    verbs = {verb for document in documents() for rule in document.get("rules", []) for verb in rule["verbs"]}
    groups = {group for document in documents() for rule in document.get("rules", []) for group in rule["apiGroups"]}

    assert verbs <= {"get", "list", "watch", "create", "update", "patch", "delete"}
    assert "rbac.authorization.k8s.io" not in groups


@pytest.mark.parametrize(
    "resource",
    [pytest.param(LEASES, id="leases-of-other-namespaces"), pytest.param(ROLES, id="roles")],
)
async def test_the_worker_reads_nothing_that_is_not_its_own(
    cluster: Cluster, namespace: str, resource: Resource
) -> None:
    with pytest.raises(BackendRefused):
        await cluster.kube.list(resource, namespace)


async def test_the_worker_deletes_no_pods(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(BackendRefused):
        await cluster.kube.delete(PODS, "any", namespace)


@pytest.mark.parametrize(
    "resource",
    [SECRETS, CONFIG_MAPS, NAMESPACES, EVENTS],
    ids=["secrets", "config-maps", "namespaces", "events"],
)
async def test_the_watcher_reads_nothing_but_what_it_watches(
    watcher_kube: KubeClient, namespace: str, resource: Resource
) -> None:
    with pytest.raises(BackendRefused):
        await watcher_kube.list(resource, namespace)


async def test_the_watcher_lists_and_watches_both_kinds_of_every_namespace(watcher_kube: KubeClient) -> None:
    for resource in (APPLICATIONS, PREVIEWS):
        listing = await watcher_kube.snapshot(resource)
        async for event in watcher_kube.watch(resource, listing.resource_version, timeout_seconds=1):
            assert event["type"] in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")


async def test_the_watcher_changes_no_object_and_no_claim(
    cluster: Cluster, watcher_kube: KubeClient, namespace: str
) -> None:
    application = await cluster.apply(namespace, random_name())
    lease_namespace = cluster.settings.lease_namespace

    with pytest.raises(BackendRefused):
        await watcher_kube.delete(APPLICATIONS, application.metadata.name, namespace)
    with pytest.raises(BackendRefused):
        await watcher_kube.get(LEASES, "somebodys-claim", lease_namespace)
    with pytest.raises(BackendRefused):
        await watcher_kube.create(CONFIG_MAPS, config_map("any"), namespace)
