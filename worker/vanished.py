"""Count repeatedly the objects that vanished without a cleanup, so that an alert can report them."""

import asyncio
import logging
import random

from activities.vanished import find_vanished
from clients.claim_store import ClaimStore
from clients.kube import KubeClient
from plattr.errors import PlattrError
from telemetry.metrics import VANISHED

logger = logging.getLogger(__name__)

# 5 min: nothing gets worse meanwhile, and ten thousand objects have some 120 pages of claims.
PERIOD_SECONDS = 300.0


async def keep_counting(kube: KubeClient, claim_store: ClaimStore, *, period_seconds: float = PERIOD_SECONDS) -> None:
    """Count until cancelled. While the API server is away the count stays as it was."""
    told: frozenset[str] = frozenset()
    while True:
        try:
            found = frozenset(reference.key for reference in await find_vanished(kube, claim_store))
        except PlattrError as error:
            # The next period tries again. A backend that is away has alerts of its own.
            logger.warning("cannot look for vanished objects", extra={"cause": str(error)})
        else:
            VANISHED.set(len(found))
            for key in sorted(found - told):
                logger.warning(
                    "object vanished without a cleanup, its finalizer was taken off;"
                    " what it left goes by plattr cleanup --orphan",
                    extra={"object": key},
                )
            told = found
        # Jitter, because replicas must not all list at once.
        await asyncio.sleep(period_seconds * random.uniform(0.8, 1.2))  # noqa: S311  jitter, not a secret
