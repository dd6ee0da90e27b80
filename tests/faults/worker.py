"""The real worker with places at which it can be killed or frozen; a process of its own, started by lanes.py.

`activities.clients.fence.ensure_live`, which every client calls before every write, is where writes are counted.
A fault is a file that the test puts down; the worker takes it away before it acts, so each fires once. Without the
file the places do nothing but keep the journal.
"""

import asyncio
import json
import os
import signal
import threading
import time
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import temporalio.client
import temporalio.worker
from temporalio import activity
from temporalio.client import Client

import activities.auth
import activities.interceptor
import worker.__main__ as real_worker
import workflows.object_run
from activities.clients import fence
from activities.clients.telemetry import configure_logging
from activities.clients.temporal import connect_temporal
from plattr.objects import FrozenModel
from plattr.settings import Settings
from tests.faults.chaos import Chaos
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


class Timing(FrozenModel):
    """How long a dead worker goes unnoticed, and how long a call of its own may come true after it."""

    heartbeat_timeout: timedelta
    fence_seconds: float
    sticky_timeout: timedelta
    late_call: timedelta


# As in workflows/options.py, activities/interceptor.py and the SDK. Only a cleanup that has to wait for a call which
# nobody answered waits for seconds instead of minutes: whoever made that call is stopped here for longer.
EARNEST = Timing(
    heartbeat_timeout=timedelta(seconds=15),
    fence_seconds=10,
    sticky_timeout=timedelta(seconds=10),
    late_call=timedelta(seconds=20),
)
# A quarter of that, in the same order, so that a matrix takes minutes, not hours: the fence ends first.
QUICK = Timing(
    heartbeat_timeout=timedelta(seconds=4),
    fence_seconds=2.5,
    sticky_timeout=timedelta(seconds=1),
    late_call=timedelta(seconds=5),
)


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
        else:
            os.kill(os.getpid() if fault.pid is None else fault.pid, fault.signal)

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

    def _before_write(self) -> None:
        attempt = _attempt.get()
        if attempt is None:
            self._ensure_live()
            return
        # Before the fence is asked: that is where a frozen worker has to be caught.
        self.reach("write", attempt.next_write())
        self._ensure_live()
        self.note("write")


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
    environment: dict[str, str], task_queue: str, folder: Path, timing: Timing | None, error_rate: float
) -> None:
    """Serve a task queue until killed; the target of a forked process."""
    os.environ.update(environment)
    if error_rate:
        Chaos(error_rate, folder).install()
    with (folder / "worker.log").open("a") as log:
        configure_logging("INFO", log)
        asyncio.run(_serve(Settings.from_mapping(os.environ), task_queue, folder, timing))


async def _serve(settings: Settings, task_queue: str, folder: Path, timing: Timing | None) -> None:
    places = Places(folder)
    places.install()
    if timing is not None:
        workflows.object_run.HEARTBEAT_TIMEOUT = timing.heartbeat_timeout
        activities.interceptor.FENCE_SECONDS = timing.fence_seconds
        activities.auth.LATE_CALL = timing.late_call
        real_worker.Worker = partial(
            temporalio.worker.Worker, sticky_queue_schedule_to_start_timeout=timing.sticky_timeout
        )
    client = await connect_temporal(lazy=False)
    client = Client(**(client.config() | {"interceptors": [places]}))
    clients = await connect_clients(settings)
    worker = real_worker.build_worker(client, settings, clients, task_queue)
    (folder / "ready").write_text(json.dumps(os.getpid()))
    await worker.run()
