"""Find the object that a person names."""

from cli.connection import Session
from clients.resources import custom_resource
from plattr.errors import PlattrError, StillDeleting
from plattr.objects import CustomObject, Kind
from plattr.status import Phase

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
    """Raised when the named object does not exist, or when the name fits more than one object."""

    reason = "ObjectNotFound"


def shown_phase(found: CustomObject) -> str:
    """Return the phase: Pending before the first run has written a status, Terminating once the object is deleted."""
    return Phase.TERMINATING if found.is_deleting else found.phase or Phase.PENDING


def parse_name(text: str) -> tuple[tuple[Kind, ...], str]:
    """Return the kinds and the name that NAME, app/NAME or preview/NAME stands for.

    Raises:
        ObjectNotFound: the part before the slash is not a kind.
    """
    prefix, slash, name = text.partition("/")
    if not slash:
        return (Kind.APPLICATION, Kind.PREVIEW), text
    if prefix.lower() not in KINDS or not name:
        raise ObjectNotFound(f"cannot find {text!r}: write NAME, app/NAME or preview/NAME")
    return (KINDS[prefix.lower()],), name


async def find(session: Session, text: str, namespace: str) -> CustomObject:
    """Return the one object with this name.

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


async def look_up(session: Session, text: str, namespace: str) -> list[CustomObject]:
    """Return the objects of any kind with this name."""
    kinds, name = parse_name(text)
    bodies = [(kind, await session.kube.get(custom_resource(kind), name, namespace)) for kind in kinds]
    return [CustomObject.from_api(kind, body) for kind, body in bodies if body is not None]


async def list_all(session: Session, namespace: str = "", kinds: tuple[Kind, ...] = tuple(Kind)) -> list[CustomObject]:
    """Return every object of one namespace or of all namespaces."""
    return [
        CustomObject.from_api(kind, body)
        for kind in kinds
        for body in await session.kube.list(custom_resource(kind), namespace)
    ]


async def find_preview(session: Session, application: str, number: int, namespace: str = "") -> CustomObject:
    """Return the preview of a pull request, from any namespace unless one is given.

    Raises:
        ObjectNotFound: there is none, or there are several.
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


async def previews_of(session: Session, application: str, number: int, namespace: str = "") -> list[CustomObject]:
    """Return every preview of a pull request. There is one, unless somebody created more by hand."""
    return [
        preview
        for preview in await list_all(session, namespace, (Kind.PREVIEW,))
        if preview.spec.get("applicationRef") == application and preview.spec.get("pullRequest") == number
    ]


def still_deleting(found: CustomObject) -> StillDeleting:
    """Return the error for a change to an object that is being deleted: the change would be deleted with it."""
    reference = found.reference
    return StillDeleting(
        f"cannot change {reference.kind} {reference.namespace}/{reference.name}: it is being deleted; wait until it is"
        " gone (start and apply do so with --wait), then make it again"
    )
