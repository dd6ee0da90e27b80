"""The worker process: settings, clients, then workflows and activities until it is told to stop."""

import asyncio
import logging
import os
import signal
import sys
from datetime import timedelta

from prometheus_client import REGISTRY
from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, Worker

from activities.clients.telemetry import HealthServer, configure_logging
from activities.clients.temporal import connect_temporal
from activities.interceptor import AttemptGuard
from plattr.errors import BackendRefused, BackendUnavailable, MissingSetting
from plattr.settings import Settings
from plattr.steps import TASK_QUEUE
from worker.registry import WORKFLOWS, Clients, build_activities, connect_clients

logger = logging.getLogger("worker")

# 25 s: a step's attempt takes seconds, and Kubernetes kills a pod 30 s after it asked it to stop unless told
# otherwise (deploy/ gives it 45 s). What is not done by then is cut off and tried again elsewhere.
GRACE = timedelta(seconds=25)
# 50: bounds the backends' load, not the CPU; a provision needs about 20 ms of the worker's.
ACTIVITY_SLOTS = 50
# 200 runs kept in memory, some 100 kB each; others are replayed from their short histories.
CACHED_RUNS = 200
# 1 s: attempts beat each second, and the interceptor's fence counts on no beat being held back for longer.
BEAT_THROTTLE = timedelta(seconds=1)


async def run(settings: Settings) -> None:
    """Serve the task queue until SIGTERM or SIGINT; attempts that have begun are finished first."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    state = "connecting to Temporal"

    def ready() -> str | None:
        return state or None

    health = HealthServer(settings.metrics_host, settings.metrics_port, REGISTRY, live=lambda: None, ready=ready)
    await health.start()
    clients = await connect_clients(settings)
    try:
        client = await _connect(stop)
        if client is None:
            return
        worker = build_worker(client, settings, clients)
        async with worker:
            state = ""
            logger.info("worker started", extra={"task_queue": TASK_QUEUE, "namespace": client.namespace})
            await stop.wait()
            state = "stopping"
            logger.info("worker stopping", extra={"grace_seconds": GRACE.total_seconds()})
    finally:
        await clients.close()
        await health.stop()
    logger.info("worker stopped")


def build_worker(client: Client, settings: Settings, clients: Clients, task_queue: str = TASK_QUEUE) -> Worker:
    """Return the worker with every workflow and activity, guarded and bounded."""
    return Worker(
        client,
        task_queue=task_queue,
        workflows=WORKFLOWS,
        activities=build_activities(settings, clients),
        interceptors=[AttemptGuard()],
        graceful_shutdown_timeout=GRACE,
        max_concurrent_activities=ACTIVITY_SLOTS,
        max_cached_workflows=CACHED_RUNS,
        max_heartbeat_throttle_interval=BEAT_THROTTLE,
        default_heartbeat_throttle_interval=BEAT_THROTTLE,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )


async def _connect(stop: asyncio.Event) -> Client | None:
    """Return the connected client; None when asked to stop while Temporal is away."""
    pause = 0.5
    while not stop.is_set():
        try:
            return await connect_temporal(lazy=False)
        except BackendUnavailable as error:
            logger.warning("Temporal is away, trying again", extra={"cause": str(error), "pause_seconds": pause})
            try:
                await asyncio.wait_for(stop.wait(), pause)
            except TimeoutError:
                # 10 s: the longest that a worker stays away after Temporal is back.
                pause = min(pause * 2, 10)
    return None


def main() -> int:
    """Run the worker; exit 2 with one line when a setting is missing or bad."""
    try:
        settings = Settings.from_mapping(os.environ)
        configure_logging(settings.log_level)
        asyncio.run(run(settings))
    except (MissingSetting, BackendRefused) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
