"""What an owner has in the database, and what removes it."""

from collections.abc import Collection
from typing import Self

from plattr import sql, sql_removal
from plattr.database import recorded_uid
from plattr.objects import FrozenModel


class OwnedSchema(FrozenModel):
    """One schema of an owner: a row of `sql_removal.OWNED_SCHEMAS`."""

    name: str
    record: str


class OwnedRole(FrozenModel):
    """One role of an owner: a row of `sql_removal.OWNED_ROLES`."""

    oid: int
    name: str
    record: str
    can_login: bool
    admin_has_it: bool


class Inventory(FrozenModel):
    """Every schema and role that an owner has."""

    schemas: tuple[OwnedSchema, ...]
    roles: tuple[OwnedRole, ...]

    def without(self, uid: str | None) -> Self:
        """Return what is not of this incarnation of the owner."""
        if uid is None:
            return self
        return self.model_copy(
            update={
                "schemas": tuple(schema for schema in self.schemas if recorded_uid(schema.record) != uid),
                "roles": tuple(role for role in self.roles if recorded_uid(role.record) != uid),
            }
        )

    def without_names(self, *, schemas: Collection[str], roles: Collection[str]) -> Self:
        """Return what bears none of these names."""
        return self.model_copy(
            update={
                "schemas": tuple(schema for schema in self.schemas if schema.name not in schemas),
                "roles": tuple(role for role in self.roles if role.name not in roles),
            }
        )

    @property
    def schema_names(self) -> list[str]:
        """Return the schemas' names."""
        return [schema.name for schema in self.schemas]

    @property
    def role_names(self) -> list[str]:
        """Return the roles' names."""
        return [role.name for role in self.roles]

    @property
    def role_ids(self) -> list[int]:
        """Return the roles' object ids."""
        return [role.oid for role in self.roles]


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


def removal_statements(inventory: Inventory) -> list[sql.Statement]:
    """Return what removes an owner's schemas and roles, in the order of shared/spec.md, section 5.

    The seed's REVOKE and ALTER DEFAULT PRIVILEGES have nothing left to do: the schema takes its tables' grants with
    it, and DROP OWNED the defaults. See docs/decisions/0012-schema-dropped-first.md.
    """
    return [
        *(sql_removal.drop_schema(schema) for schema in inventory.schema_names),
        *(sql_removal.drop_role(role) for role in inventory.role_names),
    ]
