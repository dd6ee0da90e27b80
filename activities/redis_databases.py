"""Give each application a logical database of Redis, for clients without prefixes: REDIS_ISOLATION=database."""

import zlib

from clients.claim_store import ClaimStore
from clients.redis import RedisClient, UsersMissing
from plattr.claims import Claim
from plattr.errors import BackendRefused
from plattr.features import ClaimKind
from plattr.marks import estate_of
from plattr.redis_users import TEMPLATE_BEGINNING
from plattr.target import Target


class RedisDatabases:
    """Assign the databases; a claim records each owner, with one Lease for each number."""

    def __init__(self, claim_store: ClaimStore, redis: RedisClient | None, count: int) -> None:
        self._claim_store = claim_store
        self._redis = redis
        self._count = count

    async def number_of(self, target: Target) -> int:
        """Return the number of the target's database; the first call claims a free one.

        Raises:
            BackendRefused: no database is free.
        """
        owner = target.owner
        is_retained = target.spec.deletion_policy == "Retain"
        for held in await self._claim_store.held_by(estate_of(owner), ClaimKind.REDIS_DATABASE):
            # Claim it again, because an earlier object of the same name may hold it.
            await self._claim_store.acquire(owner, [held.claim], is_retained=is_retained)
            return int(held.claim.name)
        in_use = await self._in_use()
        # No application gets 0, because every connection begins there. The search starts at a different number for each
        # application: if all started at 1, they would compete for it.
        first = zlib.crc32(target.names.redis_user.encode())
        for step in range(self._count - 1):
            number = 1 + (first + step) % (self._count - 1)
            claim = Claim(kind=ClaimKind.REDIS_DATABASE, name=str(number))
            if number not in in_use:
                acquired = await self._claim_store.acquire(owner, [], optional=[claim], is_retained=is_retained)
                if claim in acquired.new:
                    return number
        raise BackendRefused(
            f"cannot find a free database of Redis for {owner.reference}: all of {self._count} are taken; set"
            " `databases` of Redis and REDIS_DATABASES to more"
        )

    async def _in_use(self) -> set[int]:
        """Return the databases in use, including those of another cluster, which the claim store does not know."""
        if self._redis is None:
            return set()
        numbers = set(await self._redis.databases())
        try:
            users = await self._redis.users()
        except UsersMissing:
            return numbers
        # Ignore the templates: a template stays when the last user of its number is gone.
        used = (user for user in users if not user.name.startswith(TEMPLATE_BEGINNING))
        return numbers.union(*(user.databases for user in used))
