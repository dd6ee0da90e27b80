"""PostgreSQL as its admin: transactions under an owner's lock, test logins as an application, Plattr's errors."""

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
# 10 s: longer than a restart of the server, so that an attempt survives a restart. The pool retries after 1, 2 and 4 s.
POOL_SECONDS = 10.0
# The pool retries for this long, and then waits for the next demand. So its backoff does not grow in a long outage.
RECONNECT_SECONDS = 5.0
# 10 min: an idle worker holds none of the server's connections.
IDLE_SECONDS = 600.0
# 20 s: the server itself ends a statement after 15 s. This limit is for a server that no longer answers. It is a third
# of the activity's 60 s.
TRANSACTION_SECONDS = 20.0
# 10 s, while the waiting attempt holds no connection. A provision takes milliseconds. After 10 s the attempt that holds
# the lock is itself waiting for something, so this one fails and Temporal retries it.
LOCK_SECONDS = 10.0
# Random, so that of two waiting attempts neither always comes first.
LOCK_PAUSE_SECONDS = (0.02, 0.2)

# Statements take milliseconds.
# lock_timeout 5 s: an autovacuum gives way to a removal after 1 s. If a tenant keeps a lock, the step does not wait
# longer: Temporal retries it. Provisioning asks for no table's lock, and waits less (activities/database.py).
# idle_in_transaction_session_timeout 10 s: as long as an attempt without heartbeats may write, see
# activities/interceptor.py. If a worker freezes in its transaction, the server refuses what the worker sends later. The
# server frees the worker's lock before another worker takes over at 15 s.
# search_path: an object that somebody put into `public` must never replace a function of the server.
_SESSION = """
SELECT set_config('statement_timeout', '15s', false), set_config('lock_timeout', '5s', false),
    set_config('idle_in_transaction_session_timeout', '10s', false), set_config('search_path', 'pg_catalog', false),
    set_config('jit', 'off', false)
"""
PATIENCE = "5s"
_PARAMETERS: Mapping[str, Any] = {
    "connect_timeout": CONNECT_SECONDS,
    "application_name": "plattr",
    # A connection whose other end vanished silently ends after 15 s, not after two hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15000,
    "autocommit": True,
    # No prepared statements: no query repeats often enough to gain, and poolers before the server do not support them.
    "prepare_threshold": None,
}


