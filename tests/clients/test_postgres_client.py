"""The PostgreSQL client: outages, refusals, the fence, and that no error gives a secret away."""

import asyncio
import secrets
import time
import traceback
from collections.abc import AsyncIterator

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier, Literal
from pydantic import SecretStr

from clients import fence
from clients.kube import KubeClient
from clients.postgres import PostgresClient
from plattr import sql
from plattr.errors import BackendRefused, BackendUnavailable, Conflict, FencedOff, MissingSetting, PlattrError
from plattr.naming import PRIVATE_SCHEMA, RoleName
from plattr.objects import ObjectReference
from plattr.settings import Settings
from stack.endpoints import Endpoints
from tests.fix_postgres import Databases, Superuser, Tenants, activities_with

REFERENCE = ObjectReference(namespace="client", name="test")


class Gate:
    """A way to the server that can be opened and closed."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)
        for writer in self._writers:
            # Again for a pipe that was cancelled before its first turn.
            writer.close()
        self._writers.clear()
        # The transports close at the loop's next turn.
        await asyncio.sleep(0.1)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, inner_writer]
        for source, sink in ((reader, inner_writer), (inner_reader, writer)):
            pipe = asyncio.create_task(_pipe(source, sink))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while chunk := await source.read(65536):
            sink.write(chunk)
            await sink.drain()
    except ConnectionError:
        return
    finally:
        sink.close()


def admin_url(settings: Settings, **changes: object) -> SecretStr:
    assert settings.db_admin_url is not None
    return SecretStr(make_conninfo(settings.db_admin_url.get_secret_value(), **changes))  # type: ignore[arg-type]  # libpq takes any


@pytest.fixture
async def gate(database_settings: Settings) -> AsyncIterator[Gate]:
    gate = Gate(database_settings.db_host, database_settings.db_port)
    await gate.open()
    yield gate
    await gate.close()


@pytest.fixture
async def gated(gate: Gate, database_settings: Settings) -> AsyncIterator[PostgresClient]:
    changes = {"db_admin_url": admin_url(database_settings, port=gate.port), "db_port": gate.port}
    client = await PostgresClient.connect(database_settings.model_copy(update=changes))
    yield client
    await client.close()


@pytest.fixture
async def plain_admin(
    superuser: Superuser, database_settings: Settings, postgres: PostgresClient
) -> AsyncIterator[Settings]:
    """Settings of an admin to whom the server grants nothing of what it makes."""
    role, password = f"admin_{secrets.token_hex(4)}", secrets.token_hex(16)
    names = {
        "role": Identifier(role),
        "password": Literal(password),
        "database": Identifier(database_settings.db_name),
        "group": Identifier(sql.APPLICATIONS_ROLE),
        "private": Identifier(PRIVATE_SCHEMA),
    }
    for statement in (
        "CREATE ROLE {role} LOGIN CREATEROLE PASSWORD {password}",
        "GRANT CONNECT, CREATE ON DATABASE {database} TO {role}",
        "GRANT {group} TO {role} WITH ADMIN OPTION",
        "GRANT ALL ON SCHEMA {private} TO {role}",
        "GRANT ALL ON ALL TABLES IN SCHEMA {private} TO {role}",
    ):
        await superuser.execute(SQL(statement).format(**names))
    url = admin_url(database_settings, user=role, password=password)
    yield database_settings.model_copy(update={"db_admin_url": url})
    await superuser.execute(SQL("REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role} CASCADE").format(**names))
    await superuser.execute(SQL("DROP ROLE {role}").format(**names))


async def test_table_of_a_former_admin_is_named_and_not_tried_again(
    plain_admin: Settings, superuser: Superuser
) -> None:
    assert plain_admin.db_admin_url is not None
    role = conninfo_to_dict(plain_admin.db_admin_url.get_secret_value())["user"]
    revoke = SQL("REVOKE UPDATE ON {} FROM {}").format(Identifier(PRIVATE_SCHEMA, "locks"), Identifier(str(role)))
    await superuser.execute(revoke)
    client = await PostgresClient.connect(plain_admin)

    with pytest.raises(BackendRefused, match=r"cannot use locks in schema .* OWNER TO"):
        async with client.transaction("look"):
            pass

    await client.close()


async def test_outage_shorter_than_the_wait_is_not_noticed(gate: Gate, gated: PostgresClient) -> None:
    await gate.close()
    pinging = asyncio.create_task(gated.ping())
    await asyncio.sleep(0.5)
    was_done = pinging.done()
    await gate.open()

    await pinging

    assert not was_done


async def test_outage_ends_in_time_with_its_cause(gate: Gate, gated: PostgresClient) -> None:
    await gate.close()
    began = time.monotonic()

    with pytest.raises(BackendUnavailable) as failure:
        await gated.ping()

    # A third of the activity's 60 s.
    assert time.monotonic() - began < 20
    assert f"127.0.0.1:{gate.port}" in str(failure.value)
    assert "refused" in str(failure.value)


async def test_connection_cut_in_a_transaction_is_an_outage_and_the_next_one_works(
    gate: Gate, gated: PostgresClient
) -> None:
    async def cut_short() -> None:
        async with gated.locked(REFERENCE, "test") as transaction:
            await gate.close()
            await transaction.fetch("SELECT 1")

    with pytest.raises(BackendUnavailable):
        await cut_short()
    await gate.open()

    await gated.ping()


async def test_login_that_reaches_no_server_proves_nothing(gate: Gate, gated: PostgresClient) -> None:
    await gate.close()

    with pytest.raises(BackendUnavailable):
        await gated.login_failure("nobody", "anything")


async def test_statement_that_takes_too_long_is_an_outage(postgres: PostgresClient) -> None:
    async def sleep_too_long() -> None:
        async with postgres.locked(REFERENCE, "test") as transaction:
            await transaction.fetch("SELECT set_config('statement_timeout', '20ms', true)")
            await transaction.fetch("SELECT pg_sleep(5)")

    with pytest.raises(BackendUnavailable):
        await sleep_too_long()


async def test_transactions_of_one_owner_follow_each_other(postgres: PostgresClient) -> None:
    order: list[str] = []

    async def run(name: str) -> None:
        async with postgres.locked(REFERENCE, "test") as transaction:
            order.append(f"{name} begins")
            await transaction.fetch("SELECT pg_sleep(0.05)")
            order.append(f"{name} ends")

    await asyncio.gather(run("first"), run("second"))

    assert order in (
        ["first begins", "first ends", "second begins", "second ends"],
        ["second begins", "second ends", "first begins", "first ends"],
    )


async def test_owner_whose_lock_is_held_is_a_conflict(
    postgres: PostgresClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.postgres.LOCK_SECONDS", 0.2)
    with pytest.raises(Conflict):
        async with postgres.locked(REFERENCE, "test"), postgres.locked(REFERENCE, "test") as second:
            await second.fetch("SELECT 1")


async def test_attempt_whose_lease_ran_out_writes_nothing(
    databases: Databases, postgres: PostgresClient, superuser: Superuser
) -> None:
    role = RoleName(f"fenced_{secrets.token_hex(4)}")
    token = fence.lease.set(fence.Lease(time.monotonic() - 1))
    try:
        with pytest.raises(FencedOff):
            async with postgres.locked(REFERENCE, "test") as transaction:
                await transaction.write([sql.create_group_role(role)])
    finally:
        fence.lease.reset(token)

    assert (await superuser.execute("SELECT FROM pg_roles WHERE rolname = %s", [role])).rowcount == 0


@pytest.mark.every_postgres
async def test_admin_to_whom_the_server_grants_nothing_can_do_all_of_it(
    database_kube: KubeClient, plain_admin: Settings, tenants: Tenants, superuser: Superuser
) -> None:
    client = await PostgresClient.connect(plain_admin)
    databases = activities_with(database_kube, client, plain_admin)
    tenant = await tenants.apply()

    await databases.reconcile_database(tenant.step)
    rows = await tenants.query(tenant, "CREATE TABLE page AS SELECT 1 AS id", "SELECT id FROM page")
    await databases.delete_database(tenant.cleanup())

    await client.close()
    cursor = await superuser.execute("SELECT FROM pg_roles WHERE rolname = %s", [tenant.names.app_role])
    assert rows == [(1,)]
    assert cursor.rowcount == 0


@pytest.mark.every_postgres
async def test_superuser_as_admin_joins_no_role(
    database_kube: KubeClient,
    database_settings: Settings,
    tenants: Tenants,
    database_endpoints: Endpoints,
    superuser: Superuser,
    postgres: PostgresClient,
) -> None:
    url = SecretStr(database_endpoints.database_superuser_url)
    settings = database_settings.model_copy(update={"db_admin_url": url})
    client = await PostgresClient.connect(settings)
    databases = activities_with(database_kube, client, settings)
    tenant = await tenants.apply()

    await databases.reconcile_database(tenant.step)

    cursor = await superuser.execute("SELECT FROM pg_auth_members WHERE roleid = %s::regrole", [tenant.names.app_role])
    assert cursor.rowcount == 0
    assert await tenants.query(tenant, "SELECT 1") == [(1,)]
    await databases.delete_database(tenant.cleanup())
    await client.close()


@pytest.mark.attack
@pytest.mark.parametrize(
    ("state", "remedy"), [("53100", "disk"), ("53200", "max_locks_per_transaction"), ("53400", "limit")]
)
async def test_resource_that_is_too_small_is_no_outage(state: str, remedy: str, postgres: PostgresClient) -> None:
    owner = ObjectReference(namespace="n", name=f"o{secrets.token_hex(4)}")

    with pytest.raises(BackendRefused) as refusal:
        async with postgres.locked(owner, "do it") as transaction:
            await transaction.fetch(f"DO $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '{state}'; END $$")

    assert remedy in str(refusal.value)


def written_out(error: BaseException) -> str:
    """Return all that a log could show of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.every_postgres
