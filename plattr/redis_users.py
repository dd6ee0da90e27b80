"""An application's user of Redis: what it may do, whose it is, and how Redis shows it."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from plattr.database import owner_record
from plattr.objects import FrozenModel, Owner
from plattr.target import Target

# Commands on keys, channels and the client's own connection, by category, so that nothing that a later Redis adds is
# granted by itself. The rest removes what reaches beyond the user's own keys:
# - @admin and @dangerous reach the server itself, all keys at once (KEYS, FLUSHALL, SORT ... GET) and other clients.
# - SCAN, RANDOMKEY, DBSIZE and PUBSUB name no key, so no right on keys restricts them: they reveal others' names.
# - CLIENT TRACKING in its broadcasting mode reveals every key that anybody changes.
# - A function belongs to the server, not to its maker: others would call what one user put in its place.
# - SCRIPT FLUSH and KILL affect everybody's scripts. EVAL itself sees only what its caller may see, from Redis 7 on.
_COMMANDS = (
    *("+@string", "+@hash", "+@list", "+@set", "+@sortedset", "+@stream", "+@bitmap", "+@hyperloglog", "+@geo"),
    *("+@keyspace", "+@pubsub", "+@transaction", "+@scripting", "+@connection", "+time"),
    *("-@admin", "-@dangerous", "-scan", "-randomkey", "-dbsize", "-pubsub", "-client|tracking", "-client|caching"),
    *("-function", "-fcall", "-fcall_ro", "-script", "+script|load", "+script|exists"),
)


class RedisUser(FrozenModel):
    """A user as Redis shows it."""

    name: str
    is_on: bool
    needs_no_password: bool
    passwords: tuple[str, ...]
    """The SHA-256 of each in hex: Redis keeps nothing else of a password."""
    keys: frozenset[str]
    channels: frozenset[str]
    commands: str
    """In the server's own words. These differ from the words that it was told, and between versions."""
    has_selectors: bool = False

    @classmethod
    def from_reply(cls, name: str, reply: Mapping[str, Any]) -> "RedisUser":
        """Read the answer to ACL GETUSER; patterns are one text from Redis 7 on, and a list before."""
        flags = reply.get("flags", [])
        return cls(
            name=name,
            is_on="on" in flags,
            needs_no_password="nopass" in flags,
            passwords=tuple(reply.get("passwords", [])),
            keys=_patterns(reply.get("keys", "")),
            channels=_patterns(reply.get("channels", "")),
            commands=str(reply.get("commands", "")),
            has_selectors=bool(reply.get("selectors")),
        )

    @property
    def databases(self) -> frozenset[int]:
        """Return the logical databases that are the only ones the user may select."""
        numbers = (word.removeprefix("+select|") for word in self.commands.split() if word.startswith("+select|"))
        return frozenset(int(number) for number in numbers if number.isdecimal())

    @property
    def record(self) -> str | None:
        """Return the owner's record that the user carries; None: the user is not Plattr's."""
        # From Redis 7 on, a pattern begins with its sigil.
        names = (channel.removeprefix("&") for channel in self.channels)
        return next((name for name in names if name.startswith(_RECORD_BEGINNING)), None)


_RECORD_BEGINNING = "plattr:"
# A user whose name begins so is a template: always off, and of no application.
TEMPLATE_BEGINNING = "plattr-rules-"


class Rules(FrozenModel):
    """What a user is to be, in the words that Redis is told."""

    name: str
    password_digest: str
    key_pattern: str
    channel_patterns: tuple[str, ...]
    commands: tuple[str, ...]

    def arguments(self) -> tuple[str, ...]:
        """Return the arguments of ACL SETUSER after the name; one command, so that no user is without its owner."""
        channels = (f"&{pattern}" for pattern in self.channel_patterns)
        return ("reset", "on", f"#{self.password_digest}", f"~{self.key_pattern}", *channels, *self.commands)

    def are_met_by(self, user: RedisUser, template: RedisUser) -> bool:
        """Tell whether the user is as it should be; the template has the same commands, in the server's words."""
        return (
            user.is_on
            and not user.needs_no_password
            and not user.has_selectors
            and user.passwords == (self.password_digest,)
            and {key.removeprefix("~") for key in user.keys} == {self.key_pattern}
            and {channel.removeprefix("&") for channel in user.channels} == set(self.channel_patterns)
            and user.commands == template.commands
        )


def user_rules(
    target: Target, password: str, extra_commands: Sequence[str] = (), *, database: int | None = None
) -> Rules:
    """Return the rules of the application's user: limited to its key prefix, or to a logical database.

    Redis has no right on a database. But Redis can allow a command with one first argument only. This has been
    deprecated since 7, and exists in all versions. Without MOVE, COPY and SELECT of other databases, a user reaches its
    own database and 0 only. Every connection begins in 0, and no application has its data there.
    """
    prefix = target.names.redis_prefix
    extra = tuple(f"+{command}" for command in extra_commands)
    if database is not None:
        extra = ("-move", "-copy", *extra, "-select", f"+select|{database}")
    return Rules(
        name=target.names.redis_user,
        password_digest=password_digest(password),
        key_pattern=f"{prefix}*" if database is None else "*",
        channel_patterns=(f"{prefix}*", channel_record(target.owner)),
        commands=(*_COMMANDS, *extra),
    )


def password_digest(password: str) -> str:
    """Return what Redis keeps of a password.

    A plain hash of 32 random bytes reveals nothing. No log or MONITOR of Redis shows the password when Plattr sends
    its hash.
    """
    return hashlib.sha256(password.encode()).hexdigest()


def channel_record(owner: Owner) -> str:
    """Return the channel that says whose a user is.

    A user of Redis carries no comment. But it may carry a right on a channel that nobody uses, and only an admin can
    change that right. A pattern cannot hold blanks. The record has blanks only between its parts.
    """
    return owner_record(owner).replace(" ", "")


def template_name(commands: Sequence[str]) -> str:
    """Return the name of the user, always off, that shows these rules in the server's words."""
    return f"{TEMPLATE_BEGINNING}{hashlib.sha256(' '.join(commands).encode()).hexdigest()[:12]}"


def secret_values(target: Target, addresses: Mapping[str, str], password: str) -> dict[str, str]:
    """Return what the application's Secret holds; the other addresses are not secret.

    Args:
        target: whose it is.
        addresses: the variables of Redis for those without a user.
        password: the user's.
    """
    scheme, _, place = addresses["REDIS_URL"].partition("://")
    user = target.names.redis_user
    return {
        "REDIS_URL": f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{place}",
        "REDIS_USERNAME": user,
        "REDIS_PASSWORD": password,
    }


def _patterns(reply: str | Sequence[str]) -> frozenset[str]:
    return frozenset(reply.split() if isinstance(reply, str) else reply)