class PostgresClient:
    """One PostgreSQL server, as its admin. Create it with `connect`; nothing is sent before the first transaction."""

    def __init__(self, settings: Settings, secrets_manager: SecretsManagerClient | None) -> None:
        self._settings = settings
        self._secrets_manager = secrets_manager
        self._address = f"PostgreSQL at {settings.db_host}:{settings.db_port}"
        self._logins = asyncio.Semaphore(settings.db_pool_size)
        # The address of the server that answered last. If the URL names several hosts, it is the one that takes writes.
        self._server: dict[str, Any] = {}
        self._queues: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # One check per process is enough. If somebody drops the schema later, the next lock finds out.
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
        """Return a client. The server may be down: a transaction connects only when it begins.

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
        """Close the connections; the client cannot be used afterwards."""
        await self._pool.close()

    async def ping(self) -> None:
        """Return when the server answers.

        Raises:
            BackendUnavailable: the server does not answer; the error names the cause.
        """
        with self._translated("reach the server"):
            async with asyncio.timeout(TRANSACTION_SECONDS), self._connection() as connection:
                await connection.execute("SELECT")

    @asynccontextmanager
    async def transaction(self, action: str) -> AsyncIterator[Transaction]:
        """Open a transaction on the private schema without an owner's lock; raises as `locked` does."""
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
        """Open a transaction under the owner's lock, so that no second one of this owner runs at the same time.

        Args:
            reference: the object whose database it is about.
            action: what is being done, as it follows `cannot` in an error.
            patience: how long a statement may wait for another session's lock, in the format of `lock_timeout`.

        Raises:
            BackendUnavailable: the server cannot be reached or is overloaded.
            Conflict: somebody else wrote at the same time, or holds a lock for too long.
            BackendRefused: the server refuses, for example because the admin lacks a right.
        """
        with self._translated(f"{action} for {reference}"), tracing.span(Backend.POSTGRESQL, "transaction"):
            async with self._locked(reference.key, f"{action} for {reference}", patience) as connection:
                yield Transaction(connection)

    @asynccontextmanager
    async def elsewhere(self, database: str, action: str) -> AsyncIterator[Transaction]:
        """Open a transaction in another database of the server, with its own connection and without a lock.

        Raises:
            BackendUnavailable: the server cannot be reached, or does not let the admin into that database.
            Conflict: somebody else wrote at the same time, or holds a lock for longer than 5 s.
            BackendRefused: the server refuses, for example because the admin lacks a right.
        """
        with (
            self._translated(f"{action} in database {database!r} (GRANT CONNECT on it to the admin)"),
            tracing.span(Backend.POSTGRESQL, "transaction"),
        ):
            async with asyncio.timeout(TRANSACTION_SECONDS):
                async with self._own_connection(dbname=database) as connection, connection.transaction():
                    yield Transaction(connection)

    async def ask(self, query: str, action: str, **parameters: object) -> list[dict[str, Any]]:
        """Return the rows of one query, with its own connection: the pool's may all be waiting for the answer."""
        with self._translated(action):
            async with asyncio.timeout(TRANSACTION_SECONDS):
                async with self._own_connection() as connection:
                    return await Transaction(connection).fetch(query, **parameters)

    async def forget(self, reference: ObjectReference) -> None:
        """Remove an owner's lock when nothing is left to guard; the next `locked` creates the lock again."""
        async with self.locked(reference, "forget the lock") as transaction:
            fence.ensure_live()
            await transaction.fetch(sql_private.FORGET_OWNER, owner=reference.key)

    @asynccontextmanager
    async def _locked(self, owner: str, action: str, patience: str) -> AsyncIterator[AsyncConnection[Any]]:
        """Hold an owner's lock; while another attempt has it, leave the connection to others."""
        at_work = Conflict(f"cannot {action}: another attempt for the same object is at work for {LOCK_SECONDS:.0f} s")
        until = time.monotonic() + LOCK_SECONDS
        # The attempts of this process queue here first, so that only one of them polls the server.
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
                    # The lock has its own statement, so that the next statement takes its snapshot after the lock.
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
        """Log in as an application would; return why the server refuses the login, None when it works.

        An admin that is no superuser cannot read the passwords of roles, so a login is the only comparison. libpq gives
        no SQLSTATE of a failed connection, and the text may be in any language. But the server checks the password
        before anything else about the role. So a second login uses a password that is surely wrong. If and only if the
        server gives the same answer to both, the first password is wrong, too.
        https://github.com/psycopg/psycopg/issues/1188

        Raises:
            BackendUnavailable: the server was not reached, or had no room: nothing is known about the password.
        """
        cause = await self._refusal(role, password)
        if cause is None:
            return None
        of_wrong = await self._refusal(role, secrets.token_hex(16))
        # A proxy may put a number into its text, and so answer the same login differently each time. Its answers prove
        # nothing. The password then counts as wrong, because it does no harm to set the role's intended password again.
        is_password = cause == of_wrong or of_wrong != await self._refusal(role, secrets.token_hex(16))
        return LoginFailure(cause=cause, is_password=is_password)

    async def room(self, role: str) -> Room:
        """Return how many connections the role and the server have, and how many each may have.

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
                    # If libpq used no password, the error is no answer to it: the server is away or full.
                    if error.pgconn is None or not error.pgconn.used_password:
                        raise
                    return first_line(error)
                await connection.close()
        return None

    @asynccontextmanager
    async def _own_connection(self, **parameters: str) -> AsyncIterator[AsyncConnection[Any]]:
        """Open a connection outside the pool, to the server that answered last."""
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
        """Raise the reason why the pool got no connection; the pool's own error does not tell."""
        connection = await AsyncConnection.connect(await self._conninfo(), **_PARAMETERS)
        await connection.close()

    async def _conninfo(self) -> str:
        """Return the connection parameters; read for every new connection, so that a rotated password is used."""
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
            # libpq quotes the URL, which contains the password.
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
        """Turn the driver's errors into ours, once; `from None`, because they quote statements with password hashes."""
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
