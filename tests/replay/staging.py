"""The situations that an upgrade meets, brought about on a real platform with worker and watcher."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from clients.resources import APPLICATIONS, PREVIEWS, Resource
from clients.temporal import request_reconcile, search_attributes
from plattr.adoption import Adoption, AdoptionInput
from plattr.fleet import SCHEDULE_ID
from plattr.objects import PAUSED_ANNOTATION, Kind
from plattr.steps import PROGRESS_QUERY, TASK_QUEUE, Progress
from tests.e2e.view import EVERYTHING, SMALL, View

Handle = WorkflowHandle[Any, Any]
Keep = Callable[[str, Handle], Awaitable[None]]
"""Record a run as it is now, under the name of what it does."""

STORED: dict[str, Any] = SMALL | {"storage": {"enabled": True, "buckets": [{"name": "files"}]}}
# A failed attempt, its retries, the pause of 30 s, and the same again.
RETRY_SECONDS = 180.0


class Stage:
    """Objects in one namespace, and the runs they lead to."""

    def __init__(self, view: View, keep: Keep) -> None:
        self._view = view
        self._keep = keep

    async def play(self) -> None:
        """Bring everything about; what has ended by then is found in Temporal's list."""
        await self._applications()
        await self._previews()
        await self._outage()
        await self._view.temporal.get_schedule_handle(SCHEDULE_ID).trigger()
        await self._view.remove_everything()

    async def _applications(self) -> None:
        view = self._view
        taken = {"domain": f"shop.{view.namespace}.example.com"}
        await view.apply("shop", EVERYTHING | taken)
        await view.wait_running("shop")
        await view.apply("shop", EVERYTHING | taken | {"imageRef": "registry.example/my-app:2"})
        await view.wait_running("shop")
        await view.apply("refused", SMALL | taken)
        await view.wait_failed("refused")
        # A deletion is announced, and by then the name is a living object's again.
        await request_reconcile(view.temporal, view.reference("shop"), is_deleting=True)
        await view.settle("shop")
        await view.apply("stored", STORED)
        await view.wait_running("stored")
        await self._adopt("stored")

        await view.apply("paused", SMALL)
        await view.wait_running("paused")
        await view.settle("paused")
        await self._pause("paused", APPLICATIONS)
        await request_reconcile(view.temporal, view.reference("paused"), is_deleting=False)
        await view.settle("paused")
        await self._keep("paused", view.run_of("paused"))
        await self._pause("paused", APPLICATIONS, is_paused=False)

    async def _previews(self) -> None:
        view = self._view
        for number, name in enumerate(("asleep", "held", "ended", "called-off"), start=1):
            spec = {"applicationRef": "shop", "pullRequest": number, "branch": "topic"}
            await view.apply(name, spec, Kind.PREVIEW)
        for name in ("asleep", "held", "ended", "called-off"):
            await view.wait_running(name, resource=PREVIEWS)
        await self._until(view.run_of("asleep", Kind.PREVIEW), lambda progress: progress.step is None)
        await self._keep("asleep", view.run_of("asleep", Kind.PREVIEW))

        held = view.run_of("held", Kind.PREVIEW)
        await self._pause("held", PREVIEWS)
        await held.result()
        await self._keep("paused", held)
        await self._pause("held", PREVIEWS, is_paused=False)

        preempted = view.run_of("called-off", Kind.PREVIEW)
        await preempted.cancel()
        await self._keep("canceled", await _ended(preempted))
        await view.delete("ended", PREVIEWS)
        await view.wait_gone("ended", resource=PREVIEWS)

    async def _outage(self) -> None:
        view = self._view
        await view.apply("stuck", STORED)
        await view.wait_running("stuck")
        view.platform.stop_service("s3")
        try:
            for name in ("waiting", "given-up", "changed"):
                await view.apply(name, STORED)
            await view.delete("stuck")
            runs = {name: view.run_of(name) for name in ("waiting", "given-up", "changed", "stuck")}
            for run in runs.values():
                await self._until(run, lambda progress: progress.round > 1 and progress.next_retry is not None)
            await self._keep("retrying", runs["waiting"])
            await self._keep("retrying", runs["stuck"])
            # What somebody deletes while its provision is tried again goes on as its cleanup.
            await view.delete("changed")
            await runs["given-up"].cancel()
            await self._keep("canceled", await _ended(runs["given-up"]))
        finally:
            view.platform.start_service("s3")

    async def _adopt(self, name: str) -> None:
        """Look, as an operator does, for what the object could take over: nothing."""
        reference = self._view.reference(name)
        await self._view.temporal.execute_workflow(
            "AdoptResources",
            AdoptionInput(reference=reference),
            id=f"adopt/{reference.namespace}/{reference.name}",
            task_queue=TASK_QUEUE,
            result_type=Adoption,
            search_attributes=search_attributes(reference),
        )

    async def _pause(self, name: str, resource: Resource, *, is_paused: bool = True) -> None:
        body = await self._view.kube.get(resource, name, self._view.namespace)
        assert body is not None
        annotations = dict(body["metadata"].get("annotations", {})) | {PAUSED_ANNOTATION: "true"}
        if not is_paused:
            del annotations[PAUSED_ANNOTATION]
        operations = [{"op": "add", "path": "/metadata/annotations", "value": annotations}]
        await self._view.kube.json_patch(resource, name, operations, self._view.namespace)

    async def _until(self, run: Handle, condition: Callable[[Progress], bool]) -> None:
        async with asyncio.timeout(RETRY_SECONDS):
            while True:
                try:
                    if condition(await run.query(PROGRESS_QUERY, result_type=Progress)):
                        return
                except RPCError as error:
                    # On a busy machine the watcher has not started the run yet.
                    if error.status is not RPCStatusCode.NOT_FOUND:
                        raise
                await asyncio.sleep(0.5)


async def _ended(run: Handle) -> Handle:
    async with asyncio.timeout(60):
        while (await run.describe()).close_time is None:
            await asyncio.sleep(0.2)
    return run
