"""Users and prefixes on a real Redis, attacked as a tenant would."""

import asyncio
from base64 import b64encode
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoPermissionError, ResponseError

from clients.redis import RedisClient, UsersMissing
from clients.resources import CONFIG_MAPS, SECRETS, Json
from plattr.errors import BackendRefused, BackendUnavailable, OwnedElsewhere
from plattr.features import ClaimKind, ConditionType
from plattr.marks import estate_of
from plattr.redis_users import RedisUser, channel_record
from tests.fix_kubernetes import version_of
from tests.fix_redis import Shared
from tests.inputs import cleanup_of, step_of

OTHERS = "prod_other:jobs"

# Each reads, changes, or tells of what is another application's, or of the whole server; `{two}` is the other's prefix.
ATTACKS = (
    "GET {two}secret",
    "SET {two}secret stolen",
    "DEL {two}secret",
    "RPOP {two}jobs",
    "BLPOP {two}jobs 1",
    "LMOVE {two}jobs {one}mine LEFT LEFT",
    "COPY {two}secret {one}mine",
    "RENAME {two}secret {one}mine",
    "MOVE {two}secret 1",
    "DUMP {two}secret",
    "OBJECT ENCODING {two}secret",
    "TYPE {two}secret",
    "EXISTS {two}secret",
    "SORT {one}list GET {two}*",
    "XREAD COUNT 1 STREAMS {two}stream 0",
    "PUBLISH {two}news lie",
    "SUBSCRIBE {two}news",
    "SSUBSCRIBE {two}news",
    "PSUBSCRIBE *",
    "PSUBSCRIBE {two}*",
    "PSUBSCRIBE __keyspace@0__:*",
    "SUBSCRIBE __redis__:invalidate",
    "PUBSUB CHANNELS",
    "KEYS *",
    "SCAN 0",
    "SCAN 0 MATCH {one}*",
    "RANDOMKEY",
    "DBSIZE",
    "FLUSHALL",
    "FLUSHDB",
    "SWAPDB 0 1",
    "INFO",
    "MONITOR",
    "CONFIG GET *",
    "CONFIG SET dir /tmp",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "CLIENT PAUSE 1",
    "CLIENT TRACKING ON BCAST",
    "ACL LIST",
    "ACL GETUSER {one_user}",
    "ACL SETUSER {one_user} ~*",
    "ACL DELUSER {two_user}",
    "ACL LOG",
    "SLOWLOG GET",
    "LATENCY LATEST",
    "MEMORY DOCTOR",
    "MODULE LIST",
    "MODULE LOAD /tmp/x.so",
    "REPLICAOF 127.0.0.1 1",
    "SHUTDOWN NOSAVE",
    "SAVE",
    "MIGRATE 127.0.0.1 1 {one}list 0 1",
    "RESTORE {one}mine 0 x",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "FUNCTION LOAD REPLACE x",
    "FUNCTION FLUSH",
    "FUNCTION LIST",
    "FCALL f 0",
    "CLUSTER GETKEYSINSLOT 0 10",
    "SYNC",
)
# In a script no key needs to be declared.
SCRIPTS = (
    "return redis.call('GET', '{two}secret')",
    "return redis.call('DEL', '{two}secret')",
    "return redis.call('KEYS', '*')",
    "return redis.call('SCAN', '0')",
    "return redis.call('RANDOMKEY')",
    "return redis.call('FLUSHALL')",
    "return redis.call('PUBLISH', '{two}news', 'lie')",
    "redis.call('SELECT', '1') return redis.call('GET', '{two}secret')",
    "return redis.acl_check_cmd('GET', '{two}secret') and 1 or redis.call('GET', '{two}secret')",
)


