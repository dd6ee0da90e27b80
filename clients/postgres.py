"""PostgreSQL as its admin: locked transactions, logins as an application would do them, errors in our words."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self
from weakref import WeakValueDictionary

from psycopg import AsyncConnection, Error, OperationalError, ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import UndefinedTable
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from clients import fence
from clients.postgres_answers import LoginFailure, Room
from clients.postgres_errors import first_line, translate
from clients.postgres_transaction import Transaction
from clients.private_schema import ensure_private_schema
from clients.secrets_manager import SecretsManagerClient
from plattr import sql, sql_private
from plattr.backends import Backend, of_backend
from plattr.errors import BackendUnavailable, Conflict, MissingSetting, PlattrError
from plattr.objects import ObjectReference
from plattr.settings import Settings
from telemetry import tracing

CONNECT_SECONDS = 5
# 10 s: longer than a restart takes, so that an attempt outlives one; the pool tries again after 1, 2 and 4 s.
POOL_SECONDS = 10.0
# The pool counts its own attempts up to this and then waits for the next demand: a long outage costs no backoff.
RECONNECT_SECONDS = 5.0
# 10 min: an idle worker holds none of the server's connections.
IDLE_SECONDS = 600.0
# 20 s: the server ends a statement after 15 s itself; this is for a server that no longer answers, and a third of
# the activity's 60 s.
TRANSACTION_SECONDS = 20.0
# 10 s, without a connection in hand: a provision takes milliseconds, so an attempt that waits longer waits for one
# that waits itself, and is tried again by Temporal.
LOCK_SECONDS = 10.0
# Of two that wait, neither comes always first.
LOCK_PAUSE_SECONDS = (0.02, 0.2)

# Statements take milliseconds. 5 s: an autovacuum gives way to a removal after one; what a tenant keeps locked is
# tried again by Temporal, not waited for. Provisioning, which asks for no table's lock, is given less (PATIENCE).
# 10 s: as long as a silent attempt may write at all (activities/interceptor.py). What a worker that froze in its
# transaction would still send is refused by the server itself, and its lock is free before another takes over at 15 s.
# search_path: what somebody put into `public` must never stand in for a function of the server's.
_SESSION = """
SELECT set_config('statement_timeout', '15s', false), set_config('lock_timeout', '5s', false),
    set_config('idle_in_transaction_session_timeout', '10s', false), set_config('search_path', 'pg_catalog', false),
    set_config('jit', 'off', false)
