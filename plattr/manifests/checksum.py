"""The checksum that rolls the pods when what they read at their start has changed."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

CHECKSUM_ANNOTATION = "platform.internal/config-checksum"


def config_checksum(secrets: Iterable[dict[str, Any]], config_maps: Iterable[dict[str, Any]]) -> str:
    """Return a hex digest over Secrets and ConfigMaps as the API server holds them; their order does not matter.

    A Secret counts by UID and resourceVersion, never by its content: everybody who may read a pod sees the
    checksum, and a value of few bits could be guessed from it.
    """
    parts = {f"secret/{_name(secret)}": _version(secret) for secret in secrets}
    parts |= {f"configmap/{_name(config_map)}": _content(config_map) for config_map in config_maps}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _name(manifest: dict[str, Any]) -> str:
    return str(manifest["metadata"]["name"])


def _version(secret: dict[str, Any]) -> list[Any]:
    metadata = secret["metadata"]
    return [metadata["uid"], metadata["resourceVersion"]]


def _content(config_map: dict[str, Any]) -> list[Any]:
    return [config_map.get("data") or {}, config_map.get("binaryData") or {}]
