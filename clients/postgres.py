"""PostgreSQL as its admin: locked transactions, logins as an application would do them, errors in our words."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, Self
from weakref import WeakValueDictionary

from psycopg import AsyncConnection, Error, OperationalError, ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import UndefinedTable
from psycopg.rows import class_row, dict_row
from psycopg.sql import SQL
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from clients import fence
from clients.postgres_answers import LoginFailure, Room
from clients.private_schema import ensure_private_schema
from clients.secrets_manager import SecretsManagerClient
from plattr import sql, sql_private
from plattr.backends import Backend, of_backend
from plattr.errors import BackendRefused, BackendUnavailable, Conflict, MissingSetting, PlattrError
from plattr.objects import ObjectReference
from plattr.settings import Settings
from telemetry import tracing

# 16: since then a grant of a role has options, and the right to SET ROLE is one of its own.
GRANT_OPTIONS_VERSION = 160000

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

# Somebody else was quicker, or holds a lock; reading again shows what is left to do.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_CONFLICTS = frozenset(
    {
        "23505",  # unique_violation, in the catalogues
        "2BP01",  # dependent_objects_still_exist: made since it was read
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "42704",  # undefined_object: dropped since it was read
        "42P01",  # undefined_table, as when somebody dropped the private schema
        "42710",  # duplicate_object: made since it was read
        "42P06",  # duplicate_schema
        "3F000",  # invalid_schema_name: dropped since it was read
        "55006",  # object_in_use
        "55P03",  # lock_not_available
        "XX000",  # internal_error: "tuple concurrently updated"
    }
)
# Connection trouble, resources, shutdown and restart, timeouts (57014 is statement_timeout, 25P03 the idle one).
_OUTAGES = ("08", "53", "57", "58", "25P03")
# Resources that waiting brings nobody back: the lock table or the disk is too small for what is asked of it.
_LACKING = frozenset({"53100", "53200", "53400"})
# A bad value and a syntax error quote the text they stumbled over, and that may be a literal.
_QUOTING = ("22", "42601")
_REMEDIES = {
    "42501": "; give the admin CREATEROLE, CREATE on the database, and ADMIN OPTION on the roles it has to grant",
    "53100": "; give the server's disk room",
    "53200": "; end the session that has most of pg_locks, or raise the server's max_locks_per_transaction",
    "53400": "; raise the server's limit that it names",
}
# libpq tells of a refused connection by text alone, in the language of the server; in another the remedy is missing.
_REFUSED = {
    "too many clients already": (
        "; end sessions or raise max_connections; where pg_stat_activity shows fewer, logins that were begun and never"
        " finished have the rest: set authentication_timeout to 5s, and bound each address before the server"
    ),
    "out of shared memory": _REMEDIES["53200"],
}


class Transaction:
    """One transaction that holds an owner's lock; it commits when its block ends without an error."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    @property
    def has_grant_options(self) -> bool:
        """Tell whether grants of roles have options here (PostgreSQL 16 and later)."""
        return self._connection.info.server_version >= GRANT_OPTIONS_VERSION

    @property
    def pid(self) -> int:
        """Return the server's process for this session."""
        return self._connection.info.backend_pid

    async def fetch(self, query: str, **parameters: object) -> list[dict[str, Any]]:
        """Return the rows of a query; `set_privilege` and `admin_privilege` are filled in by the server's version."""
        set_privilege, admin_privilege = (
            ("SET", "SET") if self.has_grant_options else ("MEMBER", "MEMBER WITH ADMIN OPTION")
        )
        values = {"set_privilege": set_privilege, "admin_privilege": admin_privilege} | parameters
        with _span("query", [query]):
            async with self._connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(query.encode(), values)
                return await cursor.fetchall()

    async def call(self, query: str, **parameters: object) -> list[dict[str, Any]]:
        """Return the rows of a query that also changes something."""
        fence.ensure_live()
        return await self.fetch(query, **parameters)

    async def write(self, statements: Sequence[sql.Statement]) -> None:
        """Send the statements in one round trip; none, when there are none."""
        if not statements:
            return
        fence.ensure_live()
        # Of each its first part, which is text of ours: names and values come after it.
        with _span("write", [next(iter(statement)).as_string() for statement in statements]):
            await self._connection.execute(SQL("; ").join(statements))

    async def verifier(self, role: str, password: str) -> str:
        """Return the password as the server keeps it, so that it never crosses the wire or enters a log."""
        encrypt = self._connection.pgconn.encrypt_password
        # In a thread: 4096 rounds of SHA-256 take milliseconds, and dozens of activities share the loop.
        return (await asyncio.to_thread(encrypt, password.encode(), role.encode(), b"scram-sha-256")).decode()


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
                    return _first_line(error)
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
            raise of_backend(Backend.POSTGRESQL, _translate(action, self._address, error)) from None


def _span(operation: str, statements: Sequence[str]) -> AbstractContextManager[None]:
    keywords = "; ".join(tracing.keywords_of(statement) for statement in statements)
    return tracing.span(Backend.POSTGRESQL, operation, {"db.system.name": "postgresql", "db.operation.name": keywords})


async def _configure(connection: AsyncConnection[Any]) -> None:
    await connection.execute(_SESSION)


def _translate(action: str, address: str, error: Error) -> PlattrError:
    # Never the statement, the context or the detail: they quote values.
    state = error.sqlstate
    if state is None:
        cause = _first_line(error)
        remedy = next((remedy for text, remedy in _REFUSED.items() if text in cause), "")
        return BackendUnavailable(f"cannot {action}: {address}: {type(error).__name__}: {cause}{remedy}")
    message = "message withheld" if state.startswith(_QUOTING) else error.diag.message_primary
    cause = f"{address} answers {state} ({type(error).__name__}): {message}"
    if state in _CONFLICTS:
        return Conflict(f"cannot {action}: {cause}")
    if state.startswith(_OUTAGES) and state not in _LACKING:
        return BackendUnavailable(f"cannot {action}: {cause}")
    return BackendRefused(f"cannot {action}: {cause}{_REMEDIES.get(state, '')}")


def _first_line(error: Error) -> str:
    """Return what libpq says of a connection: host, port and cause, never the password."""
    return str(error).partition("\n")[0].strip().removeprefix("connection failed: ")
