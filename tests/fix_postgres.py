"""PostgreSQL for the tests: its superuser, objects that want a database, and clients that break at a chosen call."""

import secrets
from base64 import b64decode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from activities.database import DatabaseActivities
from activities.database_removal import DatabaseRemovalActivities
from activities.dropping import Dropping
from activities.loading import TargetLoader
from clients.events import EventRecorder
from clients.kube import KubeClient
from clients.postgres import PATIENCE, PostgresClient
from clients.postgres_transaction import Transaction
from clients.resources import EVENTS, NAMESPACES, SECRETS, custom_resource
from plattr.claims import Claim
from plattr.naming import Names
from plattr.objects import API_VERSION, CustomObject, Kind, ObjectReference, Owner
from plattr.retries import CLEANUP_BUDGET
from plattr.settings import Settings
from plattr.sql import Statement
from plattr.steps import CleanupStepInput, StepInput
from plattr.target import Target, application_target
from stack.endpoints import Endpoints, environment
from stack.platform import Platform
from tests.inputs import CLUSTER, at_home, cleanup_of, estate, step_of

Superuser = AsyncConnection[TupleRow]

STRANGER = Owner(reference=ObjectReference(namespace="elsewhere", name="stranger"), uid="1")


class Crash(Exception):
    """A worker that ends here."""


class Fuse:
    """Burns at the nth write, before it is sent or after it was done."""

    def __init__(self, writes: int, *, after: bool) -> None:
        self.left = writes
        self.after = after

    @asynccontextmanager
    async def write(self) -> AsyncIterator[None]:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Crash
        yield
        if self.left == 0:
            raise Crash


class FusedKube:
    """The Kubernetes client, whose writes burn the fuse."""

    def __init__(self, kube: KubeClient, fuse: Fuse) -> None:
        self._kube = kube
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._kube, name)
        if name not in ("create", "apply_owned", "delete"):
            return call

        async def fused(*arguments: Any, **options: Any) -> Any:
            async with self._fuse.write():
                return await call(*arguments, **options)

        return fused


class FusedPostgres(PostgresClient):
    """The PostgreSQL client, whose statements and commits burn the fuse."""

    fuse: Fuse

    @asynccontextmanager
    async def locked(
        self, reference: ObjectReference, action: str, *, patience: str = PATIENCE
    ) -> AsyncIterator[Transaction]:
        wrote: list[Statement] = []
        async with super().locked(reference, action, patience=patience) as transaction:
            yield FusedTransaction(transaction._connection, self.fuse, wrote)
        if wrote:
            async with self.fuse.write():
                pass


class FusedTransaction(Transaction):
    """A transaction that sends its statements one by one."""

    def __init__(self, connection: AsyncConnection[Any], fuse: Fuse, wrote: list[Statement]) -> None:
        super().__init__(connection)
        self._fuse = fuse
        self._wrote = wrote

    async def write(self, statements: Sequence[Statement]) -> None:
        for statement in statements:
            async with self._fuse.write():
                await super().write([statement])
                self._wrote.append(statement)


class WatchedPostgres(PostgresClient):
    """The PostgreSQL client, which keeps the number of every transaction that wrote; a row that is locked is none."""

    numbers: list[str]

    @asynccontextmanager
    async def locked(
        self, reference: ObjectReference, action: str, *, patience: str = PATIENCE
    ) -> AsyncIterator[Transaction]:
        async with super().locked(reference, action, patience=patience) as transaction:
            watched = WatchedTransaction(transaction._connection)
            yield watched
            if watched.has_written:
                [row] = await transaction.fetch("SELECT pg_current_xact_id()::text AS number")
                self.numbers.append(row["number"])


class WatchedTransaction(Transaction):
    """A transaction that knows whether it was given statements to write."""

    has_written = False

    async def write(self, statements: Sequence[Statement]) -> None:
        self.has_written = self.has_written or bool(statements)
        await super().write(statements)


@dataclass(frozen=True)
class Tenant:
    """An Application that wants a database, as the API server holds it now."""

    custom_object: CustomObject
    target: Target

    @property
    def names(self) -> Names:
        return self.target.names

    @property
    def step(self) -> StepInput:
        return step_of(self.custom_object)

    def cleanup(self, *outliving: Claim, retain: bool = False) -> CleanupStepInput:
        return cleanup_of(self.custom_object, *outliving, retain=retain)