@pytest.mark.attack
async def test_an_application_reaches_nothing_of_anothers_in_redis(shared: Shared) -> None:
    first, second = await shared.application(), await shared.application()
    for application in (first, second):
        await shared.reconcile(application)
    one, own = await shared.tenant(first)
    two, others = await shared.tenant(second)
    await two.set(f"{others}secret", "s")
    await two.rpush(f"{others}jobs", "job")
    await one.rpush(f"{own}list", "1")
    words = {"one": own, "two": others, "one_user": own[:-1], "two_user": others[:-1]}

    let_in = [attack for attack in ATTACKS if not await _is_refused(one, *attack.format(**words).split())]
    let_in += [script for script in SCRIPTS if not await _is_refused(one, "EVAL", script.format(**words), "0")]

    assert let_in == [], let_in
    assert await two.get(f"{others}secret") == "s"
    assert await two.lrange(f"{others}jobs", 0, -1) == ["job"]


@pytest.mark.attack
async def test_a_previews_worker_takes_no_job_of_productions(shared: Shared) -> None:
    parent = await shared.application()
    preview = await shared.preview(parent)
    for each in (parent, preview):
        await shared.reconcile(each)
    production, prefix = await shared.tenant(parent)
    worker, own = await shared.tenant(preview)
    await production.rpush(f"{prefix}queue", "charge the customer")

    # A queue's name is the same in both; what each puts before it is not.
    taken = await worker.lpop(f"{own}queue")
    with pytest.raises(NoPermissionError):
        await worker.blpop([f"{prefix}queue"], timeout=1)

    assert own != prefix
    assert taken is None
    assert await production.llen(f"{prefix}queue") == 1


async def test_an_application_works_below_its_prefix(shared: Shared) -> None:
    application = await shared.application()
    await shared.reconcile(application)
    redis, prefix = await shared.tenant(application)

    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(f"{prefix}news")
        await pubsub.psubscribe(f"{prefix}*")
        async with redis.pipeline(transaction=True) as pipeline:
            pipeline.set(f"{prefix}a", "1", ex=60)
            pipeline.incr(f"{prefix}a")
            await pipeline.execute()
        await redis.xadd(f"{prefix}stream", {"a": "1"})
        script = await redis.script_load("return redis.call('GET', KEYS[1])")
        found = await redis.evalsha(script, 1, f"{prefix}a")
        await redis.publish(f"{prefix}news", "x")

    assert found == "2"
    assert await redis.ping()


async def test_the_password_is_in_the_secret_only_and_a_second_run_writes_nothing(shared: Shared) -> None:
    application = await shared.application()
    result = await shared.reconcile(application)
    environment = await shared.environment(application)
    names = (await shared.target(application)).names
    kube, namespace = shared.cluster.admin, shared.namespace
    before = [
        await version_of(kube, CONFIG_MAPS, names.config_map("redis"), namespace),
        await version_of(kube, SECRETS, names.redis_secret, namespace),
    ]
    written: list[str] = []

    async with shared.connection().monitor() as monitor:
        await shared.reconcile(application)
        await shared.connection().ping()
        while "PING" not in (command := (await monitor.next_command())["command"]):
            written.append(command)

    config_map = await kube.get(CONFIG_MAPS, names.config_map("redis"), namespace)
    assert config_map is not None
    assert config_map["data"].keys() == {"REDIS_HOST", "REDIS_PORT", "REDIS_PREFIX"}
    assert environment["REDIS_PREFIX"] == f"prod_{names.stem}:"
    assert len(environment["REDIS_PASSWORD"]) == 64
    assert [(f.type, f.status) for f in result.updates] == [(ConditionType.REDIS, "True")]
    assert environment["REDIS_PASSWORD"] not in result.model_dump_json()
    assert [command for command in written if "SETUSER" in command or "SAVE" in command] == []
    assert before == [
        await version_of(kube, CONFIG_MAPS, names.config_map("redis"), namespace),
        await version_of(kube, SECRETS, names.redis_secret, namespace),
    ]


