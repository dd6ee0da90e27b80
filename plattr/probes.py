"""What the kubelet says about a pod's probes, in words of our own: anyone who may write Events can forge one."""

import re
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

UNHEALTHY_REASON = "Unhealthy"

# https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/prober/prober.go
_FAILED = re.compile(r"(?:Startup|Readiness|Liveness) probe (?:failed|errored)")
# https://github.com/kubernetes/kubernetes/blob/master/pkg/probe/http/http.go
_ANSWERED = re.compile(r"HTTP probe failed with statuscode: (\d{3})\b")
_CONTAINER = re.compile(r"spec\.(?:initContainers|containers)\{([^}]*)\}")
_SILENCE = re.compile(r"(?i)deadline exceeded|timed? ?out")


def is_unready(pod: Json) -> bool:
    """Tell whether the pod has a container that is not ready, perhaps because of its probes."""
    return bool(_unready(pod))


def probe_trouble(pod: Json, events: Sequence[Json]) -> str:
    """Return why a pod is not ready, by its newest Event of a failed probe; empty when there is no such Event.

    Args:
        pod: as the API server holds it.
        events: of this pod, with the reason `Unhealthy`.
    """
    unready = _unready(pod)
    for event in sorted(events, key=_moment, reverse=True):
        message = str(event.get("message", ""))
        named = _CONTAINER.fullmatch(str((event.get("involvedObject") or {}).get("fieldPath", "")))
        if named is None or named[1] not in unready or not _FAILED.match(message):
            continue
        state = "running, not ready" if "running" in (unready[named[1]].get("state") or {}) else "not ready"
        asked = _asked(pod, named[1], message)
        return f"container {named[1]} of pod {pod['metadata']['name']} is {state}: {asked} {_outcome(message)}"
    return ""


def _unready(pod: Json) -> dict[str, Json]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return {status["name"]: status for status in statuses if not status.get("ready")}


def _moment(event: Json) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp", ""))


def _asked(pod: Json, name: str, message: str) -> str:
    (container,) = [each for each in pod["spec"]["containers"] if each["name"] == name]
    probe: Json = container.get(f"{message.split()[0].lower()}Probe") or {}
    if "httpGet" in probe:
        return f"GET {probe['httpGet'].get('path', '/')} on port {_port(container, probe['httpGet'])}"
    if "tcpSocket" in probe:
        return f"port {_port(container, probe['tcpSocket'])}"
    return "its probe"


def _port(container: Json, handler: Json) -> Any:
    ports = {each.get("name"): each["containerPort"] for each in container.get("ports", [])}
    return ports.get(handler["port"], handler["port"])


def _outcome(message: str) -> str:
    if answered := _ANSWERED.search(message):
        return f"answered {answered[1]}"
    if "connection refused" in message:
        return "is refused, nothing listens there"
    if _SILENCE.search(message):
        return "gave no answer in time"
    return "fails"