async def test_refusal_names_the_remedy_and_no_password(
    database_kube: KubeClient, plain_admin: Settings, tenants: Tenants, superuser: Superuser
) -> None:
    assert plain_admin.db_admin_url is not None
    admin = conninfo_to_dict(plain_admin.db_admin_url.get_secret_value())
    await superuser.execute(SQL("ALTER ROLE {} NOCREATEROLE").format(Identifier(str(admin["user"]))))
    client = await PostgresClient.connect(plain_admin)
    tenant = await tenants.apply()

    with pytest.raises(BackendRefused) as refusal:
        await activities_with(database_kube, client, plain_admin).reconcile_database(tenant.step)

    await client.close()
    text = written_out(refusal.value)
    assert "42501" in str(refusal.value)
    assert "CREATEROLE" in str(refusal.value)
    assert (await tenants.secret(tenant))["DB_PASSWORD"] not in text
    assert "SCRAM-SHA-256" not in text
    assert str(admin["password"]) not in text


async def test_wrong_admin_password_is_an_outage_that_does_not_quote_it(
    database_settings: Settings, caplog: pytest.LogCaptureFixture, short_wait: None
) -> None:
    canary = f"canary-{secrets.token_hex(8)}"
    settings = database_settings.model_copy(update={"db_admin_url": admin_url(database_settings, password=canary)})
    client = await PostgresClient.connect(settings)

    with pytest.raises(BackendUnavailable) as failure:
        await client.ping()

    await client.close()
    assert "password authentication failed" in str(failure.value)
    assert canary not in written_out(failure.value)
    assert canary not in caplog.text


