"""Leader election by a Lease: one replica watches, the others wait.

Leader election is an optimisation. Two leaders would only send requests twice, and the workflow ids keep the runs of
every object apart. So a leader that loses the Lease simply ends its process: no half-stopped thread survives that.
This module does not use the library's election, because the library's requests have no time limit. A hung request
would outlive the Lease.
"""

import asyncio
import logging
import os
import random
import secrets
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime

from clients.kube import KubeClient
from clients.resources import LEASES, Json
from plattr.errors import Conflict, PlattrError

logger = logging.getLogger(__name__)

LEASE_NAME = "plattr-watcher"
LEASE_SECONDS = 15
RENEW_SECONDS = 5.0
# After 10 s without a renewal the leader stops. Another replica may take the Lease 5 s later.
RENEW_DEADLINE_SECONDS = 10.0
# The RetryPeriod of client-go. A released Lease changes hands within this time.
RETRY_SECONDS = 2.0


class LeadershipLost(PlattrError):
    """Raised when the Lease was not renewed in time or another replica holds it. The process must end."""

    reason = "LeadershipLost"


class Leadership:
    """One replica's part in the election."""

    def __init__(
        self, kube: KubeClient, namespace: str, identity: str = "", *, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._retry_seconds = retry_seconds
        # Random: a restarted pod keeps its host name, but must not mistake its predecessor's Lease for its own.
        self.identity = identity or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.is_leader = False
        self.alive_at = time.monotonic()
        """When the loop last did anything, even if it failed."""
        # The holder's record, and when it last changed by the local clock. Clocks of two machines cannot be compared.
        self._record: tuple[str, str] | None = None
        self._record_at = 0.0

    async def acquire(self) -> None:
        """Return once this replica is the leader."""
        logger.info("waiting for leadership", extra={"identity": self.identity})
        while True:
            if await self._try():
                break
            await asyncio.sleep(self._retry_seconds * random.uniform(0.8, 1.2))  # noqa: S311  jitter, not a secret
        self.is_leader = True
        logger.info("became leader", extra={"identity": self.identity})

    async def keep(self) -> None:
        """Renew until cancelled.

        Raises:
            LeadershipLost: another replica holds the Lease, or this one could not renew it in time.
        """
        renewed_at = time.monotonic()
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            while not await self._try():
                holder = self._record[0] if self._record else ""
                if holder not in ("", self.identity):
                    self.is_leader = False
                    raise LeadershipLost(f"cannot go on watching: {holder} holds Lease {LEASE_NAME!r} now")
                if time.monotonic() - renewed_at > RENEW_DEADLINE_SECONDS:
                    self.is_leader = False
                    raise LeadershipLost(
                        f"cannot go on watching: Lease {LEASE_NAME!r} in {self._namespace!r} was not renewed for"
                        f" {RENEW_DEADLINE_SECONDS:.0f} s"
                    )
                await asyncio.sleep(RETRY_SECONDS / 2)
            renewed_at = time.monotonic()

    async def release(self) -> None:
        """Release the Lease, so that another replica need not wait for its end. Does nothing without leadership."""
        if not self.is_leader:
            return
        self.is_leader = False
        with suppress(PlattrError, TimeoutError):  # it ends by itself after LEASE_SECONDS
            async with asyncio.timeout(RENEW_SECONDS):
                lease = await self._kube.get(LEASES, LEASE_NAME, self._namespace)
                if lease is not None and lease["spec"].get("holderIdentity") == self.identity:
                    await self._write(lease, holder="", seconds=1)
        logger.info("gave up leadership", extra={"identity": self.identity})

    async def _try(self) -> bool:
        """Take or renew the Lease; False if another replica holds it or the API server does not answer."""
        self.alive_at = time.monotonic()
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                return await self._take()
        except Conflict:
            # Another replica was quicker, or has just renewed. The next try reads the Lease again.
            return False
        except (PlattrError, TimeoutError) as error:
            logger.warning("cannot reach the lease", extra={"cause": str(error) or "no answer in time"})
            return False

    async def _take(self) -> bool:
        lease = await self._kube.get(LEASES, LEASE_NAME, self._namespace)
        if lease is None:
            return await self._kube.create(LEASES, self._new(), self._namespace) is not None
        spec = lease.get("spec") or {}
        record = (spec.get("holderIdentity") or "", lease["metadata"]["resourceVersion"])
        if record != self._record:
            self._record, self._record_at = record, time.monotonic()
        holder = record[0]
        has_expired = time.monotonic() - self._record_at > (spec.get("leaseDurationSeconds") or LEASE_SECONDS)
        if holder and holder != self.identity and not has_expired:
            return False
        await self._write(lease, holder=self.identity, seconds=LEASE_SECONDS)
        return True

    async def _write(self, lease: Json, *, holder: str, seconds: int) -> None:
        spec = dict(lease.get("spec") or {})
        if spec.get("holderIdentity") != holder:
            spec["acquireTime"] = _now()
            spec["leaseTransitions"] = spec.get("leaseTransitions", 0) + (1 if holder else 0)
        spec |= {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": _now()}
        # The patch tests the version, so of two replicas that read the same Lease only one can write it.
        version = lease["metadata"]["resourceVersion"]
        await self._kube.json_patch(
            LEASES,
            LEASE_NAME,
            [
                {"op": "test", "path": "/metadata/resourceVersion", "value": version},
                {"op": "add", "path": "/spec", "value": spec},
            ],
            self._namespace,
        )

    def _new(self) -> Json:
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": LEASE_NAME, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": LEASE_SECONDS,
                "acquireTime": _now(),
                "renewTime": _now(),
                "leaseTransitions": 0,
            },
        }


def _now() -> str:
    # The API server's MicroTime has six digits and a Z.
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
