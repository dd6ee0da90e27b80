"""The worker's metrics in the process's one registry; docs/operating.md explains the use of each."""

from prometheus_client import Counter, Gauge, Histogram

STEP_SECONDS = Histogram(
    "plattr_step_duration_seconds",
    "How long an attempt of a step took",
    ["step", "outcome"],
    # From an attempt that finds nothing to do (some 10 ms) to START_TO_CLOSE (60 s), when the server times it out.
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60),
)
STEP_ATTEMPTS = Counter(
    "plattr_step_attempts", "Attempts of steps, by the reason that their failure carries", ["step", "reason"]
)
BACKEND_ERRORS = Counter(
    "plattr_backend_errors", "Attempts that failed by a backend's answer or silence", ["backend", "reason"]
)
VANISHED = Gauge(
    "plattr_vanished_objects", "Objects that are gone without a cleanup, whose names are still claimed for them"
)
EVENTS_LOST = Counter("plattr_events_lost", "Events about objects that the API server refused", ["event"])
