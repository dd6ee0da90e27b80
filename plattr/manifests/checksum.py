"""The checksum that rolls the pods when the content that they read at their start has changed."""

import hashlib
import hmac
import json
from collections.abc import Iterable
from typing import Any

CHECKSUM_ANNOTATION = "platform.internal/config-checksum"


def config_checksum(secrets: Iterable[dict[str, Any]], config_maps: Iterable[dict[str, Any]], key: bytes) -> str:
    """Return a hex digest over Secrets and ConfigMaps as the API server holds them; their order does not matter.

    Only their content counts, not their version or labels: a label on a Secret must not roll the pods. The digest has a
    key, because everybody who may read a pod sees it. From a plain digest, a value of few bits could be guessed.
    """
    parts = {f"secret/{_name(secret)}": _content(secret) for secret in secrets}
    parts |= {f"configmap/{_name(config_map)}": _content(config_map) for config_map in config_maps}
    return hmac.new(key, json.dumps(parts, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def summed(body: dict[str, Any]) -> dict[str, Any]:
    """Return a stand-in for a Secret or a ConfigMap in a checksum: name, version, and a digest as content.

    A caller may read five hundred of them, of a megabyte each. Memory must not hold all of these at once.
    """
    metadata = {field: body["metadata"][field] for field in ("name", "uid", "resourceVersion")}
    digest = hashlib.sha256(json.dumps(_content(body), sort_keys=True).encode()).hexdigest()
    return {"metadata": metadata, "data": {"sha256": digest}}


def _name(manifest: dict[str, Any]) -> str:
    return str(manifest["metadata"]["name"])


def _content(body: dict[str, Any]) -> list[Any]:
    return [body.get("data") or {}, body.get("binaryData") or {}]
