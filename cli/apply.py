"""`plattr apply`: create or change objects as a file describes them."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from cli.connection import Session, perform
from cli.objects import still_deleting
from cli.options import DEFAULT_TIMEOUT, Namespace, Timeout, Wait
from cli.output import say
from clients.resources import NAMESPACES, Json, custom_resource
from plattr.errors import Conflict, InvalidSpec, PlattrError
from plattr.objects import API_VERSION, CustomObject, Kind, ObjectReference
from plattr.spec import parse_application_spec, parse_preview_spec


class BadManifest(PlattrError):
    """Raised when a file holds something else than Plattr's objects. Nothing has been applied."""

    reason = "BadManifest"


def apply(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML with one or more documents. - reads the standard input.")
    ],
    namespace: Namespace = "",
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
    force: Annotated[bool, typer.Option("--force", help="Also set fields that another field manager owns.")] = False,
) -> None:
    """Create or update Applications, PreviewEnvironments and their Namespaces from a file.

    With --wait the exit code is 0 when all objects are Running, 1 when one is Failed, and 3 after the timeout.
    """

    async def work(session: Session) -> int:
        if wait:
            from cli import follow  # only here: without --wait the command needs no Temporal
        began = time.monotonic()
        namespaces, manifests = read_manifests(file, namespace, session.default_namespace)
        # Before anything is applied, so that no file is applied by halves.
        for dying in await _dying(session, manifests):
            if not wait:
                raise still_deleting(dying)
            if code := await follow.make_way(session, dying, follow.left_of(timeout, began), say):
                return code
        for manifest in namespaces:
            await session.kube.apply(NAMESPACES, manifest, force=force)
        applied = [await _apply(session, kind, manifest, force=force, wait=wait) for kind, manifest in manifests]
        return await follow.follow_all(session, applied, follow.left_of(timeout, began), say) if wait else 0

    perform(work)


async def _dying(session: Session, manifests: Iterable[tuple[Kind, Json]]) -> list[CustomObject]:
    """Return the objects that are being deleted. A change that is applied to them is deleted with them."""
    places = [(kind, manifest["metadata"]["name"], manifest["metadata"]["namespace"]) for kind, manifest in manifests]
    bodies = [(kind, await session.kube.get(custom_resource(kind), *place)) for kind, *place in places]
    there = [CustomObject.from_api(kind, body) for kind, body in bodies if body is not None]
    return [found for found in there if found.is_deleting]


async def _apply(session: Session, kind: Kind, manifest: Json, *, force: bool, wait: bool) -> tuple[CustomObject, str]:
    resource = custom_resource(kind)
    metadata = manifest["metadata"]
    reference = ObjectReference(kind=kind, namespace=metadata["namespace"], name=metadata["name"])
    before = await session.kube.get(resource, reference.name, reference.namespace)
    old_run = ""
    if wait:
        from cli.follow import latest_run_id  # only here, as in `apply`

        old_run = await latest_run_id(session, reference)
    try:
        after = await session.kube.apply(resource, manifest, reference.namespace, force=force)
    except Conflict as error:
        raise Conflict(f"{error}; --force takes the fields over") from None
    if (found := CustomObject.from_api(kind, after)).is_deleting:
        # The deletion began between the read and the write.
        raise still_deleting(found)
    say(f"{kind} {reference.namespace}/{reference.name} {_outcome(before, after)}")
    return found, old_run


def _outcome(before: Json | None, after: Json) -> str:
    if before is None:
        return "created"
    return "unchanged" if _desired_of(before) == _desired_of(after) else "configured"


def _desired_of(body: Json) -> tuple[Any, ...]:
    """Return what a person can change. Status and finalizers are left out, because a worker writes them meanwhile."""
    metadata = body["metadata"]
    return metadata["uid"], metadata.get("generation"), metadata.get("labels"), metadata.get("annotations")


def read_manifests(file: Path, namespace: str, default_namespace: str) -> tuple[list[Json], list[tuple[Kind, Json]]]:
    """Return a file's Namespaces and its objects with their namespace set. All are checked before any is applied.

    Raises:
        BadManifest: the file cannot be read, or holds something else.
        InvalidSpec: a spec breaks a rule.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except OSError as error:
        raise BadManifest(f"cannot read {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark is not None else ""
        raise BadManifest(f"cannot read {file}: it is not YAML{place}") from None
    if not documents:
        raise BadManifest(f"cannot apply {file}: it holds no object")
    namespaces = [document for document in documents if _is_namespace(document)]
    return namespaces, [
        _manifest(document, f"{file} (document {number})", namespace, default_namespace)
        for number, document in enumerate(documents, start=1)
        if not _is_namespace(document)
    ]


def _is_namespace(document: Any) -> bool:
    """Tell whether the document is a Namespace, the one other kind allowed: an example brings its own namespace."""
    return isinstance(document, dict) and (document.get("apiVersion"), document.get("kind")) == ("v1", "Namespace")


def _manifest(document: Any, place: str, namespace: str, default_namespace: str) -> tuple[Kind, Json]:
    if not isinstance(document, dict):
        raise BadManifest(f"cannot apply {place}: it is no object")
    kind_name = document.get("kind")
    if document.get("apiVersion") != API_VERSION or kind_name not in set(Kind):
        raise BadManifest(
            f"cannot apply {place}: apiVersion {document.get('apiVersion')!r}, kind {kind_name!r} is none of Plattr's;"
            f" it takes {API_VERSION} {', '.join(Kind)}"
        )
    kind = Kind(kind_name)
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise BadManifest(f"cannot apply {place}: metadata.name is missing")
    own = metadata.get("namespace")
    if own and namespace and own != namespace:
        raise BadManifest(f"cannot apply {place}: its namespace is {own!r}, but -n says {namespace!r}")
    spec = document.get("spec")
    if not isinstance(spec, dict):
        raise BadManifest(f"cannot apply {place}: spec is missing")
    try:
        # The server applies the same rules. Checking first avoids applying a file by halves.
        (parse_application_spec if kind is Kind.APPLICATION else parse_preview_spec)(spec)
    except InvalidSpec as error:
        raise BadManifest(f"cannot apply {place}: {kind} {metadata['name']!r}: {error}") from None
    # Keep only what a person sets: the server would refuse the status or server-set fields of an exported file.
    kept = {"name", "labels", "annotations"} & metadata.keys()
    cleaned = {field: metadata[field] for field in sorted(kept)} | {"namespace": own or namespace or default_namespace}
    return kind, {"apiVersion": API_VERSION, "kind": str(kind), "metadata": cleaned, "spec": spec}
