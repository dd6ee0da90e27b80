"""The watcher's metrics. Each scrape counts the phases afresh, so no count is stale."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class WatcherMetrics:
    """Every metric of the watcher except the phases, in the given registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = Counter(
            "plattr_watcher_events", "Events that the watches delivered", ["resource", "type"], registry=registry
        )
        self.requests = Counter(
            "plattr_watcher_reconcile_requests",
            "Reconcile requests that Temporal accepted",
            ["kind", "signal"],
            registry=registry,
        )
        self.request_errors = Counter(
            "plattr_watcher_reconcile_request_errors",
            "Reconcile requests that Temporal did not accept",
            ["kind", "reason"],
            registry=registry,
        )
        self.relists = Counter("plattr_watcher_relists", "Lists of all objects", ["resource"], registry=registry)
        self.watch_errors = Counter(
            "plattr_watcher_watch_errors", "Lists and watches that failed", ["resource", "reason"], registry=registry
        )
        self.queue_depth = Gauge(
            "plattr_watcher_queue_depth", "Objects that wait for their reconcile request to be sent", registry=registry
        )
        self.lag = Histogram(
            "plattr_watcher_lag_seconds",
            "From seeing a change to Temporal's acceptance of the reconcile request",
            # From the milliseconds of an idle machine to an outage of ten minutes.
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600),
            registry=registry,
        )
        self.time_to_running = Histogram(
            "plattr_time_to_running_seconds",
            "From the creation of an object, or a change of its spec, to phase Running",
            ["kind", "environment", "change"],
            # From the seconds of a warm platform to the longest pause of the slow retry (ten minutes) and an outage of
            # an hour.
            buckets=(1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600),
            registry=registry,
        )
        self.is_leader = Gauge("plattr_watcher_is_leader", "1 while this replica watches", registry=registry)


class PhaseCollector(Collector):
    """Count the objects by kind, environment and phase (`plattr_objects`)."""

    def __init__(self, census: Callable[[], Mapping[tuple[str, str, str], int]]) -> None:
        self._census = census

    def collect(self) -> Iterator[Metric]:
        """Count the objects now."""
        family = GaugeMetricFamily("plattr_objects", "Objects by phase", labels=["kind", "environment", "phase"])
        for labels, count in self._census().items():
            family.add_metric(labels, count)
        yield family
