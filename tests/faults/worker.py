"""The real worker with places at which it can be killed or frozen; a process of its own, started by lanes.py.

`clients.fence.ensure_live`, which every client calls before every write, is where writes are counted.
A fault is a file that the test puts down; the worker takes it away before it acts, so each fires once. Without the
file the places do nothing but keep the journal.
"""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

import temporalio.client
import temporalio.worker
from temporalio import activity
from temporalio.client import Client

import worker.__main__ as real_worker
from clients import fence
from clients.cluster import cluster_id
from clients.temporal import connect_temporal
from plattr.objects import FrozenModel
from plattr.settings import Settings
from telemetry.logs import configure_logging
from tests.faults.chaos import Chaos
from tests.faults.mutants import Mutant, break_worker
from tests.faults.timing import Timing
from worker.registry import connect_clients


class Fault(FrozenModel):
    """Where an attempt meets its fault, and what happens there."""

    activity: str
    point: Literal["before", "write", "after"]
    workflow: str
    """The id of the run, which names the object."""
    count: int = 1
    """For `write`: before this write of an attempt, from 1."""
    signal: int = signal.SIGKILL
    pid: int | None = None
    """Whom the signal goes to; None: the worker itself."""
    sleep_seconds: float = 0
    """Instead of a signal: keep the thread waiting, as a backend does that hangs; for calls made in threads only."""


class Entry(FrozenModel):
    """One line of the journal."""

    pid: int
    at: float
    workflow: str
    activity: str
    attempt: int
    event: Literal["start", "write", "end", "failed"]


class _Attempt:
    """The writes of one attempt, counted across its tasks and threads."""

    def __init__(self) -> None:
        self._writes = 0
        self._lock = threading.Lock()

    def next_write(self) -> int:
        with self._lock:
            self._writes += 1
            return self._writes


_attempt: ContextVar[_Attempt | None] = ContextVar("attempt", default=None)


class Places(temporalio.client.Interceptor, temporalio.worker.Interceptor):
    """Every place of one worker; given to the client, which hands it on to the worker."""

    def __init__(self, folder: Path) -> None:
        self._fault = folder / "fault.json"
        self._fired = folder / "fired.json"
        self._journal = os.open(folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._ensure_live = fence.ensure_live

    def install(self) -> None:
        fence.ensure_live = self._before_write

    def intercept_activity(
        self, next: temporalio.worker.ActivityInboundInterceptor
    ) -> temporalio.worker.ActivityInboundInterceptor:
        return _PlacesOfActivity(next, self)

    def intercept_client(self, next: temporalio.client.OutboundInterceptor) -> temporalio.client.OutboundInterceptor:
        return _PlacesOfClient(next, self)

    def reach(self, point: str, count: int = 1) -> None:
        """Act if the fault is meant for here; its file goes first, so that it never fires twice."""
        try:
            fault = Fault.model_validate_json(self._fault.read_text())
        except FileNotFoundError:
            return
        here = activity.info()
        if (fault.activity, fault.point, fault.count, fault.workflow) != (
            here.activity_type,
            point,
            count,
            here.workflow_id,
        ):
            return
        try:
            self._fault.rename(self._fired)
        except FileNotFoundError:
            return
        if fault.sleep_seconds:
            time.sleep(fault.sleep_seconds)
        elif fault.pid is not None:
            os.kill(fault.pid, fault.signal)
        else:
            # To this very thread: a stop that is sent to the process may let a thread go on for a moment, past the
            # fence that comes next.
            signal.pthread_kill(threading.get_ident(), fault.signal)

    def note(self, event: Literal["start", "write", "end", "failed"]) -> None:
        here = activity.info()
        entry = Entry(
            pid=os.getpid(),
            at=time.time(),
            workflow=here.workflow_id,
            activity=here.activity_type,
            attempt=here.attempt,
            event=event,
        )
        os.write(self._journal, entry.model_dump_json().encode() + b"\n")

    def before_request(self) -> None:
        """A reconcile request writes into Temporal only; it asks no fence, for a late one harms nothing."""
        self._count_write(lambda: None)

    def _before_write(self) -> None:
        self._count_write(self._ensure_live)

    def _count_write(self, ensure_allowed: Callable[[], None]) -> None:
        attempt = _attempt.get()
        if attempt is None:
            ensure_allowed()
            return
        # Before the fence is asked: that is where a frozen worker has to be caught.
        self.reach("write", attempt.next_write())
        ensure_allowed()
        self.note("write")


class _PlacesOfClient(temporalio.client.OutboundInterceptor):
    def __init__(self, next: temporalio.client.OutboundInterceptor, places: Places) -> None:
        super().__init__(next)
        self._places = places

    async def start_workflow(
        self, input: temporalio.client.StartWorkflowInput
    ) -> temporalio.client.WorkflowHandle[Any, Any]:
        self._places.before_request()
        return await super().start_workflow(input)


class _PlacesOfActivity(temporalio.worker.ActivityInboundInterceptor):
    def __init__(self, next: temporalio.worker.ActivityInboundInterceptor, places: Places) -> None:
        super().__init__(next)
        self._places = places

    async def execute_activity(self, input: temporalio.worker.ExecuteActivityInput) -> Any:
        _attempt.set(_Attempt())
        self._places.note("start")
        self._places.reach("before")
        try:
            result = await super().execute_activity(input)
        except BaseException:
            self._places.note("failed")
            raise
        self._places.note("end")
        self._places.reach("after")
        return result


def run_worker(
    environment: dict[str, str],
    task_queue: str,
    folder: Path,
    timing: Timing | None,
    error_rate: float,
    mutant: Mutant | None,
) -> None:
    """Serve a task queue until killed; the target of a forked process."""
    os.environ.update(environment)
    if mutant is not None:
        # Before the places, which remember the fence as they find it.
        break_worker(mutant)
    if error_rate:
        Chaos(error_rate, folder).install()
    with (folder / "worker.log").open("a") as log:
        configure_logging("INFO", log)
        asyncio.run(_serve(Settings.from_mapping(os.environ), task_queue, folder, timing))


async def _serve(settings: Settings, task_queue: str, folder: Path, timing: Timing | None) -> None:
    places = Places(folder)
    places.install()
    if timing is not None:
        timing.install()
    client = await connect_temporal(lazy=False)
    client = Client(**(client.config() | {"interceptors": [places]}))
    clients = await connect_clients(settings)
    clients.kube.cluster = await cluster_id(clients.kube, settings)
    worker = real_worker.build_worker(client, settings, clients, task_queue)
    (folder / "ready").write_text(json.dumps(os.getpid()))
    await worker.run()
