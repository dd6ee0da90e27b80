"""`plattr preview`: manage the environments of pull requests."""

import subprocess
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from cli.connection import Session, perform
from cli.formatting import clock
from cli.objects import ObjectNotFound, find, find_preview, list_all, previews_of, still_deleting
from cli.options import DEFAULT_TIMEOUT, Namespace, Timeout, Wait, Yes
from cli.output import say
from cli.status import console, phase_of
from cli.terminal import plain
from clients.resources import APPLICATIONS, PREVIEWS, Json
from plattr.errors import InvalidSpec
from plattr.naming import preview_object_name
from plattr.objects import API_VERSION, CustomObject, Kind, ObjectReference
from plattr.spec import parse_preview_spec
from plattr.ttl import DEFAULT_TTL, parse_ttl

app = typer.Typer(help="Manage the environments of pull requests.", no_args_is_help=True)


AppName = Annotated[str, typer.Option("--app", help="The Application, in the same namespace.")]
Number = Annotated[int, typer.Option("--pr", min=1, help="The pull request.")]
ObjectName = Annotated[str, typer.Argument(help="The PreviewEnvironment. Or give --app and --pr.", show_default=False)]
PastYes = Annotated[
    bool, typer.Option("--yes", "-y", help="Also when the new end is in the past, which deletes the preview at once.")
]
AnyNumber = Annotated[int | None, typer.Option("--pr", min=1, help="The pull request, with --app.")]