@pytest.mark.parametrize(
    "change",
    [
        ("ACL", "SETUSER", "{user}", "+@all"),
        ("ACL", "SETUSER", "{user}", "~*"),
        ("ACL", "SETUSER", "{user}", "&*"),
        ("ACL", "SETUSER", "{user}", "nopass"),
        ("ACL", "SETUSER", "{user}", ">guessed"),
        ("ACL", "SETUSER", "{user}", "(~* +get)"),
        ("ACL", "SETUSER", "{user}", "off"),
        ("ACL", "DELUSER", "{user}"),
    ],
    ids=["commands", "keys", "channels", "no-password", "second-password", "selector", "off", "lost"],
)
async def test_a_user_that_was_changed_or_lost_is_brought_back(shared: Shared, change: tuple[str, ...]) -> None:
    application = await shared.application()
    await shared.reconcile(application)
    user = (await shared.target(application)).names.redis_user
    before, environment = await shared.client.user(user), await shared.environment(application)

    await shared.connection().execute_command(*(word.format(user=user) for word in change))
    await shared.reconcile(application)

    assert await shared.client.user(user) == before
    assert await shared.environment(application) == environment
    redis, _ = await shared.tenant(application)
    assert await redis.ping()


async def test_a_deleted_secret_means_a_new_password(shared: Shared) -> None:
    application = await shared.application()
    await shared.reconcile(application)
    names, before = (await shared.target(application)).names, await shared.environment(application)
    await shared.cluster.admin.delete(SECRETS, names.redis_secret, shared.namespace)

    await shared.reconcile(application)

    redis, _ = await shared.tenant(application)
    assert await redis.ping()
    assert (await shared.environment(application))["REDIS_PASSWORD"] != before["REDIS_PASSWORD"]


@pytest.mark.attack
@pytest.mark.parametrize("password", ["a", "0" * 32, "hunter2hunter2hunter2hunter2hunter2"])
async def test_a_password_that_somebody_put_into_the_secret_is_replaced(shared: Shared, password: str) -> None:
    application = await shared.application()
    await shared.reconcile(application)
    name = (await shared.target(application)).names.redis_secret
    change: list[Json] = [
        {"op": "replace", "path": "/data/REDIS_PASSWORD", "value": b64encode(password.encode()).decode()}
    ]
    await shared.cluster.admin.json_patch(SECRETS, name, change, shared.namespace)

    await shared.reconcile(application)

    redis, _ = await shared.tenant(application)
    assert await redis.ping()
    assert (await shared.environment(application))["REDIS_PASSWORD"] != password


@pytest.mark.attack
async def test_a_user_of_somebody_else_is_refused_and_survives(shared: Shared) -> None:
    application = await shared.application()
    owner = (await shared.target(application)).owner
    user = (await shared.target(application)).names.redis_user
    stranger = channel_record(owner.model_copy(update={"reference": owner.reference.model_copy(update={"name": "z"})}))
    for patterns in ((), (f"&{stranger}",)):
        await shared.connection().execute_command("ACL", "SETUSER", user, "reset", "on", ">theirs", "~*", *patterns)
        before = await shared.client.user(user)

        with pytest.raises(OwnedElsewhere):
            await shared.reconcile(application)
        await shared.remove(application)

        assert await shared.client.user(user) == before


@pytest.mark.attack
async def test_a_user_that_has_lost_its_record_goes_with_the_object(shared: Shared) -> None:
    application = await shared.application()
    await shared.reconcile(application)
    redis, prefix = await shared.tenant(application)
    await redis.set(f"{prefix}gone", "x")
    await shared.connection().execute_command("ACL", "SETUSER", prefix[:-1], "allchannels")

    await shared.cluster.delete(application.reference)
    await shared.remove(application)

    assert await shared.client.user(prefix[:-1]) is None
    assert await shared.connection().get(f"{prefix}gone") is None