class Tenants:
    """Makes Applications in one namespace, and forgets all they ever had."""

    def __init__(self, kube: KubeClient, settings: Settings, superuser: Superuser, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace
        self._settings = settings
        self._superuser = superuser
        self._made: list[Names] = []

    async def apply(self, name: str | None = None, **database: Any) -> Tenant:
        name = name or f"d{secrets.token_hex(5)}"
        body = {
            "apiVersion": API_VERSION,
            "kind": Kind.APPLICATION.value,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "repository": "https://git.example.test/shop.git",
                "framework": "docker",
                "environment": "production",
                "database": {"enabled": True} | database,
                "storage": {"enabled": False},
                "auth": {"enabled": False},
                "redis": {"enabled": False},
                "search": {"enabled": False},
            },
        }
        held = await self.kube.apply(custom_resource(Kind.APPLICATION), body, self.namespace)
        custom_object = await at_home(self.kube, CustomObject.from_api(Kind.APPLICATION, held))
        target = application_target(custom_object, base_domain=self._settings.base_domain)
        self._made.append(target.names)
        return Tenant(custom_object, target)

    async def scale(self, tenant: Tenant, *, minimum: int, maximum: int) -> Tenant:
        """Change how many replicas the application may have."""
        scaling = {"min": minimum, "max": maximum}
        operations = [{"op": "add", "path": "/spec/scaling", "value": scaling}]
        await self.kube.json_patch(custom_resource(Kind.APPLICATION), tenant.names.stem, operations, self.namespace)
        held = await self.kube.get(custom_resource(Kind.APPLICATION), tenant.names.stem, self.namespace)
        assert held is not None
        custom_object = CustomObject.from_api(Kind.APPLICATION, held)
        return Tenant(custom_object, application_target(custom_object, base_domain=self._settings.base_domain))

    async def recreate(self, tenant: Tenant, **database: Any) -> Tenant:
        """Delete the object and make it again: the same name under another UID."""
        await self.kube.delete(custom_resource(Kind.APPLICATION), tenant.names.stem, self.namespace)
        return await self.apply(tenant.names.stem, **database)

    async def secret(self, tenant: Tenant) -> dict[str, str]:
        body = await self.kube.get(SECRETS, tenant.names.database_secret, self.namespace)
        if body is None:
            return {}
        return {key: b64decode(value).decode() for key, value in body["data"].items()}

    async def delete_secret(self, tenant: Tenant) -> None:
        await self.kube.delete(SECRETS, tenant.names.database_secret, self.namespace)

    async def session(self, tenant: Tenant) -> AsyncConnection[TupleRow]:
        """Return a connection as the application opens one: with nothing but DATABASE_URL."""
        secret = await self.secret(tenant)
        return await AsyncConnection.connect(secret["DATABASE_URL"], autocommit=True, connect_timeout=5)

    async def query(self, tenant: Tenant, *statements: str) -> list[TupleRow]:
        """Run statements in one session of the application; return the last one's rows."""
        rows: list[TupleRow] = []
        async with await self.session(tenant) as connection:
            for statement in statements:
                cursor = await connection.execute(statement.encode())
                rows = await cursor.fetchall() if cursor.description else []
        return rows

    async def forget(self) -> None:
        for names in self._made:
            await drop_everything(self._superuser, names)


class Databases:
    """Both halves of the database step."""

    def __init__(
        self, kube: KubeClient, postgres: PostgresClient, settings: Settings, loader: TargetLoader | None = None
    ) -> None:
        provisioning = DatabaseActivities(
            loader or TargetLoader(kube, settings), kube, postgres, EventRecorder(kube), settings
        )
        removal = DatabaseRemovalActivities(kube, postgres, EventRecorder(kube))
        self.reconcile_database = provisioning.reconcile_database
        self.delete_database = removal.delete_database
        self._postgres = postgres

    def dropping(self, step: CleanupStepInput) -> Dropping:
        """Return what drops for a cleanup, one step at a time."""
        return Dropping(self._postgres, step, estate(step.reference), None, CLEANUP_BUDGET)


async def drop_everything(superuser: Superuser, names: Names) -> None:
    """Remove schema and roles by name, whoever has them."""
    roles = [names.app_role, names.anon_role]
    await superuser.execute(
        "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = ANY (%s::text[])", [roles]
    )
    await superuser.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(names.schema_name)))
    for role in roles:
        if (await superuser.execute("SELECT FROM pg_roles WHERE rolname = %s", [role])).rowcount:
            await superuser.execute(SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(Identifier(role)))


async def left_of(superuser: Superuser, tenants: Tenants, tenant: Tenant) -> set[str]:
    """Return the names that a tenant still has, in PostgreSQL and Kubernetes."""
    names = tenant.names
    cursor = await superuser.execute(
        """
        SELECT rolname::text FROM pg_roles WHERE rolname = ANY (%(roles)s)
        UNION ALL SELECT nspname::text FROM pg_namespace WHERE nspname = %(schema)s
        """,
        {"roles": [names.app_role, names.anon_role], "schema": names.schema_name},
    )
    left = {row[0] for row in await cursor.fetchall()}
    return left | ({names.database_secret} if await tenants.secret(tenant) else set())


