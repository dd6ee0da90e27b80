"""`plattr preview`: a pull request's environment."""

import subprocess
from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from activities.clients.resources import APPLICATIONS, PREVIEWS, Json
from cli.connection import Session, perform, say
from cli.follow import await_absence, follow_all, latest_run_id
from cli.objects import Found, ObjectNotFound, find, find_preview, list_all
from cli.options import DEFAULT_TIMEOUT, Namespace, Timeout, Wait, Yes
from cli.status import console, phase_of
from cli.words import clock
from plattr.errors import InvalidSpec
from plattr.naming import preview_object_name
from plattr.objects import API_VERSION, Kind, ObjectReference
from plattr.spec import parse_preview_spec
from plattr.ttl import parse_ttl

app = typer.Typer(help="Environments of pull requests.", no_args_is_help=True)


AppName = Annotated[str, typer.Option("--app", help="The Application, in the same namespace.")]
Number = Annotated[int, typer.Option("--pr", min=1, help="The pull request.")]
ObjectName = Annotated[str, typer.Argument(help="The PreviewEnvironment; or give --app and --pr.", show_default=False)]
AnyNumber = Annotated[int | None, typer.Option("--pr", min=1, help="The pull request, with --app.")]


@app.command()
def start(
    app_name: AppName,
    pr: Number,
    branch: Annotated[str, typer.Option("--branch", help="By default the branch checked out here.")] = "",
    image: Annotated[str, typer.Option("--image", help="The pull request's image; by default the parent's.")] = "",
    ttl: Annotated[str, typer.Option("--ttl", help="How long from its creation: 90m, 72h, 3d; at most 30d.")] = "72h",
    namespace: Namespace = "",
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Start a preview, or bring the one that runs to this branch, image and ttl."""

    async def work(session: Session) -> int:
        place = namespace or session.default_namespace
        manifest = _manifest(app_name, pr, branch or _current_branch(), image, ttl)
        if await session.kube.get(APPLICATIONS, app_name, place) is None:
            raise ObjectNotFound(
                f"cannot start a preview of {app_name!r}: no Application has this name in namespace {place!r}"
            )
        # A preview that was made by hand may have another name; a second one would fight it for the same names.
        name = await _existing_name(session, app_name, pr, place) or preview_object_name(app_name, pr)
        manifest["metadata"] = {"name": name, "namespace": place}
        reference = ObjectReference(kind=Kind.PREVIEW, namespace=place, name=name)
        old_run = await latest_run_id(session, reference) if wait else ""
        preview = Found(Kind.PREVIEW, await session.kube.apply(PREVIEWS, manifest, place))
        say(f"PreviewEnvironment {place}/{name} applied")
        return await follow_all(session, [(preview, old_run)], timeout, say) if wait else 0

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
                str(preview.spec.get("applicationRef", "")),
                str(preview.spec.get("pullRequest", "")),
                phase_of(preview),
                escape(preview.status.get("url", "")),
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
    ttl: Annotated[str, typer.Option("--ttl", help="The whole time from its creation: 96h.")] = "",
    by: Annotated[str, typer.Option("--by", help="So much longer than now set: 24h.")] = "",
    namespace: Namespace = "",
) -> None:
    """Let a preview live longer, or shorter; its end is its creation plus its ttl."""
    if bool(ttl) == bool(by):
        raise typer.BadParameter("give either --ttl or --by")

    async def work(session: Session) -> int:
        preview = await _find(session, name, app_name, pr, namespace)
        wanted = _checked_ttl(ttl or _sum(str(preview.spec.get("ttl", "72h")), by))
        operations: list[Json] = [
            {"op": "test", "path": "/metadata/uid", "value": preview.uid},
            {"op": "add", "path": "/spec/ttl", "value": wanted},
        ]
        reference = preview.reference
        await session.kube.json_patch(PREVIEWS, reference.name, operations, reference.namespace)
        end = _created(preview) + parse_ttl(wanted)
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
        await session.kube.delete(PREVIEWS, reference.name, reference.namespace, uid=preview.uid)
        say(f"PreviewEnvironment {reference.namespace}/{reference.name} is being deleted")
        return await await_absence(session, preview, timeout, say) if wait else 0

    perform(work)


async def _find(session: Session, name: str, application: str, number: int | None, namespace: str) -> Found:
    if name:
        return await find(session, f"preview/{name.removeprefix('preview/')}", namespace or session.default_namespace)
    if not application or number is None:
        raise ObjectNotFound("cannot tell which preview: give its NAME, or --app and --pr")
    return await find_preview(session, application, number, namespace)


async def _existing_name(session: Session, application: str, number: int, namespace: str) -> str:
    try:
        return (await find_preview(session, application, number, namespace)).reference.name
    except ObjectNotFound:
        return ""


def _manifest(application: str, number: int, branch: str, image: str, ttl: str) -> Json:
    spec: Json = {"applicationRef": application, "pullRequest": number, "branch": branch, "ttl": ttl}
    if image:
        spec["imageRef"] = image
    parse_preview_spec(spec)
    return {"apiVersion": API_VERSION, "kind": str(Kind.PREVIEW), "spec": spec}


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
    # Minutes: the smallest unit of a ttl, so every sum can be said in it.
    total = parse_ttl(_checked_ttl(ttl)) + parse_ttl(_checked_ttl(more))
    return f"{total // timedelta(minutes=1)}m"


def _checked_ttl(ttl: str) -> str:
    try:
        parse_ttl(ttl)
    except ValueError as error:
        raise InvalidSpec("spec.ttl", str(error)) from None
    return ttl


def _created(preview: Found) -> datetime:
    return datetime.fromisoformat(preview.body["metadata"]["creationTimestamp"])