@pytest.mark.attack
async def test_the_keys_of_anothers_user_survive_the_end_of_an_object_of_that_name(shared: Shared) -> None:
    application = await shared.application()
    await shared.reconcile(application)
    redis, prefix = await shared.tenant(application)
    await redis.set(f"{prefix}kept", "x")
    owner, user = (await shared.target(application)).owner, prefix[:-1]
    # The same namespace and name in another cluster: it has the claim of the name in its own claim store.
    elsewhere = channel_record(owner.model_copy(update={"cluster": "second"}))
    await shared.connection().execute_command("ACL", "SETUSER", user, "resetchannels", f"&{prefix}*", f"&{elsewhere}")

    with pytest.raises(OwnedElsewhere):
        await shared.reconcile(application)
    await shared.cluster.delete(application.reference)
    await shared.remove(application)

    assert await redis.get(f"{prefix}kept") == "x"


async def test_user_and_keys_go_with_the_object_and_nobody_elses(shared: Shared) -> None:
    # Of one name the other is the beginning: no prefix of the two may match the other's keys.
    first = await shared.application()
    second = await shared.application(f"{first.metadata.name}2")
    for each in (first, second):
        await shared.reconcile(each)
    one, own = await shared.tenant(first)
    two, others = await shared.tenant(second)
    admin = shared.connection()
    for database in range(2):
        await one.execute_command("SELECT", database)
        async with one.pipeline(transaction=False) as pipeline:
            for number in range(1200):
                pipeline.set(f"{own}{number}", "x")
            pipeline.execute_command("SELECT", database)
            await pipeline.execute()
    await two.set(f"{others}kept", "x")
    await admin.set(OTHERS, "x")

    await shared.cluster.delete(first.reference)
    await shared.remove(first)
    again = await shared.remove(first)

    for database in range(2):
        assert [key async for key in shared.connection(db=database).scan_iter(f"{own}*", count=5000)] == []
    assert again.left == ""
    assert await shared.client.user(own[:-1]) is None
    assert await two.get(f"{others}kept") == "x"
    assert await admin.get(OTHERS) == "x"
    with pytest.raises((Disconnected, ResponseError)):
        await one.ping()
    await admin.delete(OTHERS)


async def test_a_removal_without_time_goes_on_where_it_was(shared: Shared) -> None:
    application = await shared.application()
    await shared.reconcile(application)
    redis, prefix = await shared.tenant(application)
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(30_000):
            pipeline.set(f"{prefix}{number}", "x")
        await pipeline.execute()
    hurried = shared.activities_with(shared.client, shared.settings, cleanup_budget=timedelta(0))

    outcomes = [await hurried.delete_redis(cleanup_of(application))]
    while not outcomes[-1].is_done:
        outcomes.append(await hurried.delete_redis(cleanup_of(application)))

    assert len(outcomes) > 2
    assert prefix in outcomes[0].waiting_for
    assert [key async for key in shared.connection().scan_iter(f"{prefix}*", count=5000)] == []


async def test_what_is_retained_stays_closed_until_its_owner_is_back(shared: Shared) -> None:
    application = await shared.application()
    await shared.reconcile(application)
    redis, prefix = await shared.tenant(application)
    await redis.set(f"{prefix}kept", "x")

    await shared.remove(application, retain=True)

    with pytest.raises((Disconnected, ResponseError)):
        await redis.get(f"{prefix}kept")
    await shared.reconcile(application)
    again, _ = await shared.tenant(application)
    assert await again.get(f"{prefix}kept") == "x"


async def test_a_deletion_leaves_what_a_new_incarnation_has(shared: Shared) -> None:
    first = await shared.application()
    await shared.reconcile(first)
    await shared.cluster.force_away(first.reference)
    second = await shared.application(first.metadata.name)
    await shared.reconcile(second)
    redis, prefix = await shared.tenant(second)
    await redis.set(f"{prefix}kept", "x")

    await shared.remove(first)

    assert await redis.get(f"{prefix}kept") == "x"


