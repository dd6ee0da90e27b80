"""Let one installation at a time hold a cluster's id. A chain of tokens, which no copy can follow, proves the holder.

A Lease in the cluster's own API server names the token in the PostgreSQL row, and the token that comes next. Each
renewal advances both tokens. A copy of etcd therefore knows only an old token as soon as the original has renewed once
more. See docs/decisions/0027-whose-a-resource-is.md.
"""

import asyncio
import logging
import secrets
from contextlib import suppress
from typing import NamedTuple, NoReturn

from clients.cluster import cluster_id
from clients.kube import KubeClient
from clients.postgres import PostgresClient
from clients.resources import LEASES, Json
from plattr import sql_installations as sql
from plattr.errors import BackendRefused, BackendUnavailable, ClusterHeldElsewhere, Conflict, PlattrError
from plattr.objects import GROUP
from plattr.settings import Settings

logger = logging.getLogger(__name__)

LEASE_NAME = "plattr-installation"
TOKEN_ANNOTATION = f"{GROUP}/installation-token"
NEXT_TOKEN_ANNOTATION = f"{GROUP}/installation-next-token"

# 10 s: a copy of etcd that is older than two renewals never passes for the original.
RENEW_SECONDS = 10.0
# 60 s without a renewal free the id for another installation. PostgreSQL and the API server restart in less time.
LIVE_SECONDS = 60
# A further attempt is needed only if another worker of this installation renewed at the same moment.
ATTEMPTS = 20


class _Tokens(NamedTuple):
    current: str
    next: str


class Installation:
    """This installation's hold on its cluster's id, for all of its workers."""

    def __init__(
        self, kube: KubeClient, postgres: PostgresClient, namespace: str, *, live_seconds: int = LIVE_SECONDS
    ) -> None:
        self._kube = kube
        self._postgres = postgres
        self._namespace = namespace
        self._live_seconds = live_seconds
        self._known: _Tokens | None = None

    async def take(self) -> None:
        """Return when no other installation holds the id; before that, nothing may be written to any backend.

        It renews twice. The second token was created after this worker began, so an earlier copy of the Lease does not
        contain it.

        Raises:
            ClusterHeldElsewhere: another installation is alive under the id.
            BackendUnavailable: PostgreSQL or the API server cannot be reached.
        """
        await self.renew()
        await self.renew()

    async def renew(self) -> None:
        """Advance the token in PostgreSQL, then in the Lease; the next renewal repairs a crash between the two.

        Raises: as `take` does.
        """
        refused: _Tokens | None = None
        for _ in range(ATTEMPTS):
            tokens = await self._read()
            # The row refused these tokens, and the Lease still holds them. So no worker of ours has advanced the row.
            if tokens == refused:
                await self._refuse()
            if await self._renew_row(tokens):
                await self._advance(tokens)
                return
            refused = tokens
        raise BackendUnavailable(f"cannot renew Lease {LEASE_NAME!r}: it changes all the time")

    async def keep(self) -> NoReturn:
        """Renew for as long as the process lives; retry if a backend is away, without stopping any other work.

        Raises:
            ClusterHeldElsewhere: another installation has taken the id meanwhile.
        """
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self.renew()
            except ClusterHeldElsewhere:
                raise
            except PlattrError as error:
                logger.warning("cluster id not renewed, trying again", extra={"cause": str(error)})

    async def _read(self) -> _Tokens:
        """Return the Lease's tokens; if somebody removed the Lease, create it again with the remembered tokens."""
        lease = await self._kube.get(LEASES, LEASE_NAME, self._namespace)
        if lease is None:
            tokens = self._known or _Tokens(_new_token(), _new_token())
            # If several workers find no Lease, one of them creates it.
            lease = await self._kube.create(
                LEASES, _body(tokens, self._namespace), self._namespace
            ) or await self._kube.get(LEASES, LEASE_NAME, self._namespace)
            if lease is None:
                raise BackendUnavailable(f"cannot make Lease {LEASE_NAME!r}: it comes and goes")
        annotations = lease["metadata"].get("annotations", {})
        self._known = _Tokens(annotations.get(TOKEN_ANNOTATION, ""), annotations.get(NEXT_TOKEN_ANNOTATION, ""))
        if not all(self._known):
            raise BackendRefused(
                f"cannot tell who holds cluster id {self._kube.cluster!r}: Lease {LEASE_NAME!r} in namespace"
                f" {self._namespace!r} has lost its tokens; delete it, and wait for {self._live_seconds} s"
            )
        return self._known

    async def _renew_row(self, tokens: _Tokens) -> bool:
        async with self._postgres.transaction("renew the cluster's id") as transaction:
            rows = await transaction.call(
                sql.RENEW,
                cluster=self._kube.cluster,
                current=tokens.current,
                next=tokens.next,
                seconds=self._live_seconds,
            )
        return bool(rows)

    async def _advance(self, tokens: _Tokens) -> None:
        advanced = _Tokens(tokens.next, _new_token())
        operations: list[Json] = [
            {"op": "test", "path": _path(TOKEN_ANNOTATION), "value": tokens.current},
            {"op": "test", "path": _path(NEXT_TOKEN_ANNOTATION), "value": tokens.next},
            {"op": "add", "path": _path(TOKEN_ANNOTATION), "value": advanced.current},
            {"op": "add", "path": _path(NEXT_TOKEN_ANNOTATION), "value": advanced.next},
        ]
        # A conflict means that another worker of this installation has advanced the Lease.
        with suppress(Conflict):
            if await self._kube.json_patch(LEASES, LEASE_NAME, operations, self._namespace) is not None:
                self._known = advanced

    async def _refuse(self) -> NoReturn:
        async with self._postgres.transaction("read who holds the cluster's id") as transaction:
            rows = await transaction.fetch(sql.SILENT_SECONDS, cluster=self._kube.cluster)
        seconds = rows[0]["seconds"] if rows else 0
        raise ClusterHeldElsewhere(
            f"cannot work as cluster {self._kube.cluster!r}: another installation holds this id and renewed it"
            f" {seconds} s ago; stop its workers, or set CLUSTER_ID here when this cluster is a copy of its"
        )


async def take_cluster(kube: KubeClient, postgres: PostgresClient, settings: Settings) -> Installation:
    """Find this cluster's id, and return its installation when no other one holds the id; raises as `take` does."""
    kube.cluster = await cluster_id(kube, settings)
    installation = Installation(kube, postgres, settings.lease_namespace)
    await installation.take()
    return installation


def _new_token() -> str:
    return secrets.token_hex(16)


def _body(tokens: _Tokens, namespace: str) -> Json:
    annotations = {TOKEN_ANNOTATION: tokens.current, NEXT_TOKEN_ANNOTATION: tokens.next}
    return {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {"name": LEASE_NAME, "namespace": namespace, "annotations": annotations},
    }


def _path(annotation: str) -> str:
    return f"/metadata/annotations/{annotation.replace('/', '~1')}"
