"""What an owner has in the database, what others made of it, and the statements that remove it."""

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Self, TypeVar

from plattr import sql, sql_removal
from plattr.database import recorded_mark, recorded_owner
from plattr.errors import BackendRefused, HeldByDependents
from plattr.objects import FrozenModel, ObjectReference, Owner, parse_key

# A message names this many things or sessions, and counts the rest.
NAMED_AT_MOST = 5


class OwnedSchema(FrozenModel):
    """One schema of an owner: a row of `sql_removal.OWNED_SCHEMAS`."""

    oid: int
    name: str
    record: str


class OwnedRole(FrozenModel):
    """One role of an owner: a row of `sql_removal.OWNED_ROLES`."""

    oid: int
    name: str
    record: str
    can_login: bool
    admin_has_it: bool


class Place(FrozenModel):
    """Another database in which the roles have something: a row of `sql_removal.OTHER_DATABASES`."""

    name: str
    admin: str
    """Quoted as SQL needs it."""
    is_open: bool
    """False: nobody may connect."""
    may_connect: bool


class Inventory(FrozenModel):
    """Every schema and role that an owner has."""

    schemas: tuple[OwnedSchema, ...]
    roles: tuple[OwnedRole, ...]

    def without(self, uid: str | None) -> Self:
        """Return what does not carry this uid."""
        if uid is None:
            return self
        return self.model_copy(
            update={
                "schemas": tuple(schema for schema in self.schemas if not _is_of(schema.record, uid)),
                "roles": tuple(role for role in self.roles if not _is_of(role.record, uid)),
            }
        )

    def without_names(self, *, schemas: Collection[str], roles: Collection[str]) -> Self:
        """Return what has none of these names."""
        return self.model_copy(
            update={
                "schemas": tuple(schema for schema in self.schemas if schema.name not in schemas),
                "roles": tuple(role for role in self.roles if role.name not in roles),
            }
        )

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to remove."""
        return not self.schemas and not self.roles

    @property
    def schema_names(self) -> list[str]:
        """Return the schemas' names."""
        return [schema.name for schema in self.schemas]

    @property
    def schema_ids(self) -> list[int]:
        """Return the schemas' object ids."""
        return [schema.oid for schema in self.schemas]

    @property
    def role_names(self) -> list[str]:
        """Return the roles' names."""
        return [role.name for role in self.roles]

    @property
    def role_ids(self) -> list[int]:
        """Return the roles' object ids."""
        return [role.oid for role in self.roles]


class Dependent(FrozenModel):
    """A thing of another owner that would go with the owner's: a row of `sql_dependents.DEPENDENTS`."""

    kind: str | None
    identity: str | None
    role: str | None
    record: str | None
    holds: bool
    """False: it names the owner's thing by object id alone, and goes with it."""

    @property
    def name(self) -> str:
        """Return what it is, in words that are safe to show."""
        return thing_named(self.kind, self.identity)

    @property
    def holder(self) -> str:
        """Return whose it is: the application by its key, else the role."""
        return recorded_owner(self.record) or f"role {shown(quoted(self.role or 'unknown'))}"


class Candidate(FrozenModel):
    """A thing of the owner's that one statement can drop: a row of `sql_dependents.CANDIDATES`."""

    class_id: int
    object_id: int
    locks: int
    is_lockable: bool
    identity: str
    statement: str

    @property
    def drop(self) -> sql.Statement:
        """Return the statement; RESTRICT when nothing depends on the thing, so that a new dependent stops the drop."""
        return sql_removal.of_server(f"{self.statement} {'RESTRICT' if self.locks == 1 else 'CASCADE'}")


class Piece(FrozenModel):
    """A thing of another owner that has no right to hold a deletion: a row of `sql_dependents.PIECES_BY_ID`."""

    object_id: int
    locks: int
    statement: str
    admin: str
    doors: tuple[tuple[str, str], ...]
    """Owner and name of each schema that is closed to the admin."""

    @property
    def drop(self) -> list[sql.Statement]:
        """Return the statements."""
        return sql_removal.let_in(self.admin, self.doors, sql_removal.of_server(self.statement))


class Blocker(FrozenModel):
    """A session of another role that blocked a removal: a row of `sql_removal.END_BLOCKERS` or `END_STRANGERS`."""

    pid: int
    role: str
    record: str | None
    ended: bool

    @property
    def holder(self) -> str:
        """Return whose it is: the application by its key, else the role."""
        return recorded_owner(self.record) or f"role {shown(quoted(self.role))}"


Weighed = TypeVar("Weighed", Candidate, Piece)


def chosen(candidates: Iterable[Weighed], *, locks: int) -> list[Weighed]:
    """Return, in their order, the candidates that one transaction can drop with at most this many locks."""
    some = []
    for candidate in candidates:
        if candidate.locks <= locks:
            some.append(candidate)
            locks -= candidate.locks
    return some