async def test_a_server_without_users_is_said_and_leaves_the_prefix(shared: Shared) -> None:
    class ElastiCache(RedisClient):
        async def user(self, name: str) -> None:
            raise UsersMissing("cannot read a user: unknown command 'ACL'")

    admin = shared.settings.redis_admin_url
    assert admin is not None
    application = await shared.application()
    await shared.reconcile(application)
    activities = shared.activities_with(ElastiCache(admin), shared.settings)

    result = await activities.reconcile_redis(step_of(application))

    environment = await shared.environment(application)
    assert environment.keys() == {"REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_PREFIX"}
    assert "ElastiCache" in result.updates[0].message


@pytest.mark.attack
async def test_keys_that_no_user_speaks_for_survive_the_end_of_an_object_of_that_name(shared: Shared) -> None:
    class ElastiCache(RedisClient):
        async def users(self) -> list[RedisUser]:
            raise UsersMissing("cannot list the users: unknown command 'ACL'")

    url = shared.settings.redis_admin_url
    assert url is not None
    without_users = shared.activities_with(ElastiCache(url), shared.settings)
    # Refused before this step; by its own cluster's claims it has the name; the keys are the same object's elsewhere.
    refused = await shared.application()
    key, admin = (await shared.target(refused)).names.redis_prefix + "kept", shared.connection()
    await admin.set(key, "x")

    # The other's user may be missing too: after a restart of Redis without a file for them, until the next resync.
    outcomes = [await each.delete_redis(cleanup_of(refused)) for each in (without_users, shared.activities)]

    assert await admin.get(key) == "x"
    assert all(key.removesuffix("kept") in outcome.left for outcome in outcomes)
    await admin.delete(key)


@pytest.mark.attack
async def test_a_refused_object_empties_no_database_that_another_cluster_uses_by_now(shared: Shared) -> None:
    settings = shared.settings.model_copy(update={"redis_isolation": "database"})
    activities = shared.activities_with(shared.client, settings)
    refused = await shared.application()
    names, owner = (await shared.target(refused)).names, (await shared.target(refused)).owner
    elsewhere = channel_record(owner.model_copy(update={"cluster": "second"}))
    await shared.connection().execute_command("ACL", "SETUSER", names.redis_user, "reset", "on", f"&{elsewhere}")
    with pytest.raises(OwnedElsewhere):
        await activities.reconcile_redis(step_of(refused))
    held = await shared.cluster.claim_store.held_by(estate_of(owner), ClaimKind.REDIS_DATABASE)
    assert held
    # A number that the claim store here has given out, and nothing in Redis shows it.
    databases = [shared.connection(db=int(each.claim.name)) for each in held]
    for database in databases:
        await database.set("theirs", "x")

    await activities.delete_redis(cleanup_of(refused))

    assert [await database.get("theirs") for database in databases] == ["x"] * len(databases)
    for database in databases:
        await database.delete("theirs")


async def test_a_crash_after_any_step_of_a_removal_leaves_what_the_next_needs(shared: Shared) -> None:
    class Dying(RedisClient):
        async def unlink_page(self, database: int, prefix: str, cursor: int) -> int:
            raise BackendUnavailable("cannot go on")

    url = shared.settings.redis_admin_url
    assert url is not None
    application = await shared.application()
    await shared.reconcile(application)
    redis, prefix = await shared.tenant(application)
    await redis.set(f"{prefix}mine", "x")

    with pytest.raises(BackendUnavailable):
        await shared.activities_with(Dying(url), shared.settings).delete_redis(cleanup_of(application))
    closed = await shared.client.user(prefix[:-1])
    with pytest.raises((Disconnected, ResponseError)):
        await redis.get(f"{prefix}mine")
    outcome = await shared.remove(application)

    assert closed is not None
    assert not closed.is_on
    assert outcome.left == ""
    assert await shared.connection().get(f"{prefix}mine") is None
    assert await shared.client.user(prefix[:-1]) is None


