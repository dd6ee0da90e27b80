"""PostgreSQL with a database `plattr` and an admin role that is not a superuser, as on a managed server."""

import os
import pwd
import re
import signal
from pathlib import Path

import psycopg
from psycopg import sql

from stack.errors import PlatformError
from stack.folders import write_private
from stack.processes import Command, run, unprivileged_user
from stack.services.base import Service, Site

DATABASE = "plattr"
SUPERUSER = "postgres"
ADMIN = "provisioner"
# CONNECT is granted to this role once. Each further grant would update the same catalogue row, and concurrent grants
# would fail.
APPLICATIONS = "plattr_apps"
# From this version on, the server has its own C.UTF-8, which sorts and folds case the same everywhere.
BUILTIN_LOCALE_MAJOR = 17
# From this version on, the creator of a role is not automatically its member. This setting, unknown in earlier
# versions, makes it one.
SELF_GRANT_VERSION = 160000
# From this version on, connections can be reserved for roles that are not superusers.
RESERVE_MAJOR = 16
# The pools of two workers, 5 connections each, the same for their replacements during an update, and one person.
RESERVED_CONNECTIONS = 21
SERVER_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    # Two connections for each of some sixty applications under test, and the pools.
    "max_connections": "200",
    # A login that never finishes holds a connection this long, even one of the admin's reserved ones. The server's
    # default is a minute.
    "authentication_timeout": "5s",
    # Safe against kill -9, but not against power loss. The platform is for development.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


def database_url(site: Site, role: str) -> str:
    """Return the libpq URL of the superuser or the admin."""
    password = site.credential("postgres-superuser" if role == SUPERUSER else "postgres-provisioner")
    return f"postgresql://{role}:{password}@127.0.0.1:{site.port('postgres')}/{DATABASE}"


class Postgres(Service):
    """PostgreSQL. It refuses root, so for root it runs as another user."""

    name = "postgres"
    ports = ("postgres",)
    # SIGINT is a fast shutdown. SIGTERM would wait until every client disconnects.
    stop_signal = signal.SIGINT

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.user = unprivileged_user()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.site.port('postgres')}"

    @property
    def cluster(self) -> Path:
        """The data directory."""
        return self.folder / "cluster"

    def prepare(self) -> None:
        """Create the cluster at the first start."""
        super().prepare()
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
            self._refuse_unreachable()
        if (self.cluster / "PG_VERSION").exists():
            return
        password_file = self.folder / "password"
        write_private(password_file, self.site.credential("postgres-superuser"))
        if self.user is not None:
            os.chown(password_file, pwd.getpwnam(self.user).pw_uid, -1)
        try:
            run(
                Command(
                    arguments=(
                        *(self.site.tool("initdb"), "-D", str(self.cluster), "-U", SUPERUSER, "--no-sync"),
                        *("-A", "scram-sha-256", f"--pwfile={password_file}", "-E", "UTF8"),
                        *self._locale(),
                    ),
                    user=self.user,
                )
            )
        finally:
            password_file.unlink()

    def command(self) -> Command:
        """Start the server directly, without pg_ctl, so that it is the supervisor's child."""
        values = dict(SERVER_SETTINGS)
        if self._major() >= RESERVE_MAJOR:
            values["reserved_connections"] = str(RESERVED_CONNECTIONS)
        settings = [word for name, value in values.items() for word in ("-c", f"{name}={value}")]
        arguments = (self.site.tool("postgres"), "-D", str(self.cluster), "-p", str(self.site.port("postgres")))
        return Command(arguments=(*arguments, *settings), user=self.user)

    def is_healthy(self) -> bool:
        """Tell whether it accepts connections, which it does after its recovery."""
        try:
            self._connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def set_up(self) -> None:
        """Create the database, the admin and the group role. A second run changes nothing."""
        with self._connect("postgres") as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        self._make_admin()
        self._close_the_others()

    def _make_admin(self) -> None:
        with self._connect(DATABASE) as connection, connection.transaction():
            self._make_roles(connection)
            if connection.info.server_version >= RESERVE_MAJOR * 10000:
                # Applications may use all other connections, and Plattr can still connect.
                connection.execute(sql.SQL("GRANT pg_use_reserved_connections TO {}").format(sql.Identifier(ADMIN)))

    def _make_roles(self, connection: psycopg.Connection) -> None:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [ADMIN]).rowcount:
            return
        password = connection.pgconn.encrypt_password(
            self.site.credential("postgres-provisioner").encode(), ADMIN.encode(), b"scram-sha-256"
        ).decode()
        names = {
            "admin": sql.Identifier(ADMIN),
            "apps": sql.Identifier(APPLICATIONS),
            "database": sql.Identifier(DATABASE),
            "password": sql.Literal(password),
        }
        # Otherwise CREATE SCHEMA ... AUTHORIZATION fails with 42501 for a role that the admin created.
        self_grant = ["ALTER ROLE {admin} SET createrole_self_grant = 'set, inherit'"]
        if connection.info.server_version < SELF_GRANT_VERSION:
            self_grant = []
        for statement in (
            "CREATE ROLE {admin} LOGIN CREATEROLE PASSWORD {password}",
            "GRANT CREATE ON DATABASE {database} TO {admin}",
            *self_grant,
            "CREATE ROLE {apps} NOLOGIN",
            "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC",
            "GRANT CONNECT ON DATABASE {database} TO {apps}",
            "GRANT {apps} TO {admin} WITH ADMIN OPTION",
        ):
            connection.execute(sql.SQL(statement).format(**names))

    def _close_the_others(self) -> None:
        """Let only the admin connect to the other databases: where a tenant connects, it can name another's role."""
        with self._connect(DATABASE) as connection:
            is_open = "SELECT FROM pg_database WHERE datname = %s AND has_database_privilege('public', oid, 'CONNECT')"
            for database in ("postgres", "template1"):
                if connection.execute(is_open, [database]).rowcount:
                    names = {"database": sql.Identifier(database), "admin": sql.Identifier(ADMIN)}
                    for statement in (
                        "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC",
                        "GRANT CONNECT ON DATABASE {database} TO {admin}",
                    ):
                        connection.execute(sql.SQL(statement).format(**names))

    def _major(self) -> int:
        told = run(Command(arguments=(self.site.tool("postgres"), "--version"), user=self.user))
        # The text looks like `postgres (PostgreSQL) 15.19 (Debian 15.19-1)`.
        found = re.search(r"\(PostgreSQL\) (\d+)", told)
        if found is None:
            raise PlatformError(
                f"cannot run {self.site.tool('postgres')}: it tells no version but {told.strip()!r}; set"
                " PLATTR_BIN_POSTGRES to a server"
            )
        return int(found[1])

    def _locale(self) -> tuple[str, ...]:
        """Return initdb's arguments for the same sort order on every machine."""
        if self._major() < BUILTIN_LOCALE_MAJOR:
            return ("--locale=C",)
        return ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")

    def _connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.site.port("postgres"),
            user=SUPERUSER,
            password=self.site.credential("postgres-superuser"),
            dbname=database,
            connect_timeout=3,
            autocommit=True,
        )

    def _refuse_unreachable(self) -> None:
        for path in (self.folder, Path(self.site.tool("postgres"))):
            try:
                run(Command(arguments=("ls", "-d", f"{path}/." if path.is_dir() else str(path)), user=self.user))
            except PlatformError:
                raise PlatformError(
                    f"cannot run PostgreSQL as user {self.user!r}: it cannot reach {path} "
                    "(a folder above it is private); set PLATTR_STATE or PLATTR_CACHE to a folder it can pass through"
                ) from None
