"""What the kubelet says of a probe, in our words."""

from typing import Any

import pytest

from plattr.probes import is_unready, probe_trouble

CANARY = "canary-1234"
GET = 'Get "http://10.0.0.7:3000/healthz"'
REFUSED = "GET /healthz on port 3000 is refused, nothing listens there"
SILENT = "GET /healthz on port 3000 gave no answer in time"
PROBE = {"httpGet": {"path": "/healthz", "port": "http"}}


def pod(*, ready: bool = False, state: str = "running") -> dict[str, Any]:
    return {
        "metadata": {"name": "shop-1"},
        "spec": {
            "containers": [
                {
                    "name": "app",
                    "ports": [{"name": "http", "containerPort": 3000}],
                    "startupProbe": PROBE,
                    "readinessProbe": PROBE,
                    "livenessProbe": PROBE,
                },
                {"name": "postgrest", "readinessProbe": {"tcpSocket": {"port": 3001}}},
            ]
        },
        "status": {
            "containerStatuses": [
                {"name": "app", "ready": ready, "state": {state: {}}},
                {"name": "postgrest", "ready": ready, "state": {"running": {}}},
            ]
        },
    }


def event(message: str, *, container: str = "app", at: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    involved = {"fieldPath": f"spec.containers{{{container}}}"}
    return {"metadata": {"creationTimestamp": at}, "involvedObject": involved, "lastTimestamp": at, "message": message}


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("Readiness probe failed: HTTP probe failed with statuscode: 404", "GET /healthz on port 3000 answered 404"),
        ("Startup probe failed: HTTP probe failed with statuscode: 500", "GET /healthz on port 3000 answered 500"),
        (f"Liveness probe failed: {GET}: dial tcp 10.0.0.7:3000: connect: connection refused", REFUSED),
        (f"Readiness probe failed: {GET}: context deadline exceeded (Client.Timeout exceeded)", SILENT),
        (f"Readiness probe failed: {CANARY}", "GET /healthz on port 3000 fails"),
    ],
)
def test_each_outcome_is_told_in_our_words(message: str, told: str) -> None:
    assert probe_trouble(pod(), [event(message)]) == f"container app of pod shop-1 is running, not ready: {told}"


def test_a_sidecar_is_told_of_by_its_port() -> None:
    message = "Readiness probe failed: dial tcp 10.0.0.7:3001: connect: connection refused"

    text = probe_trouble(pod(), [event(message, container="postgrest")])

    assert (
        text == "container postgrest of pod shop-1 is running, not ready: port 3001 is refused, nothing listens there"
    )


def test_the_newest_event_counts() -> None:
    old = event("Startup probe failed: connection refused")
    new = event("Startup probe failed: HTTP probe failed with statuscode: 404", at="2026-01-01T00:00:09Z")

    assert probe_trouble(pod(), [old, new]).endswith("answered 404")


def test_what_is_ready_by_now_is_not_told_of() -> None:
    assert not is_unready(pod(ready=True))
    assert probe_trouble(pod(ready=True), [event("Readiness probe failed: connection refused")]) == ""


def test_a_container_between_two_starts_is_not_said_to_run() -> None:
    text = probe_trouble(pod(state="waiting"), [event("Liveness probe failed: connection refused")])

    assert "is not ready: GET /healthz" in text


@pytest.mark.attack
@pytest.mark.parametrize(
    "forged",
    [
        event(CANARY),
        event(f"Readiness probe failed: HTTP probe failed with statuscode: {CANARY}"),
        event(f"Readiness probe failed: connection refused {CANARY}"),
        event("Readiness probe failed: x", container=CANARY),
        {"metadata": {}, "message": CANARY},
    ],
)
def test_nothing_that_an_event_says_is_quoted(forged: dict[str, Any]) -> None:
    assert CANARY not in probe_trouble(pod(), [forged])
