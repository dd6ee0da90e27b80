"""The key of the checksums on pods: created once, and stored in a Secret in Plattr's own namespace."""

import base64
import secrets
import time

from clients.kube import KubeClient
from clients.resources import SECRETS, Json
from plattr.errors import BackendRefused, Conflict

KEY_NAME = "plattr-checksum-key"
_FIELD = "key"
_BYTES = 32
# 5 min: the key changes only when somebody deletes the Secret.
KEPT_SECONDS = 300.0


class ChecksumKey:
    """Reads the key, and creates it if there is none. A new key changes every checksum once."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._known: tuple[bytes, float] | None = None

    async def read(self, *, refresh: bool = False) -> bytes:
        """Return the key; with `refresh`, read the Secret even if the key is cached.

        A caller that may roll pods must refresh. Otherwise two workers could roll the same pods in turn: one has cached
        a deleted key, and the second has created a new one.

        Raises:
            BackendRefused: the Secret holds no key.
            Conflict: the Secret was removed during its creation.
        """
        if not refresh and self._known is not None and self._known[1] > time.monotonic():
            return self._known[0]
        body = await self._kube.get(SECRETS, KEY_NAME, self._namespace) or await self._make()
        key = base64.b64decode(body.get("data", {}).get(_FIELD, ""))
        if len(key) < _BYTES:
            raise BackendRefused(
                f"cannot read the checksums' key from Secret {KEY_NAME!r} in namespace {self._namespace!r}: it holds"
                f" no {_FIELD} of {_BYTES} bytes; delete the Secret, and the next run makes it again"
            )
        self._known = key, time.monotonic() + KEPT_SECONDS
        return key

    async def _make(self) -> Json:
        body = {
            "apiVersion": SECRETS.api_version,
            "kind": SECRETS.kind,
            "metadata": {"name": KEY_NAME, "namespace": self._namespace},
            "data": {_FIELD: base64.b64encode(secrets.token_bytes(_BYTES)).decode()},
        }
        # Two workers may create the key at the same time. The first key counts.
        made = await self._kube.create(SECRETS, body, self._namespace)
        found = made or await self._kube.get(SECRETS, KEY_NAME, self._namespace)
        if found is None:
            raise Conflict(f"cannot read Secret {KEY_NAME!r} in namespace {self._namespace!r}: it is being removed")
        return found