async def events_of(kube: KubeClient, tenant: Tenant) -> dict[str, str]:
    """Return the messages of the Events about an application, by reason."""
    namespace = tenant.target.owner.reference.namespace
    listed = await kube.list(EVENTS, namespace)
    return {each["reason"]: each["message"] for each in listed if each["involvedObject"]["name"] == tenant.names.stem}


async def catalogue_rows(superuser: Superuser, tenant: Tenant) -> list[tuple[object, ...]]:
    """Return the versions of every catalogue row that a tenant has."""
    names = tenant.names
    roles = [names.app_role, names.anon_role]
    cursor = await superuser.execute(
        """
        SELECT 'role', oid, xmin::text FROM pg_authid WHERE rolname = ANY (%(roles)s)
        UNION ALL SELECT 'record', objoid, xmin::text FROM pg_shdescription
            WHERE objoid IN (SELECT oid FROM pg_authid WHERE rolname = ANY (%(roles)s))
        UNION ALL SELECT 'member', roleid, xmin::text FROM pg_auth_members
            WHERE member IN (SELECT oid FROM pg_authid WHERE rolname = ANY (%(roles)s))
        UNION ALL SELECT 'setting', setrole, xmin::text FROM pg_db_role_setting
            WHERE setrole IN (SELECT oid FROM pg_authid WHERE rolname = ANY (%(roles)s))
        UNION ALL SELECT 'schema', oid, xmin::text FROM pg_namespace WHERE nspname = %(schema)s
        UNION ALL SELECT 'preset', oid, xmin::text FROM pg_default_acl
            WHERE defaclnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
        ORDER BY 1, 2
        """,
        {"roles": roles, "schema": names.schema_name},
    )
    return await cursor.fetchall()


@pytest.fixture(scope="session")
def database_settings(platform: Platform, database_endpoints: Endpoints) -> Settings:
    values = environment(database_endpoints, "worker")
    database = {name: value for name, value in values.items() if name.startswith("DB_")}
    return Settings.from_mapping(platform.environment() | database)


@pytest.fixture(scope="session")
async def superuser(database_endpoints: Endpoints) -> AsyncIterator[Superuser]:
    connection = await AsyncConnection.connect(database_endpoints.database_superuser_url, autocommit=True)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
async def database_kube(platform: Platform) -> AsyncIterator[KubeClient]:
    kube = await KubeClient.connect(str(platform.endpoints.kubeconfig_admin), cluster=CLUSTER)
    yield kube
    await kube.close()


@pytest.fixture(scope="session")
async def database_namespace(database_kube: KubeClient) -> AsyncIterator[str]:
    namespace = f"database-{secrets.token_hex(4)}"
    await database_kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    yield namespace
    await database_kube.delete(NAMESPACES, namespace)


@pytest.fixture
async def tenants(
    database_kube: KubeClient, database_settings: Settings, superuser: Superuser, database_namespace: str
) -> AsyncIterator[Tenants]:
    tenants = Tenants(database_kube, database_settings, superuser, database_namespace)
    yield tenants
    await tenants.forget()


@pytest.fixture(scope="session")
async def postgres(database_settings: Settings) -> AsyncIterator[PostgresClient]:
    client = await PostgresClient.connect(database_settings)
    # The private schema is this admin's, whichever other one a test brings along.
    async with client.locked(STRANGER.reference, "make the private schema"):
        pass
    yield client
    await client.close()


@pytest.fixture(scope="session")
async def databases(database_kube: KubeClient, database_settings: Settings, postgres: PostgresClient) -> Databases:
    return activities_with(database_kube, postgres, database_settings)


@pytest.fixture
async def fused_postgres(database_settings: Settings) -> AsyncIterator[FusedPostgres]:
    client = await FusedPostgres.connect(database_settings)
    yield client
    await client.close()


@pytest.fixture
async def watched_postgres(database_settings: Settings) -> AsyncIterator[WatchedPostgres]:
    client = await WatchedPostgres.connect(database_settings)
    client.numbers = []
    yield client
    await client.close()


@pytest.fixture
async def open_postgres(superuser: Superuser) -> AsyncIterator[None]:
    """Database `postgres` as it is before its owner closes it: everybody may connect."""
    await superuser.execute("GRANT CONNECT ON DATABASE postgres TO PUBLIC")
    yield
    await superuser.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients made from now on give up after two seconds; the pool's second try is after one."""
    monkeypatch.setattr("clients.postgres.POOL_SECONDS", 2.0)


def activities_with(kube: KubeClient, postgres: PostgresClient, settings: Settings) -> Databases:
    return Databases(kube, postgres, settings)
