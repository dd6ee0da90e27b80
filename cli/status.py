"""`plattr status`: show the state of the objects."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from activities.vanished import find_vanished
from cli.connection import Session, perform
from cli.formatting import brief_conditions, clock, coloured, mark, since
from cli.objects import ObjectNotFound, find, find_preview, list_all, shown_phase
from cli.options import Namespace
from cli.terminal import plain
from clients.claim_store import ClaimStore
from plattr.errors import BackendRefused
from plattr.objects import CustomObject, ObjectReference
from plattr.spec import Environment

# Text in a pipe is not folded, because the next program needs whole words.
PIPE_WIDTH = 240


def status(
    name: Annotated[
        str, typer.Argument(help="NAME, app/NAME or preview/NAME. Default: all objects.", show_default=False)
    ] = "",
    namespace: Namespace = "",
    env: Annotated[
        Environment | None, typer.Option("--env", help="The namespace of this name. preview needs --pr.")
    ] = None,
    pr: Annotated[int | None, typer.Option("--pr", min=1, help="With --env preview: the pull request.")] = None,
) -> None:
    """Show the phase, the address and the conditions of one object, or of all."""
    if (env is Environment.PREVIEW) != (pr is not None) or (pr is not None and not name):
        raise typer.BadParameter("--env preview, --pr N and the application's NAME belong together")
    if env is not None and namespace:
        raise typer.BadParameter("--env and -n both name the namespace; give one")

    async def work(session: Session) -> int:
        if pr is not None:
            show_one(await find_preview(session, name, pr))
        elif name:
            show_one(await find(session, name, env or namespace or session.default_namespace))
        else:
            place = env or namespace
            show_table(await list_all(session, place), await _vanished(session, place))
        return 0

    perform(work)


def console() -> Console:
    """Return the console for tables."""
    made = Console()
    return made if made.is_terminal else Console(width=PIPE_WIDTH)


async def _vanished(session: Session, namespace: str) -> list[ObjectReference]:
    """Return the objects that are gone without a cleanup; none for a person who may not read the platform's claims."""
    try:
        return await find_vanished(session.kube, ClaimStore(session.kube, session.lease_namespace), namespace)
    except BackendRefused:
        return []


def show_table(objects: list[CustomObject], vanished: Sequence[ObjectReference] = ()) -> None:
    """Print all objects, one a line, and those that are gone while claims still hold their names."""
    if not objects and not vanished:
        raise ObjectNotFound("cannot show any object: there is none; plattr apply FILE creates one")
    table = Table(box=box.SIMPLE)
    for column in ("kind", "namespace", "name", "environment", "phase", "url", "conditions"):
        table.add_column(column, overflow="fold", no_wrap=column in {"kind", "phase"})
    for found in sorted(objects, key=lambda found: found.reference.key):
        reference = found.reference
        table.add_row(
            str(reference.kind),
            reference.namespace,
            reference.name,
            plain(environment_of(found)),
            phase_of(found),
            plain(found.status.get("url", "")),
            brief_conditions(found.conditions),
        )
    for reference in vanished:
        table.add_row(
            str(reference.kind),
            reference.namespace,
            reference.name,
            "",
            coloured("vanished"),
            "",
            f"gone without a cleanup: plattr cleanup {reference.name} -n {reference.namespace} --orphan",
        )
    console().print(table)


def show_one(found: CustomObject) -> None:
    """Print one object with its conditions."""
    out = console()
    out.print(f"[bold]{found.reference.kind} {found.reference.namespace}/{found.reference.name}[/]  {phase_of(found)}")
    facts = {
        "environment": environment_of(found),
        "url": found.status.get("url", ""),
        "namespace": found.status.get("namespace", ""),
        "expires": clock(found.expires_at) if found.expires_at else "",
        "generation": f"{found.metadata.generation}, status of {found.observed_generation}",
    }
    for label, value in facts.items():
        if value:
            out.print(f"  {label:<12} {plain(value)}", highlight=False)
    show_conditions(out, found)


def show_conditions(out: Console, found: CustomObject) -> None:
    """Print the conditions, one a line."""
    if not found.conditions:
        out.print("  no conditions yet: no run has written the status")
        return
    table = Table(box=box.SIMPLE)
    for column in ("condition", "", "reason", "message", "since"):
        table.add_column(column, overflow="fold", no_wrap=column in {"condition", "", "since"})
    for condition in found.conditions:
        table.add_row(
            plain(condition["type"]),
            mark(condition),
            plain(condition.get("reason", "")),
            plain(condition.get("message", "")),
            since(condition.get("lastTransitionTime")),
        )
    out.print(table)


def environment_of(found: CustomObject) -> str:
    """Return an Application's environment, or the pull request of a preview."""
    if "pullRequest" in found.spec:
        return f"preview of {found.spec.get('applicationRef')} PR {found.spec['pullRequest']}"
    return str(found.spec.get("environment", ""))


def phase_of(found: CustomObject) -> str:
    """Return the phase in its colour, and whether the object is paused."""
    paused = f" {coloured('paused')}" if found.is_paused else ""
    return coloured(shown_phase(found)) + paused
