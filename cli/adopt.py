"""`plattr adopt`: take over resources that have an object's names but another owner's mark."""

from datetime import timedelta

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import TimeoutError as RunTimedOut
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from cli.connection import EXIT_FAILED, Session, perform
from cli.objects import ObjectNotFound, find
from cli.options import Name, Namespace, Yes
from cli.output import say
from cli.terminal import plain
from clients import temporal
from plattr.adoption import Adoption, AdoptionInput
from plattr.errors import BackendRefused, BackendUnavailable
from plattr.naming import adoption_id
from plattr.objects import CustomObject, ObjectReference
from plattr.steps import REPAIR_SIGNAL

# 5 min: four attempts of 60 s and the pauses between them.
RUN_TIMEOUT = timedelta(minutes=5)


def adopt(name: Name, namespace: Namespace = "", yes: Yes = False) -> None:
    """Take over what has an object's names and belongs to another owner, or to none.

    Shows what it found and asks before it takes over anything. Use it for a cluster that was restored under another
    CLUSTER_ID, for a namespace that was created again or whose objects moved, and for a Deployment that is older than
    Plattr. Needs access to Temporal; the worker does the work.
    """

    async def work(session: Session) -> int:
        found = await find(session, name, namespace or session.default_namespace)
        if found.is_deleting:
            raise ObjectNotFound(f"cannot take anything over for {found.reference}: it is being deleted")
        offer = await _run(session, AdoptionInput(reference=found.reference))
        _show(offer)
        if not offer.found:
            say(f"there is nothing that {found.reference} can take over")
            return EXIT_FAILED if offer.obstacles else 0
        if not yes:
            typer.confirm(f"Take over these {len(offer.found)} for {found.reference}?", abort=True)
        return await _take_over(session, found, offer)

    perform(work)


async def _take_over(session: Session, found: CustomObject, offer: Adoption) -> int:
    reference = found.reference
    try:
        outcome = await _run(session, AdoptionInput(reference=reference, approved=offer.found))
    finally:
        # Also after a failure: the worker of an attempt may have died after it took over some resources.
        await temporal.request_reconcile(await session.temporal(), reference, is_deleting=False, signal=REPAIR_SIGNAL)
    say(f"{len(outcome.taken)} taken over for {reference}")
    if outcome.found:
        say("these have changed since they were shown, and stay: " + ", ".join(each.what for each in outcome.found))
    return EXIT_FAILED if outcome.found else 0


def _show(offer: Adoption) -> None:
    table = Table(box=box.SIMPLE)
    for column in ("what", "belongs to"):
        table.add_column(column, overflow="fold")
    for each in offer.found:
        table.add_row(plain(each.what), plain(each.holder))
    if offer.found:
        Console(soft_wrap=True).print(table)
    for obstacle in offer.obstacles:
        say(f"stays: {obstacle}")


async def _run(session: Session, adoption: AdoptionInput) -> Adoption:
    """Have the worker search, or take over what was approved.

    Raises:
        BackendRefused: the worker cannot do it, or another adoption for the object is in progress.
        BackendUnavailable: Temporal is away, or no worker is running.
    """
    reference, doing = adoption.reference, f"take anything over for {adoption.reference}"
    try:
        handle = await temporal.start_run(
            await session.temporal(),
            "AdoptResources",
            adoption,
            workflow_id=adoption_id(reference),
            summary=_summary(reference, is_look=not adoption.approved),
            doing=doing,
            reference=reference,
            timeout=RUN_TIMEOUT,
            result_type=Adoption,
        )
        outcome: Adoption = await handle.result()
    except WorkflowAlreadyStartedError:
        raise BackendRefused(f"cannot {doing}: another adoption for it is under way") from None
    except WorkflowFailureError as error:
        if isinstance(error.cause, RunTimedOut):
            raise BackendUnavailable(f"cannot {doing}: no answer in time; is a worker running?") from None
        cause = getattr(error.cause, "cause", None) or error.cause
        raise BackendRefused(str(cause)) from None
    except (RPCError, RuntimeError) as error:
        raise temporal.translated(error, doing) from None
    return outcome


def _summary(reference: ObjectReference, *, is_look: bool) -> str:
    verb = "look what could be taken over" if is_look else "take over"
    return f"{verb} for {reference.kind} {reference.namespace}/{reference.name}"
