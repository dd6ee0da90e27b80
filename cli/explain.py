"""`plattr explain`: show where an object's run stands, why, and when it continues."""

from rich.console import Console

from cli.claims import claim_words, held_claims
from cli.connection import Session, perform
from cli.formatting import clock, duration, since
from cli.objects import ObjectNotFound, look_up, parse_name, shown_phase
from cli.options import Name, Namespace
from cli.runs import PendingActivity, Run, read_run
from cli.status import console, phase_of, show_conditions
from cli.terminal import plain
from clients.resources import APPLICATIONS, EVENTS, Json
from plattr.errors import BackendRefused
from plattr.objects import CustomObject, ObjectReference
from plattr.steps import Progress

# The newest five show what happened lately; kubectl describe shows them all.
EVENT_COUNT = 5


def explain(name: Name, namespace: Namespace = "") -> None:
    """Show where the run of an object stands: step, attempt, last error, next retry, retained data."""

    async def work(session: Session) -> int:
        place = namespace or session.default_namespace
        objects = await look_up(session, name, place)
        out = console()
        for found in objects:
            await _explain(session, out, found.reference, found)
        if not objects:
            await _explain_gone(session, out, name, place)
        return 0

    perform(work)


async def _explain_gone(session: Session, out: Console, name: str, namespace: str) -> None:
    """Explain an object that is gone: it may have an open cleanup, or have left retained data."""
    kinds, plain = parse_name(name)
    known = False
    for kind in kinds:
        reference = ObjectReference(kind=kind, namespace=namespace, name=plain)
        run = await read_run(await session.temporal(), reference, with_progress=False)
        if run is not None or await held_claims(session, reference):
            known = True
            await _explain(session, out, reference, None)
    if not known:
        raise ObjectNotFound(
            f"cannot explain {plain!r} in namespace {namespace!r}: there is no such object, no run and nothing left of"
            " one; see plattr status"
        )


async def _explain(session: Session, out: Console, reference: ObjectReference, found: CustomObject | None) -> None:
    title = f"[bold]{reference.kind} {reference.namespace}/{reference.name}[/]"
    out.print(f"{title}  {phase_of(found) if found else '[yellow]gone[/]'}", highlight=False)
    run = await read_run(await session.temporal(), reference)
    for line in [*_about_object(found), *await _about_parent(session, found), *_about_run(run, found)]:
        out.print(f"  {plain(line)}", highlight=False, soft_wrap=True)
    if found is not None:
        show_conditions(out, found)
    for line in await _about_claims(session, reference):
        out.print(f"  {plain(line)}", highlight=False, soft_wrap=True)
    if found is not None:
        for line in await _about_events(session, found):
            out.print(f"  {plain(line)}", highlight=False, soft_wrap=True)


def _about_object(found: CustomObject | None) -> list[str]:
    if found is None:
        return []
    lines = []
    if found.observed_generation < found.metadata.generation:
        lines.append(
            f"spec      generation {found.metadata.generation};"
            f" the status speaks of generation {found.observed_generation}"
        )
    if found.is_paused:
        lines.append(f"paused    nothing is done for it until plattr resume {found.reference.name}")
    if found.expires_at:
        lines.append(f"expires   {clock(found.expires_at)}")
    return lines


async def _about_parent(session: Session, found: CustomObject | None) -> list[str]:
    """Tell which state of its Application a preview is built from, and whether a newer one exists."""
    taken = found.status.get("parent") if found is not None else None
    if found is None or not taken:
        return []
    name = str(found.spec.get("applicationRef"))
    living = await session.kube.get(APPLICATIONS, name, found.reference.namespace)
    line = f"parent    built from generation {taken['generation']} of Application {name}"
    if living is None:
        return [f"{line}, which is gone"]
    metadata = living["metadata"]
    if (metadata["uid"], metadata["generation"]) == (taken["uid"], taken["generation"]):
        return [line]
    now = f"generation {metadata['generation']}" + ("" if metadata["uid"] == taken["uid"] else ", created again")
    return [f"{line}; that is at {now}: plattr resync preview/{found.reference.name} takes it over"]


def _about_run(run: Run | None, found: CustomObject | None) -> list[str]:
    if run is None:
        if found is None or shown_phase(found) == "Running":
            return ["run       none: there is nothing to do"]
        return ["run       Temporal knows of none: is the watcher running? plattr resync begins one"]
    if not run.is_open:
        return [f"run       {_closed(run)}"]
    lines = [f"run       {run.workflow_type}, open since {clock(run.started_at)}"]
    progress, attempt = run.progress, run.attempt
    if progress is None:
        lines.append(f"progress  not known: {run.silence}")
    else:
        done = ", ".join(f"{step} {duration(progress.took[step])}" for step in progress.done if step in progress.took)
        if done:
            lines.append(f"done      {done}")
        if progress.next_retry is not None:
            lines.append(
                f"step      waits after round {progress.round}; the next begins at {clock(progress.next_retry)}"
            )
        elif attempt is None and progress.step is not None:
            lines.append(f"step      {progress.step} done; waits for the next change")
    if attempt is not None:
        lines += about_attempt(attempt, progress)
    elif progress is not None and progress.last_error is not None:
        lines.append(f"error     {progress.last_error.reason}: {progress.last_error.message}")
    return lines


def about_attempt(attempt: PendingActivity, progress: Progress | None) -> list[str]:
    """Return the lines about the activity that a run waits for."""
    step = progress.step if progress is not None and progress.step is not None else attempt.activity
    what = "runs" if attempt.is_running else "waits"
    lines = [f"step      {step}: attempt {attempt.number} of {attempt.maximum} {what}"]
    if progress is not None and progress.waiting_for:
        lines.append(f"waits for {progress.waiting_for}")
    if attempt.last_failure:
        lines.append(f"error     {attempt.last_failure}")
    if attempt.next_at is not None and not attempt.is_running:
        lines.append(f"retry     {clock(attempt.next_at)}")
    return lines


def _closed(run: Run) -> str:
    text = f"{run.workflow_type} {run.status}"
    if run.closed_at is not None:
        text += f" at {clock(run.closed_at)} after {duration(run.closed_at - run.started_at)}"
    return f"{text}: {run.failure}" if run.failure else text


async def _about_claims(session: Session, reference: ObjectReference) -> list[str]:
    claims = await held_claims(session, reference)
    lines = []
    for label, is_retained in (("holds", False), ("retained", True)):
        chosen = [held for held in claims if held.is_retained is is_retained]
        if chosen:
            lines.append(f"{label:<9} {claim_words(chosen)}")
    return lines


async def _about_events(session: Session, found: CustomObject) -> list[str]:
    try:
        events = await session.kube.list(
            EVENTS, found.reference.namespace, field_selector=f"involvedObject.uid={found.metadata.uid}"
        )
    except BackendRefused:
        return []
    events.sort(key=_when, reverse=True)
    return [
        f"event     {since(_when(event))}: {event.get('reason', '')}: {' '.join(event.get('message', '').split())}"
        for event in events[:EVENT_COUNT]
    ]


def _when(event: Json) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