@pytest.mark.attack
async def test_a_redis_that_lets_everybody_in_is_warned_about(shared: Shared) -> None:
    application = await shared.application()
    admin = shared.connection()
    closed = await shared.reconcile(application)

    await admin.execute_command("ACL", "SETUSER", "default", "on", "nopass")
    try:
        opened = await shared.reconcile(application)
    finally:
        await admin.execute_command("ACL", "SETUSER", "default", "reset", "off")
        await admin.execute_command("ACL", "SAVE")

    assert "WARNING" not in closed.updates[0].message
    assert "WARNING: user 'default'" in opened.updates[0].message


@pytest.mark.attack
async def test_an_application_with_a_database_of_its_own_reaches_no_other(shared: Shared) -> None:
    settings = shared.settings.model_copy(update={"redis_isolation": "database"})
    activities = shared.activities_with(shared.client, settings)
    first, second = await shared.application(), await shared.application()
    for application in (first, second):
        await activities.reconcile_redis(step_of(application))
    again = await activities.reconcile_redis(step_of(first))
    one, two = [(await shared.environment(each))["REDIS_URL"] for each in (first, second)]
    mine, theirs = shared.connection(one), shared.connection(two)
    number, other = (int(url.rpartition("/")[2]) for url in (one, two))
    # As a client that knows no prefix has it.
    await mine.rpush("queue", "mine")
    await theirs.rpush("queue", "theirs")

    attacks = [
        f"SELECT {other}",
        f"MOVE queue {other}",
        f"COPY queue stolen DB {other}",
        f"SWAPDB {number} {other}",
        "FLUSHALL",
        "SUBSCRIBE news",
    ]
    let_in = [attack for attack in attacks if not await _is_refused(mine, *attack.split())]
    script = f"redis.call('SELECT', '{other}') return redis.call('LPOP', 'queue')"
    let_in += [script] if not await _is_refused(mine, "EVAL", script, "0") else []
    await activities.delete_redis(cleanup_of(first))

    assert let_in == []
    assert number != other
    assert f"database {number} " in again.updates[0].message
    assert await theirs.lrange("queue", 0, -1) == ["theirs"]
    assert await shared.connection(db=number).dbsize() == 0
    await activities.delete_redis(cleanup_of(second))


async def test_when_every_database_is_taken_it_is_said(shared: Shared) -> None:
    settings = shared.settings.model_copy(update={"redis_isolation": "database", "redis_databases": 2})
    activities = shared.activities_with(shared.client, settings)
    # What another cluster's has there, the claim store does not know.
    await shared.connection(db=1).set("theirs", "x")

    try:
        with pytest.raises(BackendRefused, match="REDIS_DATABASES"):
            await activities.reconcile_redis(step_of(await shared.application()))
    finally:
        await shared.connection(db=1).delete("theirs")


async def test_the_database_of_a_deleted_application_is_given_out_again(shared: Shared) -> None:
    settings = shared.settings.model_copy(update={"redis_isolation": "database", "redis_databases": 2})
    activities = shared.activities_with(shared.client, settings)

    # There is one to give, and its template stays after the first.
    for _ in range(2):
        application = await shared.application()
        await activities.reconcile_redis(step_of(application))
        await shared.cluster.delete(application.reference)
        await activities.delete_redis(cleanup_of(application))
        await shared.cluster.releases.release_object(cleanup_of(application))


async def _is_refused(redis: Redis, *command: str) -> bool:
    try:
        async with asyncio.timeout(5), redis.client() as own:
            await own.execute_command(*command)
    except NoPermissionError:
        return True
    except ResponseError as error:
        # What a script raises carries no class; MODULE LOAD is shut by the server before anybody's rights count.
        return "The user executing the script can't" in str(error) or "MODULE command not allowed" in str(error)
    return False
