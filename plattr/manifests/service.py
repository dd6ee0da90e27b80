"""The Service in front of the pods."""

from typing import Any

from plattr.manifests.metadata import build_metadata
from plattr.manifests.ports import HTTP_PORT_NAME, POSTGREST_PORT, POSTGREST_PORT_NAME, SERVICE_PORT
from plattr.target import Target


def build_service(target: Target) -> dict[str, Any]:
    """Return the Service: :80 leads to the application, :3001 to PostgREST where there is a database."""
    ports = [_port(HTTP_PORT_NAME, SERVICE_PORT)]
    if target.spec.database.enabled:
        ports.append(_port(POSTGREST_PORT_NAME, POSTGREST_PORT))
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(target, target.names.stem),
        "spec": {"type": "ClusterIP", "selector": target.selector_labels, "ports": ports},
    }


def _port(name: str, port: int) -> dict[str, Any]:
    # Server-side apply merges ports by a key that includes the protocol. So the protocol is always set explicitly.
    return {"name": name, "port": port, "protocol": "TCP", "targetPort": name}
