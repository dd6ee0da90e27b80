"""Finding the object that a person means."""

from dataclasses import dataclass
from datetime import datetime

from cli.connection import Session
from clients.resources import Json, custom_resource
from plattr.errors import PlattrError
from plattr.objects import PAUSED_ANNOTATION, Kind, ObjectReference

KINDS = {
    "application": Kind.APPLICATION,
    "applications": Kind.APPLICATION,
    "app": Kind.APPLICATION,
    "apps": Kind.APPLICATION,
    "previewenvironment": Kind.PREVIEW,
    "previewenvironments": Kind.PREVIEW,
    "preview": Kind.PREVIEW,
    "previews": Kind.PREVIEW,
}


class ObjectNotFound(PlattrError):
    """Raised when the object a person names does not exist, or more than one may be meant."""

    reason = "ObjectNotFound"


@dataclass(frozen=True)
class Found:
    """An object as the API server holds it."""

    kind: Kind
    body: Json

    @property
    def reference(self) -> ObjectReference:
        """Return which object it is."""
        metadata = self.body["metadata"]
        return ObjectReference(kind=self.kind, namespace=metadata["namespace"], name=metadata["name"])

    @property
    def uid(self) -> str:
        """Return which incarnation it is."""
        return str(self.body["metadata"]["uid"])

    @property
    def spec(self) -> Json:
        """Return the spec, never validated here."""
        spec: Json = self.body.get("spec") or {}
        return spec

    @property
    def status(self) -> Json:
        """Return the status; empty before the first run."""
        status: Json = self.body.get("status") or {}
        return status

    @property
    def phase(self) -> str:
        """Return the phase; Pending before the first run has said anything, Terminating once it is deleted."""
        return "Terminating" if self.is_deleting else str(self.status.get("phase") or "Pending")

    @property
    def generation(self) -> int:
        """Return the version of the spec."""
        return int(self.body["metadata"].get("generation", 0))

    @property
    def observed_generation(self) -> int:
        """Return the version of the spec that the status speaks of."""
        return int(self.status.get("observedGeneration", 0))

    @property
    def is_deleting(self) -> bool:
        """Tell whether its deletion has been asked for."""
        return "deletionTimestamp" in self.body["metadata"]

    @property
    def is_paused(self) -> bool:
        """Tell whether Plattr keeps its hands off it."""
        annotations = self.body["metadata"].get("annotations") or {}
        return str(annotations.get(PAUSED_ANNOTATION, "")).lower() == "true"

    @property
    def conditions(self) -> list[Json]:
        """Return the conditions as they stand."""
        return list(self.status.get("conditions") or [])

    @property
    def expires_at(self) -> datetime | None:
        """Return when a preview ends, once a run has said so."""
        expiry = self.status.get("expiresAt")
        return datetime.fromisoformat(expiry) if expiry else None


def parse_name(text: str) -> tuple[tuple[Kind, ...], str]:
    """Return the kinds and the name that NAME, app/NAME or preview/NAME speaks of.

    Raises:
        ObjectNotFound: the part before the slash is no kind.
    """
    prefix, slash, name = text.partition("/")
    if not slash:
        return (Kind.APPLICATION, Kind.PREVIEW), text
    if prefix.lower() not in KINDS or not name:
        raise ObjectNotFound(f"cannot find {text!r}: write NAME, app/NAME or preview/NAME")
    return (KINDS[prefix.lower()],), name


async def find(session: Session, text: str, namespace: str) -> Found:
    """Return the one object of this name.

    Raises:
        ObjectNotFound: there is none, or there is one of each kind.
    """
    found = await look_up(session, text, namespace)
    if not found:
        kinds, name = parse_name(text)
        sought = " or ".join(str(kind) for kind in kinds)
        raise ObjectNotFound(
            f"cannot find {name!r} in namespace {namespace!r}: no {sought} has this name; see plattr status"
        )
    if len(found) > 1:
        raise ObjectNotFound(
            f"cannot tell which {text!r} in namespace {namespace!r}: an Application and a PreviewEnvironment have this"
            f" name; write app/{text} or preview/{text}"
        )
    return found[0]


async def look_up(session: Session, text: str, namespace: str) -> list[Found]:
    """Return the objects of this name, of either kind."""
    kinds, name = parse_name(text)
    bodies = [(kind, await session.kube.get(custom_resource(kind), name, namespace)) for kind in kinds]
    return [Found(kind, body) for kind, body in bodies if body is not None]


async def list_all(session: Session, namespace: str = "", kinds: tuple[Kind, ...] = tuple(Kind)) -> list[Found]:
    """Return every object, of one namespace or of all."""
    return [Found(kind, body) for kind in kinds for body in await session.kube.list(custom_resource(kind), namespace)]


async def find_preview(session: Session, application: str, number: int, namespace: str = "") -> Found:
    """Return the preview of a pull request, wherever it is unless a namespace is given.

    Raises:
        ObjectNotFound: there is none, or several.
    """
    found = await previews_of(session, application, number, namespace)
    if not found:
        place = f" in namespace {namespace!r}; name another with -n, or" if namespace else ";"
        raise ObjectNotFound(
            f"cannot find a preview of {application!r} for pull request {number}{place} see plattr preview list"
        )
    if len(found) > 1:
        names = ", ".join(f"{preview.reference.namespace}/{preview.reference.name}" for preview in found)
        remedy = "give its NAME" if namespace else "add -n"
        raise ObjectNotFound(
            f"cannot tell which preview of {application!r} for pull request {number}: there are {names}; {remedy}"
        )
    return found[0]


async def previews_of(session: Session, application: str, number: int, namespace: str = "") -> list[Found]:
    """Return every preview of a pull request: one, unless somebody made more by hand."""
    return [
        preview
        for preview in await list_all(session, namespace, (Kind.PREVIEW,))
        if preview.spec.get("applicationRef") == application and preview.spec.get("pullRequest") == number
    ]