@app.command()
def start(
    app_name: AppName,
    pr: Number,
    branch: Annotated[str, typer.Option("--branch", help="Default: the branch that is checked out here.")] = "",
    image: Annotated[
        str, typer.Option("--image", help="The pull request's image. Default: the image of the Application.")
    ] = "",
    ttl: Annotated[
        str, typer.Option("--ttl", help="How long it lives from its creation: 90m, 3d, at most 30d. Default: 72h.")
    ] = "",
    namespace: Namespace = "",
    yes: PastYes = False,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Start a preview, or change the branch, image and ttl of the preview that runs."""

    async def work(session: Session) -> int:
        if wait:
            from cli import follow  # only here: without --wait the command needs no Temporal
        began = time.monotonic()
        place = namespace or session.default_namespace
        spec = _spec(app_name, pr, branch or _current_branch(), image, ttl)
        if await session.kube.get(APPLICATIONS, app_name, place) is None:
            raise ObjectNotFound(
                f"cannot start a preview of {app_name!r}: no Application has this name in namespace {place!r}"
            )
        # A preview that was created by hand may have another name. A second preview would compete with it for its
        # claims.
        existing = await _existing(session, app_name, pr, place)
        name = existing.reference.name if existing is not None else preview_object_name(app_name, pr)
        if existing is not None and existing.is_deleting:
            if not wait:
                raise still_deleting(existing)
            if code := await follow.make_way(session, existing, timeout, say):
                return code
            existing = None
        reference = ObjectReference(kind=Kind.PREVIEW, namespace=place, name=name)
        old_run = await follow.latest_run_id(session, reference) if wait else ""
        if existing is None:
            preview = await _make(session, reference, spec)
        else:
            _ensure_ahead(existing, ttl or _ttl_of(existing), yes=yes)
            preview = await _change(session, existing, spec)
        say(f"PreviewEnvironment {place}/{name} applied")
        return (
            await follow.follow_all(session, [(preview, old_run)], follow.left_of(timeout, began), say) if wait else 0
        )

    perform(work)


@app.command(name="list")
def list_previews(
    app_name: Annotated[str, typer.Option("--app", help="Only this Application's.")] = "", namespace: Namespace = ""
) -> None:
    """List the previews of all namespaces, or of one."""

    async def work(session: Session) -> int:
        previews = await list_all(session, namespace, (Kind.PREVIEW,))
        chosen = [preview for preview in previews if not app_name or preview.spec.get("applicationRef") == app_name]
        if not chosen:
            say("no previews")
            return 0
        table = Table(box=box.SIMPLE)
        for column in ("namespace", "name", "app", "pr", "phase", "url", "expires"):
            table.add_column(column, overflow="fold", no_wrap=column in {"pr", "phase", "expires"})
        for preview in sorted(chosen, key=lambda preview: preview.reference.key):
            table.add_row(
                preview.reference.namespace,
                preview.reference.name,
                plain(preview.spec.get("applicationRef", "")),
                plain(preview.spec.get("pullRequest", "")),
                phase_of(preview),
                plain(preview.status.get("url", "")),
                clock(preview.expires_at) if preview.expires_at else "",
            )
        console().print(table)
        return 0

    perform(work)


@app.command()
def extend(
    name: ObjectName = "",
    app_name: AppName = "",
    pr: AnyNumber = None,
    ttl: Annotated[str, typer.Option("--ttl", help="How long it lives from its creation: 96h.")] = "",
    by: Annotated[str, typer.Option("--by", help="How much longer it lives than now: 24h.")] = "",
    namespace: Namespace = "",
    yes: PastYes = False,
) -> None:
    """Change how long a preview lives; it ends its ttl after its creation."""
    if bool(ttl) == bool(by):
        raise typer.BadParameter("give either --ttl or --by")

    async def work(session: Session) -> int:
        preview = await _find(session, name, app_name, pr, namespace)
        wanted = _checked_ttl(ttl or _sum(_ttl_of(preview), by))
        _ensure_alive(preview)
        _ensure_ahead(preview, wanted, yes=yes)
        reference = (await _change(session, preview, {"ttl": wanted})).reference
        end = created_at(preview) + parse_ttl(wanted)
        say(f"PreviewEnvironment {reference.namespace}/{reference.name} ends at {clock(end)}")
        return 0

    perform(work)


@app.command()
def delete(
    name: ObjectName = "",
    app_name: AppName = "",
    pr: AnyNumber = None,
    namespace: Namespace = "",
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Delete a preview with its namespace, schema, buckets and realm."""

    async def work(session: Session) -> int:
        preview = await _find(session, name, app_name, pr, namespace)
        reference = preview.reference
        if not yes:
            typer.confirm(f"Delete PreviewEnvironment {reference.namespace}/{reference.name} and its data?", abort=True)
        await session.kube.delete(PREVIEWS, reference.name, reference.namespace, uid=preview.metadata.uid)
        say(f"PreviewEnvironment {reference.namespace}/{reference.name} is being deleted")
        if not wait:
            return 0
        from cli import follow  # only here, as in `start`

        return await follow.await_absence(session, preview, timeout, say)

    perform(work)


async def _find(session: Session, name: str, application: str, number: int | None, namespace: str) -> CustomObject:
    if name:
        return await find(session, f"preview/{name.removeprefix('preview/')}", namespace or session.default_namespace)
    if not application or number is None:
        raise ObjectNotFound("cannot tell which preview: give its NAME, or --app and --pr")
    return await find_preview(session, application, number, namespace or session.default_namespace)


async def _existing(session: Session, application: str, number: int, namespace: str) -> CustomObject | None:
    # If there are several, all but one are refused. A person must say which one is meant.
    found = await previews_of(session, application, number, namespace)
    return await find_preview(session, application, number, namespace) if found else None


async def _make(session: Session, reference: ObjectReference, spec: Json) -> CustomObject:
    metadata = {"name": reference.name, "namespace": reference.namespace}
    manifest = {"apiVersion": API_VERSION, "kind": str(Kind.PREVIEW), "metadata": metadata, "spec": spec}
    preview = CustomObject.from_api(Kind.PREVIEW, await session.kube.apply(PREVIEWS, manifest, reference.namespace))
    _ensure_alive(preview)
    return preview


async def _change(session: Session, preview: CustomObject, spec: Json) -> CustomObject:
    """Set only these fields, because somebody else may have changed the others meanwhile."""
    operations: list[Json] = [
        {"op": "test", "path": "/metadata/uid", "value": preview.metadata.uid},
        *({"op": "add", "path": f"/spec/{field}", "value": value} for field, value in spec.items()),
    ]
    reference = preview.reference
    body = await session.kube.json_patch(PREVIEWS, reference.name, operations, reference.namespace)
    if body is None:
        raise ObjectNotFound(
            f"cannot change PreviewEnvironment {reference.namespace}/{reference.name}: it was deleted just now; make it"
            " again with plattr preview start"
        )
    # The deletion may have begun between the read and the write.
    _ensure_alive(changed := CustomObject.from_api(Kind.PREVIEW, body))
    return changed


def _ensure_alive(preview: CustomObject) -> None:
    if preview.is_deleting:
        raise still_deleting(preview)


def _ensure_ahead(preview: CustomObject, ttl: str, *, yes: bool) -> None:
    end = created_at(preview) + parse_ttl(ttl)
    if end <= datetime.now(UTC) and not yes:
        raise InvalidSpec(
            "spec.ttl",
            f"with {ttl} the preview's end was at {clock(end)}, so it would be deleted at once; give a longer one, or"
            " --yes",
        )


def _spec(application: str, number: int, branch: str, image: str, ttl: str) -> Json:
    """Return the requested spec. A field that is not given keeps its value, or gets the CRD's default."""
    spec: Json = {"applicationRef": application, "pullRequest": number, "branch": branch}
    spec |= {field: value for field, value in (("imageRef", image), ("ttl", ttl)) if value}
    parse_preview_spec(spec)
    return spec


def _ttl_of(preview: CustomObject) -> str:
    return str(preview.spec.get("ttl", DEFAULT_TTL))


def _current_branch() -> str:
    try:
        found = subprocess.run(
            ["git", "branch", "--show-current"],  # noqa: S607  the user's own git
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        found = None
    branch = found.stdout.strip() if found is not None else ""
    if not branch:
        raise InvalidSpec("spec.branch", "no branch is checked out here; give --branch")
    return branch


def _sum(ttl: str, more: str) -> str:
    # Minutes are the smallest unit of a ttl, so every sum can be written in minutes.
    total = parse_ttl(_checked_ttl(ttl)) + parse_ttl(_checked_ttl(more))
    return f"{total // timedelta(minutes=1)}m"


def _checked_ttl(ttl: str) -> str:
    try:
        parse_ttl(ttl)
    except ValueError as error:
        raise InvalidSpec("spec.ttl", str(error)) from None
    return ttl


def created_at(preview: CustomObject) -> datetime:
    """Return when the API server created the preview. Its ttl starts then."""
    return preview.metadata.creation_timestamp
