"""Run the watcher: `python -m watcher`."""

import asyncio
import logging
import os
import signal
import sys

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from clients.kube import KubeClient
from clients.temporal import connect_temporal
from plattr.errors import MissingSetting, PlattrError
from plattr.settings import WatcherSettings
from telemetry import tracing
from telemetry.health_server import HealthServer
from telemetry.logs import configure_logging
from watcher.leadership import Leadership
from watcher.metrics import PhaseCollector, WatcherMetrics
from watcher.service import DRAIN_SECONDS, WatcherService

logger = logging.getLogger("watcher")

EXIT_FAILED = 1
EXIT_BAD_SETTING = 2


async def serve(settings: WatcherSettings) -> None:
    """Watch until SIGTERM or SIGINT. Then flush the pending reconcile requests and release the Lease."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Tracing starts before the Temporal client, because each reconcile request begins a trace.
    tracing.start_tracing("plattr-watcher", os.environ)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    # Lazy: the watcher starts, lists and queues while Temporal is away.
    client = await connect_temporal(lazy=True)
    kube = await KubeClient.connect()
    leadership = Leadership(kube, settings.lease_namespace) if settings.leader_election else None
    service = WatcherService(kube, client, WatcherMetrics(registry), leadership=leadership)
    registry.register(PhaseCollector(service.tracker.census))
    health = HealthServer(settings.metrics_host, settings.metrics_port, registry, service.live, service.ready)
    try:
        await health.start()
        await _run_until(stop, service)
    finally:
        if leadership is not None:
            await leadership.release()
        await health.stop()
        await kube.close()
        await tracing.stop_tracing()
    logger.info("watcher stopped")


async def _run_until(stop: asyncio.Event, service: WatcherService) -> None:
    running = asyncio.create_task(service.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if running.done():
        # Only a failure ends the service.
        running.result()
        return
    logger.info("watcher stopping", extra={"waiting": service.queue.depth})
    if not await service.queue.drain(DRAIN_SECONDS):
        # These requests are not lost: the next watcher requests a reconcile of every unsettled object on its list.
        logger.warning("reconcile requests left to the next watcher", extra={"waiting": service.queue.depth})
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def main() -> int:
    """Return the exit code: 0 stopped, 1 failed, 2 a setting is missing or bad."""
    try:
        settings = WatcherSettings.from_mapping(os.environ)
        configure_logging(settings.log_level)
        asyncio.run(serve(settings))
    except MissingSetting as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_BAD_SETTING
    except PlattrError as error:
        logger.error("watcher failed", extra={"cause": str(error), "reason": error.reason})  # noqa: TRY400  its words say it
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