def drop_statements(some: Sequence[Candidate]) -> list[sql.Statement]:
    """Return what drops the candidates."""
    return [candidate.drop for candidate in some]


def lock_statements(some: Sequence[Candidate]) -> list[sql.Statement]:
    """Return what keeps others from building on the candidates; PostgreSQL can lock tables only."""
    tables = [candidate.identity for candidate in some if candidate.is_lockable]
    return [sql_removal.lock_tables(tables)] if tables else []


def locking_statements(inventory: Inventory, *, has_grant_options: bool) -> list[sql.Statement]:
    """Return what keeps an owner's roles from logging in again, and lets the admin end their sessions."""
    return [
        *(sql.set_login(role.name, allowed=False) for role in inventory.roles if role.can_login),
        *(
            sql.join_admin(role.name, has_options=has_grant_options)
            for role in inventory.roles
            if not role.admin_has_it
        ),
    ]


def emptying_statements(
    inventory: Inventory, *, occupied: Collection[int] = (), cascade: bool = False
) -> list[sql.Statement]:
    """Return what removes the last of what an owner has, except the roles: the schemas first.

    A schema that was empty is dropped without CASCADE: what somebody has put into it since must not go with it.

    The seed's REVOKE and ALTER DEFAULT PRIVILEGES are unnecessary here: the schema's end removes the grants on its
    tables, and DROP OWNED the defaults. See docs/decisions/0012-schema-dropped-first.md.
    """
    return [
        *(sql_removal.drop_schema(schema.name, cascade=schema.oid in occupied) for schema in inventory.schemas),
        *([sql_removal.drop_owned(inventory.role_names, cascade=cascade)] if inventory.roles else []),
    ]


def role_statements(inventory: Inventory) -> list[sql.Statement]:
    """Return what removes the roles, once nothing names them any more."""
    return [sql_removal.drop_role(role) for role in inventory.role_names]


def shown(text: str) -> str:
    """Return a tenant's name in a form that is safe in a condition, an Event and the UI, which reads Markdown.

    A name that PostgreSQL has to quote may hold anything. Of such a name, only letters, digits, `_` and `-` are kept.
    """
    parts = re.split(r'("(?:[^"]|"")*")', text)
    plain = [
        re.sub(r"[^A-Za-z0-9_-]", "?", part[1:-1]) if part.startswith('"') and len(part) > 1 else _plain(part)
        for part in parts
    ]
    # 200: two names of 63 bytes and the words between them.
    return "".join(plain)[:200]


def owner_in(record: str | None) -> Owner | None:
    """Return the owner whom a role's record names; None when it is not a record of ours."""
    mark = recorded_mark(record)
    reference = parse_key(mark.key) if mark is not None else None
    if mark is None or reference is None:
        return None
    return Owner(reference=reference, uid=mark.uid, cluster=mark.cluster, namespace_uid=mark.namespace_uid)


def thing_named(kind: str | None, identity: str | None) -> str:
    """Return what a thing is, in words that are safe to show; the thing may be gone by now."""
    return shown(f"{kind or 'something'} {identity or 'that is gone'}")


def quoted(name: str) -> str:
    """Return the name as PostgreSQL writes one that it has to quote."""
    return '"' + name.replace('"', '""') + '"'


def held(reference: ObjectReference, dependents: Sequence[Dependent]) -> HeldByDependents:
    """Return why a deletion waits."""
    return HeldByDependents(
        f"cannot remove the database of {reference}: it would take {listed(dependents)} with it; have their owners drop"
        " these, or run plattr cleanup --cascade"
    )


def shut(reference: ObjectReference, place: Place) -> BackendRefused:
    """Return why a deletion cannot continue in another database."""
    name = quoted(place.name)
    remedy = f"GRANT CONNECT ON DATABASE {name} TO {place.admin}"
    if not place.is_open:
        remedy = f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"
    return BackendRefused(
        f"cannot remove the database of {reference}: its roles have something in database {place.name!r}, which does"
        f" not let the admin in; {remedy}"
    )


def listed(dependents: Sequence[Dependent]) -> str:
    """Return the things, grouped by their owners, as many as a message can hold."""
    some = sorted(dependents[:NAMED_AT_MOST], key=lambda dependent: dependent.holder)
    parts = [
        f"{', '.join(each.name for each in group)} of {holder}"
        for holder, group in groupby(some, key=lambda dependent: dependent.holder)
    ]
    more = len(dependents) - len(some)
    return "; ".join(parts) + (f"; and {more} more" if more else "")


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_$ .,:()=+-]", "?", text)


def _is_of(record: str, uid: str) -> bool:
    mark = recorded_mark(record)
    return mark is not None and mark.uid == uid
