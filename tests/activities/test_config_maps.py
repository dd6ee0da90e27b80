"""The ConfigMaps of Redis and search on a real API server."""

import pytest

from activities.redis import RedisActivities
from clients.resources import CONFIG_MAPS, Json
from plattr.errors import OwnedElsewhere, StillDeleting
from plattr.features import ConditionType
from tests.fix_workload import Team

BOTH: Json = {"redis": {"enabled": True}, "search": {"enabled": True}}


async def test_both_say_where_their_service_is(team: Team) -> None:
    step = await team.create()

    redis = await team.redis.reconcile_redis(step)
    search = await team.search.reconcile_search(step)

    name = step.reference.name
    assert (await team.get(CONFIG_MAPS, f"{name}-redis"))["data"].keys() == {
        "REDIS_URL",
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_PREFIX",
    }
    search_values = (await team.get(CONFIG_MAPS, f"{name}-search"))["data"]
    assert search_values.keys() == {"OPENSEARCH_URL", "OPENSEARCH_INDEX_PREFIX"}
    assert search_values["OPENSEARCH_INDEX_PREFIX"] == f"prod_{name}"
    assert [(f.type, f.status) for f in (*redis.updates, *search.updates)] == [
        (ConditionType.REDIS, "True"),
        (ConditionType.SEARCH, "True"),
    ]


async def test_a_second_run_writes_nothing(team: Team) -> None:
    step = await team.create(**BOTH)
    before = await team.versions(step)

    await team.redis.reconcile_redis(step)
    await team.search.reconcile_search(step)

    assert len(before) == 2
    assert await team.versions(step) == before


async def test_a_new_endpoint_of_the_platform_is_followed(team: Team) -> None:
    step = await team.create(**BOTH)
    settings = team.settings.model_copy(update={"redis_endpoint": "cache.test:6380"})

    await RedisActivities(team.loader, team.kube, None, team.claim_store, settings).reconcile_redis(step)

    assert (await team.get(CONFIG_MAPS, f"{step.reference.name}-redis"))["data"] == {
        "REDIS_URL": "redis://cache.test:6380",
        "REDIS_HOST": "cache.test",
        "REDIS_PORT": "6380",
        "REDIS_PREFIX": f"prod_{step.reference.name}:",
    }


async def test_a_foreign_config_map_is_refused_and_survives_the_deletion(team: Team) -> None:
    step = await team.create()
    name = f"{step.reference.name}-redis"
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"A": "1"}}
    await team.kube.create(CONFIG_MAPS, theirs, team.namespace)
    before = await team.get(CONFIG_MAPS, name)

    with pytest.raises(OwnedElsewhere):
        await team.redis.reconcile_redis(step)
    await team.redis.delete_redis(await team.delete(step))

    assert await team.get(CONFIG_MAPS, name) == before


async def test_each_deletion_takes_its_own_and_a_second_one_succeeds(team: Team) -> None:
    step = await team.create(**BOTH, storage={"enabled": True})
    name = step.reference.name
    cleanup = await team.delete(step)

    await team.search.delete_search(cleanup)
    after_search = await team.names_of(CONFIG_MAPS, name)
    await team.redis.delete_redis(cleanup)
    await team.redis.delete_redis(cleanup)
    after_redis = await team.names_of(CONFIG_MAPS, name)

    assert after_search == {f"{name}-redis", f"{name}-storage"}
    assert after_redis == {f"{name}-storage"}


async def test_a_config_map_that_a_finalizer_holds_is_waited_for(team: Team) -> None:
    step = await team.create(**BOTH)
    name = f"{step.reference.name}-redis"
    hold = [{"op": "add", "path": "/metadata/finalizers", "value": ["test.plattr/hold"]}]
    await team.kube.json_patch(CONFIG_MAPS, name, hold, team.namespace)
    cleanup = await team.delete(step)

    with pytest.raises(StillDeleting, match=f"{name}.*test.plattr/hold"):
        await team.redis.delete_redis(cleanup)
    let_go = [{"op": "remove", "path": "/metadata/finalizers"}]
    await team.kube.json_patch(CONFIG_MAPS, name, let_go, team.namespace)

    await team.redis.delete_redis(cleanup)


async def test_deletion_leaves_what_a_new_incarnation_has(team: Team) -> None:
    first = await team.create(**BOTH)
    cleanup = await team.delete(first)
    second = await team.create(first.reference.name, **BOTH)
    before = await team.versions(second)

    await team.redis.delete_redis(cleanup)
    await team.search.delete_search(cleanup)

    assert await team.versions(second) == before