FAILING = {
    "syntax": "CREATE ROLE x PASSWORD {canary} {canary}",
    "type": "SELECT {canary}::int",
    "missing-role": "ALTER ROLE nobody_at_all PASSWORD {canary}",
    "context": "DO $$ BEGIN EXECUTE 'ALTER ROLE nobody_at_all PASSWORD ' || quote_literal({canary}); END $$",
}


@pytest.mark.parametrize("statement", FAILING.values(), ids=FAILING)
async def test_failed_statement_is_not_quoted(
    statement: str, postgres: PostgresClient, caplog: pytest.LogCaptureFixture
) -> None:
    canary = f"canary-{secrets.token_hex(8)}"

    with pytest.raises(PlattrError) as failure:
        async with postgres.locked(REFERENCE, "test") as transaction:
            await transaction.write([SQL(statement).format(canary=Literal(canary))])

    assert canary not in written_out(failure.value)
    assert canary not in caplog.text


@pytest.mark.parametrize(
    "url", ["postgresql//provisioner:canary@127.0.0.1/plattr", "host=x pass canary"], ids=["url", "words"]
)
async def test_admin_url_that_does_not_parse_is_not_quoted(url: str, database_settings: Settings) -> None:
    settings = database_settings.model_copy(update={"db_admin_url": SecretStr(url)})

    with pytest.raises(MissingSetting) as failure:
        await PostgresClient.connect(settings)

    assert "DB_ADMIN_URL" in str(failure.value)
    assert "canary" not in written_out(failure.value)


async def test_admin_url_of_another_database_is_refused(database_settings: Settings) -> None:
    url = admin_url(database_settings, dbname="other")

    with pytest.raises(MissingSetting):
        await PostgresClient.connect(database_settings.model_copy(update={"db_admin_url": url}))


async def test_busy_pool_says_which_setting_helps(database_settings: Settings, short_wait: None) -> None:
    client = await PostgresClient.connect(database_settings.model_copy(update={"db_pool_size": 1}))

    with pytest.raises(BackendUnavailable) as failure:
        async with client.locked(REFERENCE, "test"):
            await client.ping()

    await client.close()
    assert "DB_POOL_SIZE" in str(failure.value)
