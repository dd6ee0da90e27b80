"""The worker process: read settings, connect clients, then run workflows and activities until told to stop."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from prometheus_client import REGISTRY
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import (
    FixedSizeSlotSupplier,
    PollerBehaviorAutoscaling,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkerTuner,
)

from activities.interceptor import AttemptGuard
from activities.metering import AttemptMeter
from clients.claim_store import ClaimStore
from clients.installation import take_cluster
from clients.temporal import connect_temporal, translated
from clients.temporal_probe import TemporalProbe
from plattr.errors import BackendRefused, MissingSetting, PlattrError, Transient
from plattr.retries import CONNECT
from plattr.settings import Settings
from plattr.steps import TASK_QUEUE
from telemetry import tracing
from telemetry.health_server import HealthServer
from telemetry.logs import configure_logging
from telemetry.sdk_metrics import SdkMetrics
from worker.health import WorkerHealth
from worker.open_databases import name_open_databases
from worker.registry import WORKFLOWS, Clients, build_activities, connect_clients
from worker.run_limiter import InFlightRuns, RunCounter, WorkflowTaskSlotSupplier
from worker.schedule import keep_schedule
from worker.vanished import keep_counting

logger = logging.getLogger("worker")

Answer = TypeVar("Answer")

EXIT_FAILED = 1
EXIT_BAD_SETTING = 2

# 25 s: an attempt of a step takes seconds. Kubernetes kills a pod 30 s after the request to stop, unless configured
# otherwise (deploy/ gives it 45 s). What is not done by then is cut off and retried elsewhere.
GRACE = timedelta(seconds=25)
# 50: this limits the load on the backends, not the CPU. A provision needs about 20 ms of the worker's CPU.
ACTIVITY_SLOTS = 50
# 8: a workflow task takes some 10 ms, mostly of the one CPU that Python uses. More at once do not get more done; they
# delay each other. While 300 previews ended, a person who applied an object waited 8 s with 20 slots, and 1.4 s with 8.
# With the SDK's default of 100, tasks even waited longer than the server's timeout of 10 s and were repeated.
WORKFLOW_TASK_SLOTS = 8
# 200 runs stay in memory, some 100 kB each. Others are replayed from their short histories.
CACHED_RUNS = 200
# 1 s: attempts send a heartbeat each second. The interceptor's fence relies on no heartbeat being delayed longer.
BEAT_THROTTLE = timedelta(seconds=1)


async def run(settings: Settings) -> None:
    """Serve the task queue until SIGTERM or SIGINT. Attempts that have begun are finished first.

    Raises:
        BackendRefused: Temporal refuses this worker, for example because its namespace does not exist.
        ClusterHeldElsewhere: another installation with this cluster's id is alive.
        BackendUnavailable: the worker cannot continue.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Tracing starts before the Temporal client, which continues the traces.
    tracing.start_tracing("plattr-worker", os.environ)
    sdk, health_checks = SdkMetrics(), WorkerHealth()
    health = HealthServer(
        settings.metrics_host, settings.metrics_port, REGISTRY, health_checks.live, health_checks.ready, more=sdk.read
    )
    await health.start()
    clients = await connect_clients(settings)
    looking = asyncio.create_task(name_open_databases(clients.postgres))
    try:
        client = await until_reached(stop, lambda: connect_temporal(lazy=False, runtime=sdk.runtime), "Temporal")
        health_checks.waits_for = "kubernetes and postgresql"
        # This comes before the first activity, because everything that an activity makes carries the owner's mark.
        installation = await until_reached(
            stop, lambda: take_cluster(clients.kube, clients.postgres, settings), "Kubernetes or PostgreSQL"
        )
        if client is not None and installation is not None:
            interval = timedelta(minutes=settings.resync_interval_minutes)
            beside = [
                installation.keep(),
                keep_schedule(client, interval, references=timedelta(seconds=settings.references_interval_seconds)),
                keep_counting(clients.kube, ClaimStore(clients.kube, settings.lease_namespace)),
            ]
            await _serve(client, build_worker(client, settings, clients), beside, health_checks, stop)
    finally:
        looking.cancel()
        await clients.close()
        await health.stop()
        await tracing.stop_tracing()
    logger.info("worker stopped")


