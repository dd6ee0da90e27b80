"""What exists in PostgreSQL, and whether a password logs in."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
import psycopg
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from cli.auditing import rights
from cli.auditing.inventory import AuditFailed, Finding, Found, Thing, ThingKind
from plattr.settings import Settings

_PREFIX = "plattr:"
_CONNECT_SECONDS = 5

# An application owns its schema and can change the schema's comment, so the comment of its role takes precedence.
_SCHEMAS = """
SELECT ns.nspname, obj_description(ns.oid, 'pg_namespace'), shobj_description(ns.nspowner, 'pg_authid')
FROM pg_namespace AS ns WHERE ns.nspname !~ '^pg_' AND ns.nspname <> 'information_schema'
"""
_ROLES = "SELECT rolname, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname !~ '^pg_'"
_LOGIN = "SELECT current_user, current_schema()"


class PostgresListing:
    """Ask one PostgreSQL server as its admin."""

    def __init__(self, settings: Settings) -> None:
        self._parameters = _admin(settings)

    def found(self) -> list[Found]:
        """Return every schema and role except the server's own."""
        with _translated("list the schemas and roles of PostgreSQL"), self._connect() as connection:
            schemas = connection.execute(_SCHEMAS).fetchall()
            roles = connection.execute(_ROLES).fetchall()
        return [
            *(_found(ThingKind.SCHEMA, name, by_role if _is_ours(by_role) else own) for name, own, by_role in schemas),
            *(_found(ThingKind.ROLE, name, comment) for name, comment in roles),
        ]

    def findings(self) -> list[Finding]:
        """Return what is wrong with rights, regardless of the objects."""
        with _translated("look at the rights in PostgreSQL"), self._connect() as connection:
            return rights.findings(connection)

    def login_failure(self, secret: Mapping[str, str], role: str, schema: str) -> str | None:
        """Return why a database Secret is useless to its application; None if it works.

        The check uses the admin's server address, because the Secret's address may be known only inside the cluster.
        """
        if (secret.get("DB_USER"), secret.get("DB_SCHEMA")) != (role, schema):
            return f"it is for role {secret.get('DB_USER')!r} and schema {secret.get('DB_SCHEMA')!r}"
        login = {"user": role, "password": secret.get("DB_PASSWORD", "")}
        try:
            with self._connect(**login) as connection:
                row = connection.execute(_LOGIN).fetchone()
        except psycopg.OperationalError as error:
            return str(error).partition("\n")[0]
        return None if row == (role, schema) else f"it logs in to {row}"

    def _connect(self, **login: str) -> psycopg.Connection[Any]:
        return psycopg.connect(**(self._parameters | login))


def _admin(settings: Settings) -> dict[str, Any]:
    known = {"host": settings.db_host, "port": settings.db_port, "dbname": settings.db_name}
    if settings.db_admin_url is not None:
        try:
            given: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(settings.db_admin_url.get_secret_value())
        except psycopg.ProgrammingError:
            # libpq's error quotes the URL, which contains the password.
            raise AuditFailed("cannot ask PostgreSQL: DB_ADMIN_URL is not a libpq URL") from None
        return known | given | {"connect_timeout": _CONNECT_SECONDS}
    try:
        answer = boto3.client("secretsmanager", region_name=settings.aws_region).get_secret_value(
            SecretId=settings.db_secret_arn or ""
        )
        secret = json.loads(answer["SecretString"])
        login = {"user": secret["username"], "password": secret["password"]}
    except (BotoCoreError, ClientError, ResponseParserError, KeyError, ValueError) as error:
        raise AuditFailed(f"cannot read the database login from DB_SECRET_ARN: {type(error).__name__}") from None
    return known | login | {"connect_timeout": _CONNECT_SECONDS}


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise AuditFailed(f"cannot {action}: {str(error).partition(chr(10))[0]}") from None


def _is_ours(comment: str | None) -> bool:
    return comment is not None and comment.startswith(_PREFIX)


def _found(kind: ThingKind, name: str, comment: str | None) -> Found:
    record: Any = None
    if comment is not None and _is_ours(comment):
        try:
            record = json.loads(comment.removeprefix(_PREFIX))
        except ValueError:
            record = None
    is_record = isinstance(record, dict)
    return Found(
        thing=Thing(kind=kind, name=name),
        owner=record.get("owner") if is_record else None,
        uid=record.get("uid") if is_record else None,
        cluster=record.get("cluster") if is_record else None,
        namespace_uid=record.get("namespaceUid") if is_record else None,
    )
