"""`plattr cleanup`: remove an object with all it owns, or what a deleted object has left."""

import time
from datetime import timedelta
from typing import Annotated

import typer

from cli.claims import claim_words, held_claims, readable_claims
from cli.connection import Session, perform
from cli.follow import await_absence, await_nothing_left
from cli.objects import ObjectNotFound, find, look_up, parse_name
from cli.options import DEFAULT_TIMEOUT, Name, Namespace, Timeout, Wait, Yes
from cli.output import say
from cli.runs import read_run
from clients import temporal
from clients.resources import custom_resource
from plattr.claims import is_data, outliving
from plattr.errors import BackendRefused
from plattr.objects import CustomObject, Kind, ObjectReference
from plattr.steps import CASCADE_SIGNAL, CHANGED_SIGNAL

# The prefixes that people write before the name.
_PREFIXES = {Kind.APPLICATION: "app", Kind.PREVIEW: "preview"}


def cleanup(
    name: Name,
    namespace: Namespace = "",
    orphan: Annotated[
        bool,
        typer.Option("--orphan", help="The object is gone. Delete what it has left behind, including retained data."),
    ] = False,
    cascade: Annotated[
        bool,
        typer.Option("--cascade", help="Also delete what others made from its data, such as views and foreign keys."),
    ] = False,
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Delete an object and everything it owns, or what a deleted object has left behind."""

    async def work(session: Session) -> int:
        place = namespace or session.default_namespace
        if orphan:
            return await _clean_orphan(session, name, place, timeout, cascade=cascade, yes=yes, wait=wait)
        if not await look_up(session, name, place):
            raise ObjectNotFound(
                f"cannot clean up {name!r} in namespace {place!r}: there is no such object; --orphan deletes what a"
                " deleted object has left behind"
            )
        found = await find(session, name, place)
        if not yes:
            typer.confirm(await _question(session, found, cascade=cascade), abort=True)
        await _clean_up(session, found, cascade=cascade)
        return await await_absence(session, found, timeout, say) if wait else 0

    perform(work)


async def _question(session: Session, found: CustomObject, *, cascade: bool) -> str:
    """Return the question to ask before an object is removed: what is removed with it, and what stays."""
    claims = await held_claims(session, found.reference)
    is_retaining = found.spec.get("deletionPolicy") == "Retain"
    of_others = outliving(claims, found.metadata.uid)
    staying = [each for each in claims if is_data(each.claim) and (is_retaining or each.claim in of_others)]
    going = [each for each in claims if each not in staying]
    question = f"Remove {_words(found.reference)}"
    if going:
        question += f", with {claim_words(going)}"
    if staying:
        question += f"; what is retained stays: {claim_words(staying)}"
    elif is_retaining:
        question += "; what is retained stays"
    if cascade:
        question += "; and what others made of its data"
    return f"{question}?"


async def _clean_up(session: Session, found: CustomObject, *, cascade: bool) -> None:
    reference = found.reference
    run = await read_run(await session.temporal(), reference, with_progress=False)
    if (run is None or not run.is_open) and await temporal.start_cleanup(
        await session.temporal(), reference, uid=found.metadata.uid, cascade=cascade
    ):
        say(f"cleanup of {_words(reference)} started")
        return
    # The object's run is open and holds its lock. The deletion turns this run into the cleanup.
    resource = custom_resource(reference.kind)
    await session.kube.delete(resource, reference.name, reference.namespace, uid=found.metadata.uid)
    signal = CASCADE_SIGNAL if cascade else CHANGED_SIGNAL
    await temporal.request_reconcile(await session.temporal(), reference, is_deleting=True, signal=signal)
    say(f"{_words(reference)} is being deleted; its open run continues as the cleanup")


async def _clean_orphan(
    session: Session, name: str, namespace: str, timeout: timedelta, *, cascade: bool, yes: bool, wait: bool
) -> int:
    reference = await _orphan(session, name, namespace)
    claims = claim_words(await held_claims(session, reference))
    if not yes:
        owned = f": {claims}" if claims else "; no claim of it is known, so every backend is asked for its names"
        typer.confirm(f"Remove all that {_words(reference)} left, retained data as well{owned}?", abort=True)
    deadline = time.monotonic() + timeout.total_seconds()
    await _purge(session, reference, cascade=cascade)
    if not wait:
        return 0
    return await await_nothing_left(session, reference, deadline, say)


async def _purge(session: Session, reference: ObjectReference, *, cascade: bool) -> None:
    """Let the object's run remove what is left. Start a cleanup if no run is open."""
    client = await session.temporal()
    run = await read_run(client, reference, with_progress=False)
    await temporal.request_purge(client, reference, cascade=cascade)
    if run is not None and run.is_open:
        say(f"{run.workflow_type} of {_words(reference)} is open; it removes what is left")
    else:
        say(f"cleanup of what {_words(reference)} left started")


async def _orphan(session: Session, text: str, namespace: str) -> ObjectReference:
    """Return the object that is gone. If the name does not tell its kind, the claim store does.

    Raises:
        ObjectNotFound: the object still exists, or its kind is not clear.
    """
    kinds, name = parse_name(text)
    living = [found.kind for found in await look_up(session, text, namespace)]
    gone = [ObjectReference(kind=kind, namespace=namespace, name=name) for kind in kinds if kind not in living]
    exists = " and ".join(f"{kind} {name!r} still exists" for kind in living)
    problem = f"cannot clean up after {name!r} in namespace {namespace!r}"
    if not gone:
        raise ObjectNotFound(f"{problem}: {exists}; leave out --orphan to remove it as well")
    if len(kinds) == 1:
        return gone[0]
    spelled = " or ".join(f"{_PREFIXES[reference.kind]}/{name}" for reference in gone)
    try:
        leaving = [reference for reference in gone if await readable_claims(session, reference)]
    except BackendRefused:
        raise ObjectNotFound(
            f"{problem}: the Leases in namespace {session.lease_namespace!r} tell of which kind it was, and you may"
            f" not read them; write {spelled}"
        ) from None
    if len(leaving) == 1:
        return leaving[0]
    cause = "objects of both kinds have left something" if leaving else "no claim tells of which kind it was"
    raise ObjectNotFound(f"{problem}: {f'{exists}, and ' if exists else ''}{cause}; write {spelled}")


def _words(reference: ObjectReference) -> str:
    return f"{reference.kind} {reference.namespace}/{reference.name}"
