"""Kubernetes Events about Plattr's objects, which `kubectl describe` shows at its end."""

import hashlib
import logging
from datetime import UTC, datetime
from typing import Literal

from clients.kube import KubeClient, NamespaceEnding
from clients.kube_connection import FIELD_MANAGER
from clients.resources import EVENTS, Json
from plattr.errors import BackendRefused
from plattr.objects import API_VERSION, Owner
from telemetry.metrics import EVENTS_LOST

logger = logging.getLogger(__name__)

# The API server's limit for an Event's note. The condition holds the full text.
# https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/validation/events.go
MESSAGE_LIMIT = 1024


class EventRecorder:
    """Records Events; a repeated Event only increases its count."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    async def record(self, owner: Owner, *, kind_of: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Record an Event about an object; log and count an Event that the API server refuses.

        The API server may refuse every Event, because rights are missing or because of a webhook. The conditions hold
        the same information, so no reconciliation, status update or deletion may depend on the Event. A namespace that
        is being deleted takes no Events, and a loss there is not counted.
        """
        namespace = owner.reference.namespace
        name = _name(owner, kind_of, reason, message)
        now = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
        body: Json = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": str(owner.reference.kind),
                "namespace": namespace,
                "name": owner.reference.name,
                "uid": owner.uid,
            },
            "type": kind_of,
            "reason": reason,
            "message": message[:MESSAGE_LIMIT],
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": FIELD_MANAGER,
        }
        try:
            created = await self._kube.create(EVENTS, body, namespace)
            if created is None:
                await self._count_up(name, namespace, now)
        except NamespaceEnding:
            return
        except BackendRefused as error:
            EVENTS_LOST.labels(reason).inc()
            logger.warning(
                "event lost",
                extra={"object": owner.reference.key, "event": reason, "note": message, "cause": str(error)},
            )

    async def _count_up(self, name: str, namespace: str, now: str) -> None:
        existing = await self._kube.get(EVENTS, name, namespace)
        operations: list[Json] = [
            {"op": "add", "path": "/count", "value": (existing or {}).get("count", 1) + 1},
            {"op": "add", "path": "/lastTimestamp", "value": now},
        ]
        await self._kube.json_patch(EVENTS, name, operations, namespace)


def _name(owner: Owner, kind_of: str, reason: str, message: str) -> str:
    """Return the same name for the same Event, so that a repetition finds it without a cache."""
    text = "\n".join((owner.reference.key, owner.uid, kind_of, reason, message))
    return f"{owner.reference.name}.{hashlib.sha256(text.encode()).hexdigest()[:20]}"
