"""References to the custom resources, and the objects themselves."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "platform.internal"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FINALIZER = f"{GROUP}/cleanup"
PAUSED_ANNOTATION = f"{GROUP}/paused"

# A Service's name begins with a letter, and so do the SQL names that Plattr derives from an object's name.
OBJECT_NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"

UNREADABLE_OWNER = "an unreadable owner"
NO_OWNER = "nobody that Plattr knows"
_KEY_PATTERN = re.compile(
    # A namespace, and a name that Plattr accepts: DNS labels of at most 63 characters. `\Z`, since `$` accepts a
    # newline.
    r"(?P<namespace>[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)/(?P<kind>[A-Za-z]+)/(?P<name>[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)\Z"
)


class FrozenModel(BaseModel):
    """A value: immutable, camelCase on the wire, snake_case in Python."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class Kind(StrEnum):
    """The custom resources."""

    APPLICATION = "Application"
    PREVIEW = "PreviewEnvironment"

    @property
    def plural(self) -> str:
        """Return the resource name in API paths."""
        return "applications" if self is Kind.APPLICATION else "previewenvironments"


class ObjectReference(FrozenModel):
    """Which object: workflows carry this reference instead of the object itself."""

    kind: Kind = Kind.APPLICATION
    namespace: str = Field(min_length=1)
    name: str = Field(min_length=1)

    @property
    def key(self) -> str:
        """Return `{namespace}/{kind}/{name}`, the owner that every external resource names."""
        return f"{self.namespace}/{self.kind}/{self.name}"

    def __str__(self) -> str:
        return self.key


def parse_key(text: str) -> ObjectReference | None:
    """Return the object that a key names; None when Plattr would not write such a key."""
    match = _KEY_PATTERN.match(text)
    if match is None or match["kind"] not in set(Kind):
        return None
    return ObjectReference(kind=Kind(match["kind"]), namespace=match["namespace"], name=match["name"])


def owner_named(mark: object) -> str | None:
    """Return the key in a resource's owner mark; None when it has no mark.

    Tenants can write the comments, tags and annotations of their own resources. A mark that is not a key becomes
    `UNREADABLE_OWNER`, which names no object. So no condition, Event, UI or terminal shows what they write there.
    """
    if mark is None or mark == "":
        return None
    return mark if isinstance(mark, str) and parse_key(mark) else UNREADABLE_OWNER


class Owner(FrozenModel):
    """The owner of a resource: the object, its uid, and the cluster and namespace that it belongs to.

    An empty cluster or namespace uid matches nothing that a worker has marked.
    """

    reference: ObjectReference
    uid: str
    cluster: str = ""
    namespace_uid: str = ""

    def __str__(self) -> str:
        return f"{self.reference.key} (uid {self.uid})"


class Metadata(FrozenModel):
    """The part of an object's metadata that Plattr reads."""

    namespace: str
    name: str
    uid: str
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime
    deletion_timestamp: datetime | None = None
    finalizers: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class CustomObject(FrozenModel):
    """An object as the API server holds it; its spec is not yet validated.

    Plattr must be able to delete an object whose spec the models refuse. So cleanup works from this object alone.
    """

    kind: Kind
    metadata: Metadata
    spec: dict[str, Any] = Field(default_factory=dict)
    status: dict[str, Any] = Field(default_factory=dict)
    cluster: str = ""
    """The cluster that the object belongs to. The API server does not tell it. A caller that makes something for the
    object sets it."""
    namespace_uid: str = ""

    @classmethod
    def from_api(cls, kind: Kind, body: dict[str, Any]) -> Self:
        """Read the API server's answer; the caller gives the kind, because list items do not carry it."""
        parts = {part: body[part] for part in ("metadata", "spec", "status") if body.get(part) is not None}
        return cls.model_validate({**parts, "kind": kind})

    @property
    def reference(self) -> ObjectReference:
        """Return the reference to this object."""
        return ObjectReference(kind=self.kind, namespace=self.metadata.namespace, name=self.metadata.name)

    @property
    def owner(self) -> Owner:
        """Return the owner that this object's resources name."""
        return Owner(
            reference=self.reference, uid=self.metadata.uid, cluster=self.cluster, namespace_uid=self.namespace_uid
        )

    @property
    def environment(self) -> str:
        """Return `preview` for a preview, and the environment in the spec for an Application."""
        return "preview" if self.kind is Kind.PREVIEW else str(self.spec.get("environment", ""))

    @property
    def phase(self) -> str:
        """Return the phase in the status; empty before the first run has written one."""
        return str(self.status.get("phase") or "")

    @property
    def observed_generation(self) -> int:
        """Return the generation that the status belongs to; 0 before the first run."""
        return int(self.status.get("observedGeneration") or 0)

    @property
    def conditions(self) -> list[dict[str, Any]]:
        """Return the conditions in the status, never validated here."""
        return list(self.status.get("conditions") or ())

    @property
    def expires_at(self) -> datetime | None:
        """Return when a preview ends, once a run has written it."""
        end = self.status.get("expiresAt")
        return datetime.fromisoformat(end) if end else None

    @property
    def has_finalizer(self) -> bool:
        """Tell whether Plattr's finalizer blocks the object's deletion."""
        return FINALIZER in self.metadata.finalizers

    @property
    def is_deleting(self) -> bool:
        """Tell whether the API server has been asked to delete the object."""
        return self.metadata.deletion_timestamp is not None

    @property
    def is_paused(self) -> bool:
        """Tell whether a person has told Plattr not to touch the object."""
        return self.metadata.annotations.get(PAUSED_ANNOTATION, "").lower() == "true"

    @property
    def is_settled(self) -> bool:
        """Tell whether the last run for exactly this spec ended in Running."""
        return not self.is_deleting and self.observed_generation == self.metadata.generation and self.phase == "Running"