"""
PATIENCE = "5s"
_PARAMETERS: Mapping[str, Any] = {
    "connect_timeout": CONNECT_SECONDS,
    "application_name": "plattr",
    # A connection whose other end vanished without a word is given up after 15 s, not after two hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15000,
    "autocommit": True,
    # Nothing is asked often enough to gain, and poolers between us and the server cannot do it.
    "prepare_threshold": None,
}


class PostgresClient:
    """One PostgreSQL server, as its admin. Make it with `connect`; nothing is sent before the first transaction."""

    def __init__(self, settings: Settings, secrets_manager: SecretsManagerClient | None) -> None:
        self._settings = settings
        self._secrets_manager = secrets_manager
        self._address = f"PostgreSQL at {settings.db_host}:{settings.db_port}"
        self._logins = asyncio.Semaphore(settings.db_pool_size)
        # The address of the server that answered last; with several hosts in the URL, the one that accepts writes.
        self._server: dict[str, Any] = {}
        self._queues: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # Once is enough for a process; whoever takes the schema away from under it is noticed by the next lock.
        self._has_private_schema = False
        self._static = self._static_parameters()
        self._pool = AsyncConnectionPool(
            self._conninfo,
            kwargs=dict(_PARAMETERS),
            min_size=0,
            max_size=settings.db_pool_size,
            timeout=POOL_SECONDS,
            reconnect_timeout=RECONNECT_SECONDS,
            max_idle=IDLE_SECONDS,
            configure=_configure,
            check=AsyncConnectionPool.check_connection,
            name="plattr",
            open=False,
        )

    @classmethod
    async def connect(cls, settings: Settings) -> Self:
        """Return a client; the server may be down, a transaction connects when it begins.

        Raises:
            MissingSetting: DB_ADMIN_URL is not a libpq URL, or names another database than DB_NAME.
        """
        secrets_manager = None
        if settings.db_admin_url is None:
            secrets_manager = SecretsManagerClient(settings.aws_region)
        client = cls(settings, secrets_manager)
        await client._pool.open(wait=False)
        return client

    async def close(self) -> None:
        """Close the connections; the client is of no use afterwards."""
        await self._pool.close()

    async def ping(self) -> None:
        """Return when the server answers.

        Raises:
            BackendUnavailable: it does not, with the cause.
        """
        with self._translated("reach the server"):
            async with asyncio.timeout(TRANSACTION_SECONDS), self._connection() as connection:
                await connection.execute("SELECT")

    @asynccontextmanager
    async def transaction(self, action: str) -> AsyncIterator[Transaction]:
        """Open a transaction on the private schema, under no owner's lock; raises as `locked` does."""
        with self._translated(action), tracing.span(Backend.POSTGRESQL, "transaction"):
            async with asyncio.timeout(TRANSACTION_SECONDS), self._connection() as connection:
                await self._prepare(connection)
                async with connection.transaction():
                    yield Transaction(connection)

    @asynccontextmanager
    async def session(self, action: str) -> AsyncIterator[AsyncConnection[Any]]:
        """Hand out a connection on which each statement is a transaction of its own; raises as `locked` does."""
        with self._translated(action), tracing.span(Backend.POSTGRESQL, "session"):
            async with asyncio.timeout(TRANSACTION_SECONDS), self._connection() as connection:
                yield connection

    @asynccontextmanager
    async def locked(
        self, reference: ObjectReference, action: str, *, patience: str = PATIENCE
    ) -> AsyncIterator[Transaction]:
        """Open a transaction that no other of the same owner runs beside.

        Args:
            reference: whose database it is about.
            action: what is being done, as it follows `cannot` in an error.
            patience: how long a statement may wait for what somebody else has locked, as `lock_timeout` takes it.

        Raises:
            BackendUnavailable: the server cannot be reached or is overloaded.
            Conflict: somebody else wrote at the same time, or holds a lock for too long.
            BackendRefused: the server says no, as when the admin lacks a right.
        """
        with self._translated(f"{action} for {reference}"), tracing.span(Backend.POSTGRESQL, "transaction"):
            async with self._locked(reference.key, f"{action} for {reference}", patience) as connection:
                yield Transaction(connection)

    @asynccontextmanager
    async def elsewhere(self, database: str, action: str) -> AsyncIterator[Transaction]:
        """Open a transaction in another database of the server, with a connection of its own; no lock is held.

        Raises:
            BackendUnavailable: the server cannot be reached, or does not let the admin into that database.
            Conflict: somebody else wrote at the same time, or holds a lock for longer than 5 s.
            BackendRefused: the server says no, as when the admin lacks a right.
        """
        with (
            self._translated(f"{action} in database {database!r} (GRANT CONNECT on it to the admin)"),
            tracing.span(Backend.POSTGRESQL, "transaction"),
        ):
            async with asyncio.timeout(TRANSACTION_SECONDS):
                async with self._own_connection(dbname=database) as connection, connection.transaction():
                    yield Transaction(connection)

    async def ask(self, query: str, action: str, **parameters: object) -> list[dict[str, Any]]:
        """Return the rows of one query, with a connection of its own: the pool's may all be waiting for the answer."""
        with self._translated(action):
            async with asyncio.timeout(TRANSACTION_SECONDS):
                async with self._own_connection() as connection:
                    return await Transaction(connection).fetch(query, **parameters)

    async def forget(self, reference: ObjectReference) -> None:
        """Remove an owner's lock, when nothing is left that it could guard; the next one who asks makes it again."""
        async with self.locked(reference, "forget the lock") as transaction:
            fence.ensure_live()
            await transaction.fetch(sql_private.FORGET_OWNER, owner=reference.key)

    @asynccontextmanager
    async def _locked(self, owner: str, action: str, patience: str) -> AsyncIterator[AsyncConnection[Any]]:
        """Hold an owner's lock; while somebody else has it, hold no connection: others have use for that."""
        at_work = Conflict(f"cannot {action}: another attempt for the same object is at work for {LOCK_SECONDS:.0f} s")
        until = time.monotonic() + LOCK_SECONDS
        # Those of this process first: of many only one has to ask the server again and again.
        queue = self._queues.setdefault(owner, asyncio.Lock())
        try:
            async with asyncio.timeout(LOCK_SECONDS):
                await queue.acquire()
        except TimeoutError:
            raise at_work from None
        try:
            async with self._locked_by_server(owner, patience, until, at_work) as connection:
                yield connection
        finally:
            queue.release()

    @asynccontextmanager
    async def _locked_by_server(
        self, owner: str, patience: str, until: float, at_work: Conflict
    ) -> AsyncIterator[AsyncConnection[Any]]:
        while True:
            async with asyncio.timeout(TRANSACTION_SECONDS), self._connection() as connection:
                await self._prepare(connection)
                async with connection.transaction():
                    # In a statement of its own: the next one's snapshot is then taken after the lock.
                    is_mine, is_known = await self._try_lock(connection, owner, patience)
                    if is_mine:
                        yield connection
                        return
                if not is_known:
                    fence.ensure_live()
                    await connection.execute(sql_private.KNOW_OWNER.encode(), {"owner": owner})
                    continue
            if time.monotonic() > until:
                raise at_work
            await asyncio.sleep(random.uniform(*LOCK_PAUSE_SECONDS))  # noqa: S311  no secret

    async def _prepare(self, connection: AsyncConnection[Any]) -> None:
        found = connection.info
        self._server = {"host": found.host, "hostaddr": found.hostaddr, "port": found.port}
        if not self._has_private_schema:
            await ensure_private_schema(connection)
            self._has_private_schema = True

    async def _try_lock(self, connection: AsyncConnection[Any], owner: str, patience: str) -> tuple[bool, bool]:
        try:
            cursor = await connection.execute(sql_private.TRY_LOCK.encode(), {"owner": owner, "patience": patience})
        except UndefinedTable:
            self._has_private_schema = False
            raise
        [(is_mine, is_known, _)] = await cursor.fetchall()
        return is_mine, is_known

    async def login_failure(self, role: str, password: str) -> LoginFailure | None:
        """Log in as an application would; return why the server refuses it, None when it works.

        The passwords of roles are not readable for an admin that is no superuser, so trying is the only comparison.
        The server looks at the password before it looks at anything else about the role. What it says of a password
        that is wrong for sure is therefore what it says of this one exactly if this one is wrong, too: libpq gives no
        SQLSTATE of a failed connection, and the text may be in any language.
        https://github.com/psycopg/psycopg/issues/1188

        Raises:
            BackendUnavailable: the server was not reached, or had no room, so that nothing is known about the password.
        """
        cause = await self._refusal(role, password)
        if cause is None:
            return None
        of_wrong = await self._refusal(role, secrets.token_hex(16))
        # Whoever answers the same question differently each time (a proxy with a number in its text) proves nothing:
        # then it counts as wrong, for giving the role the password it should have does no harm.
        is_password = cause == of_wrong or of_wrong != await self._refusal(role, secrets.token_hex(16))
        return LoginFailure(cause=cause, is_password=is_password)

    async def room(self, role: str) -> Room:
        """Return how many connections there are, and how many there may be.

        Raises:
            BackendUnavailable: the server cannot be reached.
        """
        with self._translated(f"count the connections of role {role!r}"):
            async with (
                asyncio.timeout(TRANSACTION_SECONDS),
                self._connection() as connection,
                connection.cursor(row_factory=class_row(Room)) as cursor,
            ):
                await cursor.execute(sql.ROOM.encode(), {"role": role})
                found = await cursor.fetchone()
        if found is None:
            raise Conflict(f"cannot count the connections of role {role!r}: it was dropped meanwhile")
        return found

    async def _refusal(self, role: str, password: str) -> str | None:
        parameters = {**_PARAMETERS, **self._server, "user": role, "password": password}
        async with self._logins:
            conninfo = await self._conninfo()
            with self._translated(f"log in as {role!r}"), tracing.span(Backend.POSTGRESQL, "login"):
                try:
                    connection = await AsyncConnection.connect(conninfo, **parameters)
                except OperationalError as error:
                    # Without a password asked for it was no answer to the password: no server, or one that is full.
                    if error.pgconn is None or not error.pgconn.used_password:
                        raise
                    return first_line(error)
                await connection.close()
        return None

    @asynccontextmanager
    async def _own_connection(self, **parameters: str) -> AsyncIterator[AsyncConnection[Any]]:
        """Open a connection beside the pool's, to the server that answered last."""
        settings = {**_PARAMETERS, **self._server, **parameters}
        async with await AsyncConnection.connect(await self._conninfo(), **settings) as connection:
            await _configure(connection)
            yield connection

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except PoolTimeout:
            await self._explain_timeout()
            raise

    async def _explain_timeout(self) -> None:
        """Raise why no connection came: the pool only says that none did."""
        connection = await AsyncConnection.connect(await self._conninfo(), **_PARAMETERS)
        await connection.close()

    async def _conninfo(self) -> str:
        """Return how to connect; called for every new connection, so that a rotated password is picked up."""
        if self._secrets_manager is None or self._settings.db_secret_arn is None:
            return make_conninfo(**self._static)
        return make_conninfo(
            **{**self._static, **await self._secrets_manager.database_parameters(self._settings.db_secret_arn)}
        )

    def _static_parameters(self) -> dict[str, Any]:
        settings = self._settings
        defaults = {"host": settings.db_host, "port": settings.db_port, "dbname": settings.db_name}
        if settings.db_admin_url is None:
            return defaults
        try:
            given = conninfo_to_dict(settings.db_admin_url.get_secret_value())
        except ProgrammingError:
            # libpq quotes the URL, and the password is in it.
            raise MissingSetting("cannot start: setting DB_ADMIN_URL: it is not a libpq URL") from None
        parameters = {**defaults, **given}
        if parameters["dbname"] != settings.db_name:
            raise MissingSetting(
                f"cannot start: setting DB_ADMIN_URL: its database {parameters['dbname']!r} is not DB_NAME"
                f" {settings.db_name!r}, where the applications look"
            )
        return parameters

    @contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        """Turn the driver's errors into ours, once; `from None`, for theirs quote statements with password hashes."""
        try:
            yield
        except PlattrError:
            raise
        except PoolTimeout:
            cause = (
                f"none of {self._settings.db_pool_size} connections to {self._address} came free in"
                f" {POOL_SECONDS:.0f} s; raise DB_POOL_SIZE if it goes on"
            )
            raise of_backend(Backend.POSTGRESQL, BackendUnavailable(f"cannot {action}: {cause}")) from None
        except TimeoutError:
            cause = f"{self._address} does not answer in time"
            raise of_backend(Backend.POSTGRESQL, BackendUnavailable(f"cannot {action}: {cause}")) from None
        except Error as error:
            if error.sqlstate is None and not isinstance(error, OperationalError):
                raise  # our own misuse of the driver, which no wording for a person would mend
            raise of_backend(Backend.POSTGRESQL, translate(action, self._address, error)) from None


async def _configure(connection: AsyncConnection[Any]) -> None:
    await connection.execute(_SESSION)
