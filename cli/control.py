"""`plattr resync`, `pause`, `resume`: control an object's run."""

import asyncio
from typing import Annotated

import typer

from cli.connection import Session, perform
from cli.objects import find, list_all
from cli.options import Name, Namespace
from cli.output import say
from clients.resources import Json, custom_resource
from plattr.objects import PAUSED_ANNOTATION, CustomObject
from plattr.steps import RESYNC_SIGNAL

# 10 at once: all objects get their request within seconds, and Temporal stays free for the runs themselves.
REQUESTS_AT_ONCE = 10


def resync(
    name: Annotated[str, typer.Argument(help="NAME, app/NAME or preview/NAME.", show_default=False)] = "",
    namespace: Namespace = "",
    every: Annotated[
        bool, typer.Option("--all", help="Every object, in all namespaces or in the one that -n names.")
    ] = False,
) -> None:
    """Run every step of an object again, also when nothing has changed; retries a failed run now."""
    if bool(name) == every:
        raise typer.BadParameter("give either a NAME or --all")

    async def work(session: Session) -> int:
        if every:
            objects = await list_all(session, namespace)
        else:
            objects = [await find(session, name, namespace or session.default_namespace)]
        # Imported here, because `pause` and `resume` need no Temporal.
        from clients import temporal

        limit = asyncio.Semaphore(REQUESTS_AT_ONCE)

        async def request(found: CustomObject) -> None:
            async with limit:
                await temporal.request_reconcile(
                    await session.temporal(), found.reference, is_deleting=found.is_deleting, signal=RESYNC_SIGNAL
                )
            paused = "; it is paused, so nothing happens until plattr resume" if found.is_paused else ""
            say(f"{found.reference.kind} {found.reference.namespace}/{found.reference.name} resyncs{paused}")

        await asyncio.gather(*(request(found) for found in objects))
        return 0

    perform(work)


def pause(name: Name, namespace: Namespace = "") -> None:
    """Pause an object: Plattr changes nothing for it, and still cleans up when it is deleted."""
    perform(lambda session: _annotate(session, name, namespace, is_paused=True))


def resume(name: Name, namespace: Namespace = "") -> None:
    """Resume a paused object."""
    perform(lambda session: _annotate(session, name, namespace, is_paused=False))


async def _annotate(session: Session, name: str, namespace: str, *, is_paused: bool) -> int:
    found = await find(session, name, namespace or session.default_namespace)
    reference, word = found.reference, "paused" if is_paused else "resumed"
    if found.is_paused is is_paused:
        say(f"{reference.kind} {reference.namespace}/{reference.name} is {word} already")
        return 0
    operations: list[Json] = [{"op": "test", "path": "/metadata/uid", "value": found.metadata.uid}]
    # In a JSON pointer ~1 stands for a slash.
    path = f"/metadata/annotations/{PAUSED_ANNOTATION.replace('/', '~1')}"
    if not is_paused:
        operations.append({"op": "remove", "path": path})
    elif found.metadata.annotations:
        operations.append({"op": "add", "path": path, "value": "true"})
    else:
        operations.append({"op": "add", "path": "/metadata/annotations", "value": {PAUSED_ANNOTATION: "true"}})
    await session.kube.json_patch(custom_resource(reference.kind), reference.name, operations, reference.namespace)
    say(f"{reference.kind} {reference.namespace}/{reference.name} {word}")
    return 0
