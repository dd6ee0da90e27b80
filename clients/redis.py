"""Redis as its admin: users and their keys; every failure becomes one of Plattr's errors.

Each use opens its own connection. A step needs Redis only for milliseconds, and a kept connection would outlive a
failover. This client repeats no command. Temporal retries, and each attempt reads again first.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pydantic import SecretStr

from clients import fence
from plattr.backends import Backend, of_backend
from plattr.errors import BackendRefused, BackendUnavailable, PlattrError
from plattr.redis_users import RedisUser, Rules, template_name
from plattr.settings import Settings
from telemetry import tracing

if TYPE_CHECKING:
    from redis.asyncio import Redis

# 5 s: a command takes less than a millisecond, but another client's script may block the server.
SECONDS = 5.0
# 10,000: one page keeps the server busy for some 3 ms, and no other client is served meanwhile.
SCAN_PAGE = 10_000
# 500: the keys of one UNLINK. A separate thread of the server frees their values.
UNLINK_BATCH = 500


class UsersMissing(BackendRefused):
    """Raised when the server has no ACL commands, as on ElastiCache, where AWS's own API creates the users."""


class RedisClient:
    """One Redis server. Clusters are not supported, because each node of a cluster has its own users."""

    def __init__(self, url: SecretStr, *, seconds: float = SECONDS) -> None:
        self._url = url
        self._seconds = seconds
        address = urlsplit(url.get_secret_value())
        # The address without user and password, for messages.
        self._place = f"{address.hostname}:{address.port or 6379}"

    @classmethod
    def connect(cls, settings: Settings) -> Self | None:
        """Return a client without sending anything; None when the platform does not manage Redis."""
        return None if settings.redis_admin_url is None else cls(settings.redis_admin_url)

    async def user(self, name: str) -> RedisUser | None:
        """Return the user of this name; None when it does not exist.

        Raises:
            UsersMissing: the server has no ACL commands.
        """
        action = f"read user {name!r}"
        async with self._connected(action) as redis:
            reply = await self._call(redis, action, "ACL", "GETUSER", name)
        return None if reply is None else RedisUser.from_reply(name, _pairs(reply))

    async def users(self) -> list[RedisUser]:
        """Return every user.

        Raises:
            UsersMissing: the server has no ACL commands.
        """
        action = "list the users"
        found = []
        async with self._connected(action) as redis:
            for name in await self._call(redis, action, "ACL", "USERS"):
                reply = await self._call(redis, action, "ACL", "GETUSER", name)
                # None: the user was deleted after the list was read.
                found += [] if reply is None else [RedisUser.from_reply(name, _pairs(reply))]
        return found

    async def template(self, rules: Rules) -> RedisUser:
        """Return the user that has only the rules' commands; create it if it is missing. The user is switched off."""
        name = template_name(rules.commands)
        found = await self.user(name)
        if found is not None:
            return found
        await self._set(name, ("reset", *rules.commands))
        made = await self.user(name)
        if made is None:
            raise self._error(f"read user {name!r}", BackendUnavailable, "it was made and is not there")
        return made

    async def set_user(self, rules: Rules) -> None:
        """Create a user, or set all of its rules, in one atomic command.

        Raises:
            UsersMissing: the server has no ACL commands.
        """
        await self._set(rules.name, rules.arguments())

    async def lock_user(self, user: RedisUser, record: str) -> None:
        """Lock the user out and end its connections; its owner record and its databases stay.

        Redis ends a user's connections only if the user is deleted, or switched off by a file. So this method deletes
        the user and creates it again in the same transaction, because nothing else records the owner of its keys.
        """
        action = f"close user {user.name!r}"
        databases = (f"+select|{number}" for number in sorted(user.databases))
        async with self._connected(action) as redis:
            await self._write(redis, action, "MULTI")
            await self._call(redis, action, "ACL", "DELUSER", user.name)
            await self._call(redis, action, "ACL", "SETUSER", user.name, "reset", "off", f"&{record}", *databases)
            for answer in await self._call(redis, action, "EXEC"):
                if isinstance(answer, Exception):
                    raise self._translated(action, answer) from None
            await self._save(redis, action)

    async def delete_user(self, name: str) -> None:
        """Delete a user and end its connections; a missing user is success."""
        action = f"delete user {name!r}"
        async with self._connected(action) as redis:
            await self._write(redis, action, "ACL", "DELUSER", name)
            await self._save(redis, action)

    async def databases(self) -> list[int]:
        """Return the numbers of the logical databases that hold keys."""
        action = "list the databases"
        async with self._connected(action) as redis:
            text = await self._call(redis, action, "INFO", "keyspace")
        lines = text.splitlines() if isinstance(text, str) else [f"{name}:" for name in text]
        return sorted(int(line[2:].partition(":")[0]) for line in lines if line.startswith("db"))

    async def unlink_page(self, database: int, prefix: str, cursor: int) -> int:
        """Remove the keys with this prefix from one page of the database's keys; return the next page's cursor.

        Begin with cursor 0. The returned cursor 0 means the end: every key that existed all the time was then scanned.
        """
        action = f"remove the keys {prefix}* of database {database}"
        async with self._connected(action, database) as redis:
            following, keys = await self._page(redis, action, prefix, cursor)
            for begin in range(0, len(keys), UNLINK_BATCH):
                await self._write(redis, action, "UNLINK", *keys[begin : begin + UNLINK_BATCH])
        return following

    async def look_at_page(self, database: int, prefix: str, cursor: int) -> tuple[int, bool]:
        """Return the next page's cursor, and whether a key of this page begins with the prefix."""
        action = f"look for the keys {prefix}* of database {database}"
        async with self._connected(action, database) as redis:
            following, keys = await self._page(redis, action, prefix, cursor)
        return following, bool(keys)

    async def _page(self, redis: "Redis", action: str, prefix: str, cursor: int) -> tuple[int, list[bytes]]:
        following, keys = await self._call(
            redis, action, "SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", SCAN_PAGE, as_bytes=True
        )
        return int(following), keys

    async def _set(self, name: str, arguments: Sequence[str]) -> None:
        action = f"set user {name!r}"
        async with self._connected(action) as redis:
            await self._write(redis, action, "ACL", "SETUSER", name, *arguments)
            await self._save(redis, action)

    async def _save(self, redis: "Redis", action: str) -> None:
        """Save the users for a restart if the server has a file for them; otherwise the next run creates lost users."""
        try:
            await self._write(redis, action, "ACL", "SAVE")
        except _NoFile:
            return

    async def _write(self, redis: "Redis", action: str, *command: str | bytes | int) -> Any:
        # The connection is open already, so nothing waits between the fence check and the sending.
        fence.ensure_live()
        return await self._call(redis, action, *command)

    async def _call(self, redis: "Redis", action: str, *command: str | bytes | int, as_bytes: bool = False) -> Any:
        from redis.exceptions import RedisError

        options = {"NEVER_DECODE": True} if as_bytes else {}
        operation = " ".join(str(word) for word in command[: 2 if command[0] in ("ACL", "INFO") else 1])
        try:
            with tracing.span(Backend.REDIS, "command", {"db.operation.name": operation}):
                return await redis.execute_command(*command, **options)  # type: ignore[no-untyped-call]  # the library is untyped here
        except RedisError as error:
            raise self._translated(action, error) from None

    @asynccontextmanager
    async def _connected(self, action: str, database: int = 0) -> AsyncIterator["Redis"]:
        # Imported here, not above: the command line and the workflows do not need Redis.
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        redis = Redis.from_url(
            self._url.get_secret_value(),
            db=database,
            decode_responses=True,
            # Servers of every version support protocol 2.
            protocol=2,
            single_connection_client=True,
            socket_timeout=self._seconds,
            socket_connect_timeout=self._seconds,
            retry=Retry(NoBackoff(), 0),
        )
        # Without the library's callbacks, ACL GETUSER and SCAN return the server's own replies.
        redis.response_callbacks.clear()
        try:
            try:
                async with asyncio.timeout(min(self._seconds * 2, fence.seconds_on_the_way())):
                    await redis.initialize()
            except TimeoutError:
                raise self._error(action, BackendUnavailable, "no answer") from None
            except RedisError as error:
                raise self._translated(action, error) from None
            yield redis
        finally:
            await redis.aclose()

    def _translated(self, action: str, error: Exception) -> PlattrError:
        from redis import exceptions

        # Cut the text here: then Redis quotes the command, and the command may hold a password's hash.
        text = str(error).partition(", with args")[0].partition("\n")[0]
        match error:
            case exceptions.AuthenticationError() | exceptions.AuthenticationWrongNumberOfArgsError():
                return self._error(action, BackendRefused, "it does not let the admin in; check REDIS_ADMIN_URL")
            case exceptions.BusyLoadingError() | exceptions.ConnectionError() | exceptions.TimeoutError():
                return self._error(action, BackendUnavailable, text or type(error).__name__)
            case exceptions.NoPermissionError():
                return self._error(action, BackendRefused, f"{text}; the user of REDIS_ADMIN_URL needs +@all ~* &*")
        if "unknown command" in text.lower() or "unknown subcommand" in text.lower():
            return self._error(action, UsersMissing, f"{text}; it lets nobody manage users")
        if "not configured to use an ACL file" in text:
            return _NoFile(text)
        # BUSY: another client's script; READONLY, LOADING, MASTERDOWN: a failover; OOM, MISCONF: full memory or disk.
        if isinstance(error, exceptions.ReadOnlyError | exceptions.OutOfMemoryError) or text.startswith(_PASSING):
            return self._error(action, BackendUnavailable, text)
        return self._error(action, BackendRefused, f"{text}; Redis 7, or Valkey, is needed for users")

    def _error(self, action: str, kind: type[PlattrError], cause: str) -> PlattrError:
        return of_backend(Backend.REDIS, kind(f"cannot {action} of Redis at {self._place}: {cause}"))


class _NoFile(BackendRefused):
    """Raised when the server stores its users in memory only."""


_PASSING = ("BUSY", "LOADING", "MASTERDOWN", "MISCONF", "TRYAGAIN", "NOREPLICAS", "CLUSTERDOWN")


def _pairs(reply: Any) -> dict[str, Any]:
    """Return a reply that is a map; protocol 2 sends the map as one flat list."""
    if isinstance(reply, dict):
        return reply
    return dict(zip(reply[::2], reply[1::2], strict=True))
