"""What the auditor checks: things in the backends, the objects that own them, and what can be wrong with them."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator

from plattr.errors import PlattrError
from plattr.objects import CustomObject, FrozenModel, owner_named


class AuditFailed(PlattrError):
    """Raised when a backend cannot be asked. An audit that has not seen everything must not report."""

    reason = "AuditFailed"


class ThingKind(StrEnum):
    """The kinds of things that Plattr makes, in any backend."""

    CLAIM = "claim"
    SCHEMA = "schema"
    ROLE = "role"
    BUCKET = "bucket"
    REALM = "realm"
    CLIENT = "client"
    INDEX = "index"
    REDIS_USER = "user of Redis"
    NAMESPACE = "Namespace"
    SECRET = "Secret"  # noqa: S105  a kind, not a password
    CONFIG_MAP = "ConfigMap"
    SERVICE_ACCOUNT = "ServiceAccount"
    DEPLOYMENT = "Deployment"
    SERVICE = "Service"
    INGRESS = "Ingress"
    AUTOSCALER = "HorizontalPodAutoscaler"
    POD = "Pod"
    SQL_OBJECT = "object"
    DATABASE = "database"


class Thing(FrozenModel):
    """One thing that exists or should exist.

    `scope` is the namespace of a Kubernetes object, the realm of a client, or what a claim is about.
    """

    kind: ThingKind
    name: str
    scope: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.scope}/{self.name}" if self.scope else f"{self.kind} {self.name}"


def _uid_named(mark: object) -> str | None:
    if mark in (None, ""):
        return None
    if isinstance(mark, str) and re.fullmatch(r"[-A-Za-z0-9]{1,64}", mark):
        return mark
    return "unreadable"


class Found(FrozenModel):
    """A thing that exists, and the owner that it names."""

    thing: Thing
    # Tenants can write on their own things, and a terminal could execute control characters in what is printed.
    owner: Annotated[str | None, BeforeValidator(owner_named)]
    """The owner's key, `{namespace}/{kind}/{name}`; None if it carries no owner mark of Plattr."""
    uid: Annotated[str | None, BeforeValidator(_uid_named)] = None
    cluster: Annotated[str | None, BeforeValidator(_uid_named)] = None
    namespace_uid: Annotated[str | None, BeforeValidator(_uid_named)] = None
    is_retained: bool = False
    """For a claim: what it stands for outlives its object."""
    is_quarantined: bool = False
    """For a claim: its object is gone, and a call without an answer may still create what the claim stands for."""


class Home(FrozenModel):
    """The objects' cluster and its namespaces. A thing that carries their keys may still belong to another cluster."""

    cluster: str
    namespaces: dict[str, str]
    """The UID of each namespace by its name."""

    def stranger(self, found: Found) -> str | None:
        """Return which other cluster, or which earlier namespace, a thing belongs to; None if neither."""
        if found.owner is None:
            return None
        if found.cluster is not None and found.cluster != self.cluster:
            return f"cluster {found.cluster}"
        uid = self.namespaces.get(found.owner.partition("/")[0])
        is_earlier = uid is not None and found.namespace_uid is not None and found.namespace_uid != uid
        return "an earlier namespace of that name" if is_earlier else None


class AuditedObject(FrozenModel):
    """An object, and what it asks for. An object that is not settled is still being worked on, and is not judged."""

    custom_object: CustomObject
    expected: frozenset[Thing] | None = None
    """None if it is not known, for example for a preview whose parent is gone."""

    @property
    def key(self) -> str:
        """Return the object's key, which its resources carry as their owner."""
        return self.custom_object.reference.key

    @property
    def is_settled(self) -> bool:
        """Tell whether the object is judged."""
        return self.custom_object.is_settled

    def is_same(self, other: "AuditedObject") -> bool:
        """Tell whether both are the same object with the same spec."""
        metadata, others = self.custom_object.metadata, other.custom_object.metadata
        return (metadata.uid, metadata.generation) == (others.uid, others.generation)


class AuditProblem(StrEnum):
    """What can be wrong."""

    ORPHAN = "orphan"
    UNMARKED = "unmarked"
    MISSING = "missing"
    DUPLICATE = "duplicate"
    FOREIGN = "foreign"
    CLUSTER = "cluster"
    NAMESPACE = "namespace"
    LOGIN = "login"
    ADMINS = "admins"
    MEMBER = "member"
    POWER = "power"
    OPEN = "open"

    @property
    def meaning(self) -> str:
        """Return what the word means, for a person."""
        return _MEANINGS[self]


_MEANINGS = {
    AuditProblem.ORPHAN: "its owner does not exist, and nothing says that it is to outlive it; of an object that"
    " vanished, plattr cleanup --orphan removes what is left",
    AuditProblem.UNMARKED: "named like Plattr's own, and says of no owner that it is his",
    AuditProblem.MISSING: "a Running object lacks it",
    AuditProblem.DUPLICATE: "a Running object has it beside what it asks for",
    AuditProblem.FOREIGN: "a Running object needs it, and it is another's",
    AuditProblem.CLUSTER: "it is in this cluster and marked as another's, as after a restore under another CLUSTER_ID:"
    " plattr adopt takes it over; that cluster may be alive, so delete nothing for it",
    AuditProblem.NAMESPACE: "recorded for an earlier namespace of that name; plattr adopt takes it over, plattr cleanup"
    " --orphan removes it once no object has the name",
    AuditProblem.ADMINS: "the admin, or the role that all applications share, owns it, and it is not Plattr's own: what"
    " a tenant wrote would run with its rights",
    AuditProblem.MEMBER: "an application's role is a member of a role that Plattr did not give it",
    AuditProblem.POWER: "an application's role has an attribute that Plattr did not give it",
    AuditProblem.OPEN: "everybody may connect to it, and hold up there what names another's role; as its owner: REVOKE"
    " CONNECT ON DATABASE ... FROM PUBLIC, and GRANT it to the admin",
    AuditProblem.LOGIN: "the password in the Secret does not log in to the object's schema",
}


class Finding(FrozenModel):
    """One thing that is wrong."""

    problem: AuditProblem
    thing: Thing
    owner: str
    detail: str = ""
