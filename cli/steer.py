"""`plattr resync`, `cleanup`, `pause`, `resume`: what a person tells a run."""

import asyncio
from typing import Annotated

import typer
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from activities.clients import temporal
from activities.clients.resources import Json, custom_resource
from cli.claims import claim_words, held_claims
from cli.connection import Session, perform, say
from cli.follow import await_absence
from cli.objects import Found, ObjectNotFound, find, list_all, look_up, parse_name
from cli.options import DEFAULT_TIMEOUT, Name, Namespace, Timeout, Wait, Yes
from cli.runs import read_run
from plattr.naming import workflow_id
from plattr.objects import PAUSED_ANNOTATION, ObjectReference
from plattr.steps import RESYNC_SIGNAL, TASK_QUEUE, RunInput

# 10 at once: a fleet is poked in seconds, and Temporal stays free for the runs themselves.
POKES_AT_ONCE = 10


def resync(
    name: Annotated[str, typer.Argument(help="NAME, app/NAME or preview/NAME.", show_default=False)] = "",
    namespace: Namespace = "",
    every: Annotated[bool, typer.Option("--all", help="Every object, of all namespaces unless -n names one.")] = False,
) -> None:
    """Run every step again, even if the spec is settled; also: retry now."""
    if bool(name) == every:
        raise typer.BadParameter("give either a NAME or --all")

    async def work(session: Session) -> int:
        if every:
            objects = await list_all(session, namespace)
        else:
            objects = [await find(session, name, namespace or session.default_namespace)]
        limit = asyncio.Semaphore(POKES_AT_ONCE)

        async def poke(found: Found) -> None:
            async with limit:
                await temporal.poke(
                    session.temporal, found.reference, is_deleting=found.is_deleting, signal=RESYNC_SIGNAL
                )
            paused = "; it is paused, so nothing happens before plattr resume" if found.is_paused else ""
            say(f"{found.reference.kind} {found.reference.namespace}/{found.reference.name} resyncs{paused}")

        await asyncio.gather(*(poke(found) for found in objects))
        return 0

    perform(work)


def cleanup(
    name: Name,
    namespace: Namespace = "",
    orphan: Annotated[bool, typer.Option("--orphan", help="The object is gone; remove what it left.")] = False,
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Remove an object and everything it owns, or what an object that is gone has left."""

    async def work(session: Session) -> int:
        place = namespace or session.default_namespace
        if orphan:
            return await _clean_orphan(session, name, place, yes=yes)
        if not await look_up(session, name, place):
            raise ObjectNotFound(
                f"cannot clean up {name!r} in namespace {place!r}: there is no such object; --orphan removes what one"
                " has left"
            )
        found = await find(session, name, place)
        await _confirm(session, found.reference, yes=yes)
        await _clean_up(session, found)
        return await await_absence(session, found, timeout, say) if wait else 0

    perform(work)


def pause(name: Name, namespace: Namespace = "") -> None:
    """Keep Plattr's hands off an object; its deletion still works."""
    perform(lambda session: _annotate(session, name, namespace, is_paused=True))


def resume(name: Name, namespace: Namespace = "") -> None:
    """Let Plattr work on an object again."""
    perform(lambda session: _annotate(session, name, namespace, is_paused=False))


async def _clean_up(session: Session, found: Found) -> None:
    reference = found.reference
    run = await read_run(session.temporal, reference, with_progress=False)
    if (run is None or not run.is_open) and await _start_cleanup(session, reference):
        say(f"cleanup of {reference.kind} {reference.namespace}/{reference.name} started")
        return
    # Its run is open and holds the object's lock: the deletion turns it into the cleanup.
    resource = custom_resource(reference.kind)
    await session.kube.delete(resource, reference.name, reference.namespace, uid=found.uid)
    await temporal.poke(session.temporal, reference, is_deleting=True)
    say(
        f"{reference.kind} {reference.namespace}/{reference.name} is being deleted; its open run goes on as the cleanup"
    )


async def _clean_orphan(session: Session, name: str, namespace: str, *, yes: bool) -> int:
    living = await look_up(session, name, namespace)
    if living:
        raise ObjectNotFound(
            f"cannot clean up after {name!r} in namespace {namespace!r}: {living[0].reference.kind} {name!r} still"
            " exists; leave out --orphan to remove it as well"
        )
    reference = await _orphan(session, name, namespace)
    run = await read_run(session.temporal, reference, with_progress=False)
    if run is not None and run.is_open:
        say(f"{run.workflow_type} of {reference.namespace}/{reference.name} is open already; plattr explain tells more")
        return 0
    await _confirm(session, reference, yes=yes)
    await _start_cleanup(session, reference)
    say(f"cleanup of what {reference.kind} {reference.namespace}/{reference.name} left started")
    return 0


async def _orphan(session: Session, name: str, namespace: str) -> ObjectReference:
    """Return which kind of object left something, by the ledger; an Application if that cannot be told."""
    kinds, plain = parse_name(name)
    references = [ObjectReference(kind=kind, namespace=namespace, name=plain) for kind in kinds]
    for reference in references:
        if await held_claims(session, reference):
            return reference
    return references[0]


async def _start_cleanup(session: Session, reference: ObjectReference) -> bool:
    """Start the cleanup by hand; False when a run has begun meanwhile."""
    try:
        await session.temporal.start_workflow(
            temporal.workflow_type(reference.kind, is_deleting=True),
            RunInput(namespace=reference.namespace, name=reference.name, by_hand=True),
            id=workflow_id(reference),
            task_queue=TASK_QUEUE,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            search_attributes=temporal.search_attributes(reference),
            static_summary=temporal.summary(reference, is_deleting=True),
            rpc_timeout=temporal.RPC_TIMEOUT,
        )
    except WorkflowAlreadyStartedError:
        return False
    except (RPCError, RuntimeError) as error:
        raise temporal.translated(error, f"start the cleanup of {reference}") from None
    return True


async def _confirm(session: Session, reference: ObjectReference, *, yes: bool) -> None:
    if yes:
        return
    claims = await held_claims(session, reference)
    owned = f", with {claim_words(claims)}" if claims else ""
    typer.confirm(f"Remove {reference.kind} {reference.namespace}/{reference.name}{owned}?", abort=True)


async def _annotate(session: Session, name: str, namespace: str, *, is_paused: bool) -> int:
    found = await find(session, name, namespace or session.default_namespace)
    reference, word = found.reference, "paused" if is_paused else "resumed"
    if found.is_paused is is_paused:
        say(f"{reference.kind} {reference.namespace}/{reference.name} is {word} already")
        return 0
    operations: list[Json] = [{"op": "test", "path": "/metadata/uid", "value": found.uid}]
    # In a JSON pointer a slash is written ~1.
    path = f"/metadata/annotations/{PAUSED_ANNOTATION.replace('/', '~1')}"
    if not is_paused:
        operations.append({"op": "remove", "path": path})
    elif found.body["metadata"].get("annotations"):
        operations.append({"op": "add", "path": path, "value": "true"})
    else:
        operations.append({"op": "add", "path": "/metadata/annotations", "value": {PAUSED_ANNOTATION: "true"}})
    await session.kube.json_patch(custom_resource(reference.kind), reference.name, operations, reference.namespace)
    say(f"{reference.kind} {reference.namespace}/{reference.name} {word}")
    return 0