async def _serve(
    client: Client,
    worker: Worker,
    loops: Iterable[Coroutine[Any, Any, None]],
    health_checks: WorkerHealth,
    stop: asyncio.Event,
) -> None:
    probe = TemporalProbe(client)
    # The connection has just been made.
    probe.heard()
    serving = asyncio.create_task(worker.run())
    # None of these loops ends by itself. A loop that ends has failed, and the process ends with it.
    beside = [asyncio.create_task(loop) for loop in (probe.run(), *loops)]
    stopping = asyncio.create_task(stop.wait())
    health_checks.serves(worker, serving, probe)
    logger.info("worker started", extra={"task_queue": TASK_QUEUE, "namespace": client.namespace})
    try:
        done, _ = await asyncio.wait({serving, stopping, *beside}, return_when=asyncio.FIRST_COMPLETED)
        health_checks.is_stopping = serving not in done
        if serving not in done:
            logger.info("worker stopping", extra={"grace_seconds": GRACE.total_seconds()})
            await worker.shutdown()
        for task in (serving, *done):
            await task
    except (RPCError, RuntimeError) as error:
        raise translated(error, f"serve task queue {TASK_QUEUE!r}") from error
    finally:
        for task in (*beside, stopping):
            task.cancel()


def build_worker(client: Client, settings: Settings, clients: Clients, task_queue: str = TASK_QUEUE) -> Worker:
    """Return the worker with every workflow and activity, guarded and bounded."""
    in_flight = InFlightRuns(settings.runs_at_once)
    return Worker(
        client,
        task_queue=task_queue,
        workflows=WORKFLOWS,
        # The tests run in the sandbox and refuse what it guards against; see docs/decisions/0011.
        workflow_runner=UnsandboxedWorkflowRunner(),
        activities=build_activities(settings, clients, client, task_queue),
        # The first is the outermost. The meter sees errors as the clients raised them; the guard puts them into words.
        interceptors=[AttemptGuard(), AttemptMeter(), RunCounter(in_flight)],
        graceful_shutdown_timeout=GRACE,
        tuner=build_tuner(in_flight),
        workflow_task_executor=ThreadPoolExecutor(WORKFLOW_TASK_SLOTS, thread_name_prefix="runs"),
        max_cached_workflows=CACHED_RUNS,
        max_heartbeat_throttle_interval=BEAT_THROTTLE,
        default_heartbeat_throttle_interval=BEAT_THROTTLE,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )


def build_tuner(in_flight: InFlightRuns) -> WorkerTuner:
    """Return what limits a worker: its activities, its workflow tasks, and how many runs are in flight."""
    none = FixedSizeSlotSupplier(1)
    return WorkerTuner.create_composite(
        workflow_supplier=WorkflowTaskSlotSupplier(WORKFLOW_TASK_SLOTS, in_flight),
        activity_supplier=FixedSizeSlotSupplier(ACTIVITY_SLOTS),
        local_activity_supplier=none,
        nexus_supplier=none,
    )


async def until_reached(stop: asyncio.Event, ask: Callable[[], Awaitable[Answer]], whom: str) -> Answer | None:
    """Return what a server answers; None if the process is told to stop while the server is away."""
    failures = 0
    while not stop.is_set():
        try:
            return await ask()
        except Transient as error:
            failures += 1
            pause = CONNECT.seconds(failures)
            extra = {"cause": str(error), "pause_seconds": pause}
            logger.warning("%s is away, trying again", whom, extra=extra)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
    return None


def take_settings(environment: MutableMapping[str, str]) -> Settings:
    """Read the settings, and remove S3's address from the environment: botocore would use it for every service.

    Secrets Manager, and STS, which a pod's role needs, keep AWS_ENDPOINT_URL_SECRETS_MANAGER and AWS_ENDPOINT_URL_STS.

    Raises:
        MissingSetting: a setting is missing or bad.
    """
    settings = Settings.from_mapping(environment)
    environment.pop("AWS_ENDPOINT_URL", None)
    return settings


def main() -> int:
    """Return the exit code: 0 stopped, 1 failed, 2 a setting is missing or bad."""
    try:
        settings = take_settings(os.environ)
        configure_logging(settings.log_level)
        asyncio.run(run(settings))
    except (MissingSetting, BackendRefused) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_BAD_SETTING
    except PlattrError as error:
        logger.error("worker failed", extra={"cause": str(error), "reason": error.reason})  # noqa: TRY400  its words say it
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
