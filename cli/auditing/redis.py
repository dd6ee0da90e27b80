"""Which users Redis has. A channel in a user's rules names the owner."""

import json
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from cli.auditing.inventory import AuditFailed, Found, Thing, ThingKind
from plattr.settings import Settings

_PREFIX = "plattr:"
_SECONDS = 5
# Users with this prefix hold the admin's own commands in the server's wording. They are off, have no keys, and belong
# to no application.
_TEMPLATES = "plattr-rules-"


class RedisListing:
    """Ask one Redis as its admin."""

    def __init__(self, settings: Settings) -> None:
        self._redis: Redis | None = None
        if settings.redis_admin_url is not None and settings.redis_isolation != "none":
            self._redis = Redis.from_url(
                settings.redis_admin_url.get_secret_value(),
                decode_responses=True,
                protocol=2,
                socket_timeout=_SECONDS,
                socket_connect_timeout=_SECONDS,
            )

    def close(self) -> None:
        """Close the connection."""
        if self._redis is not None:
            self._redis.close()

    def found(self) -> list[Found] | None:
        """Return every user but Redis' own; None if Plattr makes no users here: no admin, or no ACL SETUSER."""
        if self._redis is None:
            return None
        try:
            lines: list[str] = self._redis.execute_command("ACL", "LIST")  # type: ignore[no-untyped-call]  # the library is untyped here
        except ResponseError as error:
            if "unknown" in str(error).lower():
                return None
            raise AuditFailed(f"cannot list the users of Redis: {error}") from None
        except RedisError as error:
            raise AuditFailed(f"cannot list the users of Redis: {type(error).__name__}") from None
        # Each line is `user NAME RULE RULE ...`, and no rule contains a blank.
        users = [line.split()[1:] for line in lines]
        return [_found(name, rules) for name, *rules in users if name != "default" and not name.startswith(_TEMPLATES)]


def _found(name: str, rules: list[str]) -> Found:
    record: Any = None
    for rule in rules:
        if rule.startswith(f"&{_PREFIX}"):
            try:
                record = json.loads(rule.removeprefix(f"&{_PREFIX}"))
            except ValueError:
                record = None
    is_record = isinstance(record, dict)
    return Found(
        thing=Thing(kind=ThingKind.REDIS_USER, name=name),
        owner=record.get("owner") if is_record else None,
        uid=record.get("uid") if is_record else None,
        cluster=record.get("cluster") if is_record else None,
        namespace_uid=record.get("namespaceUid") if is_record else None,
    )
