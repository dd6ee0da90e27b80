"""What applications make in a real OpenSearch, and what of it goes."""

import copy
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from activities.adoptables import marked_prefix
from activities.loading import TargetLoader
from activities.search import SearchActivities
from clients.claim_store import ClaimStore
from clients.opensearch import OpenSearchClient, is_below
from plattr.database import owner_record
from plattr.errors import BackendRefused, BackendUnavailable, OwnedElsewhere
from plattr.objects import CustomObject
from plattr.settings import Settings
from plattr.steps import ClaimInput
from stack.platform import Platform
from tests.fix_kubernetes import Cluster, application_spec, random_name
from tests.inputs import cleanup_of, step_of


class Search:
    """Applications that share one OpenSearch, and a person who may see all of it."""

    def __init__(self, cluster: Cluster, namespace: str, settings: Settings, url: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.settings = settings
        self.client = OpenSearchClient.connect(settings)
        self.http = httpx.AsyncClient(base_url=url, timeout=60, trust_env=False)
        self.activities = self.activities_with(self.client)

    def activities_with(self, client: OpenSearchClient | None, **options: Any) -> SearchActivities:
        cluster = self.cluster
        return SearchActivities(cluster.loader, cluster.kube, client, cluster.claim_store, self.settings, **options)

    def elsewhere(self) -> SearchActivities:
        """Return the activities of another cluster that has the very same objects, and claims of its own."""
        kube = copy.copy(self.cluster.kube)
        kube.cluster = "second"
        loader = TargetLoader(kube, self.settings)
        claim_store = ClaimStore(kube, self.settings.lease_namespace)
        return SearchActivities(loader, kube, self.client, claim_store, self.settings)

    async def application(self, name: str) -> CustomObject:
        spec = application_spec(search={"enabled": True})
        custom_object = await self.cluster.apply(self.namespace, name, spec)
        await self.cluster.claims.claim_object(ClaimInput(reference=custom_object.reference))
        await self.activities.reconcile_search(step_of(custom_object))
        return custom_object

    async def put(self, path: str, body: Any = None) -> None:
        (await self.http.put(path, json=body)).raise_for_status()

    async def indices(self) -> set[str]:
        answer = await self.http.get("/_cat/indices?format=json&h=index&expand_wildcards=all")
        return {index["index"] for index in answer.json()}


@pytest.fixture
async def search(
    opensearch_platform: Platform, cluster: Cluster, namespace: str, core_settings: Settings
) -> AsyncIterator[Search]:
    search = Search(cluster, namespace, core_settings, opensearch_platform.endpoints.opensearch_url)
    yield search
    await search.http.aclose()


@pytest.mark.attack
async def test_what_bears_a_prefix_goes_with_the_object_and_nothing_of_anothers(search: Search) -> None:
    name = random_name()
    first, prefix = await search.application(name), f"prod_{name}"
    # Their prefixes begin with the first's, or may be read as its.
    kept = {f"prod_{name}2-a", f"prod_{name}_b-a", f"other-{prefix}-a", f"{prefix}a"}
    for index in (*kept, prefix, f"{prefix}-products", f"{prefix}-closed"):
        await search.put(f"/{index}")
    await search.http.post(f"/{prefix}-closed/_close")
    await search.put(
        f"/_index_template/{prefix}-t", {"index_patterns": [f"{prefix}-logs*"], "priority": 9, "data_stream": {}}
    )
    await search.put(f"/_template/{prefix}-old", {"index_patterns": [f"{prefix}-old*"]})
    await search.put(f"/_component_template/{prefix}-part", {"template": {}})
    await search.put(f"/_data_stream/{prefix}-logs")
    await search.put(f"/other-{prefix}-a/_alias/{prefix}-alias")

    await search.activities.delete_search(cleanup_of(first))
    await search.activities.delete_search(cleanup_of(first))

    assert {index for index in await search.indices() if name in index} == kept
    for path in ("_index_template", "_template", "_component_template", "_alias"):
        answer = await search.http.get(f"/{path}/{prefix}*")
        assert answer.status_code == 404 or answer.json() == {}, path
    for index in kept:
        await search.http.delete(f"/{index}")


@pytest.mark.attack
async def test_a_second_cluster_neither_takes_over_nor_removes_what_bears_a_prefix(search: Search) -> None:
    name = random_name()
    # Refused, or never come to this step: the name is claimed all the same, in the cluster's own claim store.
    refused = await search.cluster.apply(search.namespace, name, application_spec(search={"enabled": True}))
    await search.cluster.claims.claim_object(ClaimInput(reference=refused.reference))
    await search.elsewhere().reconcile_search(step_of(refused))
    await search.put(f"/prod_{name}-products")

    with pytest.raises(OwnedElsewhere, match=f"cannot adopt prefix 'prod_{name}' of OpenSearch .* of cluster 'second'"):
        await search.activities.reconcile_search(step_of(refused))
    outcome = await search.activities.delete_search(cleanup_of(refused))

    assert f"prod_{name}-products" in await search.indices()
    assert f"prod_{name}-*" in outcome.left
    assert "of cluster 'second'" in outcome.left
    await search.http.delete(f"/prod_{name}-products")
    await search.http.delete(f"/_component_template/plattr-owner-prod_{name}")


async def test_a_prefix_of_another_cluster_is_taken_over_when_a_person_says_so(search: Search) -> None:
    moved = await search.cluster.apply(search.namespace, random_name(), application_spec(search={"enabled": True}))
    await search.elsewhere().reconcile_search(step_of(moved))
    target = await search.cluster.loader.load(step_of(moved))

    assert search.client is not None
    [marked] = await marked_prefix(search.client, target)
    await marked.take()

    assert marked.mark is not None
    assert (marked.mark.cluster, marked.obstacle) == ("second", "")
    assert await search.client.record(target.names.search_prefix) == owner_record(target.owner)
    await search.http.delete(f"/_component_template/plattr-owner-{target.names.search_prefix}")


@pytest.mark.attack
async def test_what_nothing_says_is_the_objects_stays(search: Search) -> None:
    name = random_name()
    application = await search.application(name)
    await search.put(f"/prod_{name}-products")
    await search.http.delete(f"/_component_template/plattr-owner-prod_{name}")

    outcome = await search.activities.delete_search(cleanup_of(application))
    stayed = await search.indices()
    await search.activities.reconcile_search(step_of(application))
    recorded = await search.activities.delete_search(cleanup_of(application))

    assert f"prod_{name}-products" in stayed
    assert "nobody that Plattr knows" in outcome.left
    assert recorded.left == ""
    assert f"prod_{name}-products" not in await search.indices()
    assert (await search.http.get(f"/_component_template/plattr-owner-prod_{name}")).status_code == 404


async def test_a_removal_without_time_is_called_again(search: Search) -> None:
    name = random_name()
    application = await search.application(name)
    await search.put(f"/prod_{name}-a")
    hurried = search.activities_with(search.client, cleanup_budget=timedelta(0))

    outcome = await hurried.delete_search(cleanup_of(application))
    await search.activities.delete_search(cleanup_of(application))

    assert not outcome.is_done
    assert f"prod_{name}-*" in outcome.waiting_for
    assert not any(name in index for index in await search.indices())


async def test_what_is_retained_stays(search: Search) -> None:
    name = random_name()
    application = await search.application(name)
    await search.put(f"/prod_{name}-a")

    await search.activities.delete_search(cleanup_of(application, retain=True))
    retained = await search.indices()
    await search.activities.delete_search(cleanup_of(application))

    assert f"prod_{name}-a" in retained


async def test_what_a_new_incarnation_has_stays(search: Search) -> None:
    name = random_name()
    first = await search.application(name)
    await search.cluster.force_away(first.reference)
    second = await search.application(name)
    await search.put(f"/prod_{name}-a")

    await search.activities.delete_search(cleanup_of(first))
    stayed = await search.indices()
    await search.activities.delete_search(cleanup_of(second))

    assert f"prod_{name}-a" in stayed


async def test_without_an_admin_it_is_said_that_indices_stay(search: Search) -> None:
    application = await search.application(random_name())

    result = await search.activities_with(None).reconcile_search(step_of(application))

    assert "OPENSEARCH_ADMIN_URL is not set" in result.updates[0].message


async def test_an_opensearch_that_is_away_is_said_without_the_password(search: Search) -> None:
    application = await search.application(random_name())
    away = search.activities_with(OpenSearchClient(SecretStr("http://admin:hunter2@127.0.0.1:9")))

    with pytest.raises(BackendUnavailable) as outage:
        await away.reconcile_search(step_of(application))

    assert "127.0.0.1:9" in str(outage.value)
    assert "hunter2" not in str(outage.value)


async def test_what_opensearch_refuses_is_quoted(search: Search) -> None:
    assert search.client is not None
    await search.put("/refused-a")

    try:
        with pytest.raises(BackendRefused, match="OpenSearch"):
            # No name of an index: data streams and such are refused there.
            await search.client.traces("_bad,")
    finally:
        await search.http.delete("/refused-a")


@pytest.mark.parametrize(
    ("name", "is_own"),
    [
        ("prod_shop", True),
        ("prod_shop-a", True),
        ("prod_shop2-a", False),
        ("prod_shop_2-a", False),
        ("prod_shop_a", False),
        ("prod_sho", False),
    ],
)
def test_a_prefix_ends_at_a_hyphen(name: str, is_own: bool) -> None:
    assert is_below(name, "prod_shop") == is_own
