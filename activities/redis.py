"""The Redis step: a prefix, and a user that reaches nothing beyond it, if the server lets Plattr manage users."""

import re
import secrets
from base64 import b64decode
from collections.abc import Callable, Collection
from datetime import timedelta

from temporalio import activity

from activities.loading import TargetLoader
from activities.ownership import ensure_adoptable, find_live_uid, holds, list_owned, namespaces_of, remove_owned
from activities.polling import time_is_up
from activities.redis_databases import RedisDatabases
from clients.claim_store import ClaimStore
from clients.kube import KubeClient
from clients.redis import RedisClient, UsersMissing
from clients.resources import CONFIG_MAPS, SECRETS, Json, is_deleting
from plattr.claims import Claim
from plattr.database import recorded_mark
from plattr.endpoints import redis_values
from plattr.errors import Conflict, StillDeleting
from plattr.features import ClaimKind, ConditionType
from plattr.manifests.config_map import build_config_map
from plattr.manifests.metadata import FEATURE_LABEL
from plattr.manifests.secret import build_redis_secret
from plattr.marks import Estate, Mark, ensure_own, estate_of
from plattr.naming import redis_prefix
from plattr.redis_users import RedisUser, channel_record, password_digest, secret_values, user_rules
from plattr.retries import CLEANUP_BUDGET
from plattr.settings import Settings
from plattr.status import ConditionUpdate
from plattr.steps import CleanupStepInput, StepInput, StepResult
from plattr.target import Target

# 256 bits, as for the database: nobody can guess such a password.
PASSWORD_BYTES = 32

_LABELS = {FEATURE_LABEL: "redis"}


class RedisActivities:
    """Keep and remove what an application has in Redis."""

    def __init__(
        self,
        loader: TargetLoader,
        kube: KubeClient,
        redis: RedisClient | None,
        claim_store: ClaimStore,
        settings: Settings,
        *,
        cleanup_budget: timedelta = CLEANUP_BUDGET,
    ) -> None:
        self._loader = loader
        self._kube = kube
        self._redis = redis
        self._claim_store = claim_store
        self._settings = settings
        self._cleanup_budget = cleanup_budget
        self._databases = RedisDatabases(claim_store, redis, settings.redis_databases)
        # The scan position of each removal. Losing it with the worker costs only time: another worker starts again.
        self._cursors: dict[str, tuple[int, int]] = {}

    @activity.defn
    async def reconcile_redis(self, step: StepInput) -> StepResult:
        """Make the application's user with the password of its Secret, and write the address of Redis.

        Without an admin address, or if the server does not let Plattr manage users, only the prefix keeps applications
        apart. The condition says so. A second run writes nothing.

        Raises:
            OwnedElsewhere: the Secret, the ConfigMap or the user is somebody else's.
            BackendUnavailable: Redis or the API server cannot be reached.
            Conflict: somebody else wrote at the same time.
        """
        target = await self._loader.load(step)
        has_database = self._settings.redis_isolation == "database"
        database = await self._databases.number_of(target) if has_database else None
        addresses = redis_values(target, self._settings, database=database)
        lack = await self._keep_user(target, addresses, database)
        values = dict(addresses)
        if lack is None:
            del values["REDIS_URL"]
        else:
            # The address in the Secret would hide the address in the ConfigMap.
            await remove_owned(self._kube, estate_of(target.owner), [SECRETS], live_uid=None, labels=_LABELS)
        config_map = build_config_map(target, "redis", values)
        await self._kube.apply_owned(CONFIG_MAPS, config_map, target.owner, target.names.namespace)
        message = await self._message(target, lack, database)
        return StepResult(
            updates=(ConditionUpdate(type=ConditionType.REDIS, status="True", reason="Provisioned", message=message),)
        )

    @activity.defn
    async def delete_redis(self, step: CleanupStepInput) -> StepResult:
        """Close the owner's users, remove their keys, then Secret and ConfigMap, then the users.

        After its user is closed, nobody writes below a prefix any more, so one scan finds all of its keys. The users go
        last, because only a user proves whose the keys are. A claim does not: it belongs to one cluster, and even an
        object that was refused has its claims. So keys without a user of the owner stay. When the time budget is used
        up, the result says not done: call again. Retained keys stay, and nobody can log in to them.

        Raises:
            StillDeleting: a finalizer holds the Secret or the ConfigMap.
            BackendUnavailable: Redis or the API server cannot be reached.
        """
        is_over = time_is_up(self._cleanup_budget)
        live_uid, estate = await find_live_uid(self._kube, step), step.estate(self._kube.cluster)
        closed: list[RedisUser] = []
        left: list[str] = []
        if self._redis is not None:
            closed = await self._close_users(self._redis, step, live_uid)
            for held in await self._claim_store.held_by(estate):
                if held.owner.uid == live_uid or step.retains(held.claim.kind, held.claim.name):
                    continue
                what = self._keys_of(held.claim)
                if what is None:
                    continue
                if not any(_reached(user, held.claim) for user in closed):
                    if await _has_keys(self._redis, held.claim, is_over):
                        left.append(f"{what}: no user there says that they are the object's")
                elif not await self._empty(self._redis, held.claim, is_over):
                    return StepResult(is_done=False, waiting_for=f"{what} to be removed")
        await remove_owned(self._kube, estate, [SECRETS, CONFIG_MAPS], live_uid=live_uid, labels=_LABELS)
        if self._redis is not None:
            for user in closed:
                if not step.retains(ClaimKind.REDIS, user.name):
                    await self._redis.delete_user(user.name)
        return StepResult(left="; ".join(left))

    async def _keep_user(self, target: Target, addresses: dict[str, str], database: int | None) -> str | None:
        """Keep Secret and user; return why there is no user, None when there is one."""
        if self._settings.redis_isolation == "none":
            return "shared by all applications (REDIS_ISOLATION=none)"
        means = "prefixes" if database is None else "databases' numbers"
        if self._redis is None:
            return f"applications are kept apart by their {means} only: REDIS_ADMIN_URL is not set"
        try:
            user = await self._redis.user(target.names.redis_user)
            existing = await self._kube.get(SECRETS, target.names.redis_secret, target.names.namespace)
            ensure_adoptable(SECRETS, existing, target.owner)
            _ensure_ours(target, user, _password_in(existing))
            # Write the Secret before the user: a password that is stored nowhere would be useless.
            password = await self._secret_password(target, existing, addresses)
            rules = user_rules(target, password, self._settings.redis_commands, database=database)
            template = await self._redis.template(rules)
            if user is None or not rules.are_met_by(user, template):
                await self._redis.set_user(rules)
        except UsersMissing:
            return (
                f"applications are kept apart by their {means} only: the server has no ACL SETUSER, as ElastiCache,"
                " where users are not supported"
            )
        return None

    async def _message(self, target: Target, lack: str | None, database: int | None) -> str:
        parts = [f"keys begin with {target.names.redis_prefix!r}"] if self._settings.redis_isolation == "prefix" else []
        parts += [f"database {database} is the application's own"] if database is not None else []
        parts.append(lack or f"user {target.names.redis_user!r} reaches no others")
        if lack is None and self._redis is not None:
            default = await self._redis.user("default")
            if default is not None and default.is_on and default.needs_no_password:
                parts.append("WARNING: user 'default' of Redis needs no password, so that anybody reaches all keys")
        return "; ".join(parts)

    async def _secret_password(self, target: Target, existing: Json | None, addresses: dict[str, str]) -> str:
        """Return the password of the target's Secret, after creating or updating the Secret."""
        name, namespace = target.names.redis_secret, target.names.namespace
        if existing is not None and is_deleting(existing):
            raise StillDeleting(f"cannot use Secret {name!r} in namespace {namespace!r}: it is being deleted")
        password = _password_in(existing) or secrets.token_hex(PASSWORD_BYTES)
        wanted = build_redis_secret(target, secret_values(target, addresses, password))
        if existing is not None:
            if not holds(existing, wanted):
                await self._kube.apply_over(existing, SECRETS, wanted, target.owner, namespace)
        # Create, never overwrite: if two attempts race, one password is kept.
        elif await self._kube.create(SECRETS, wanted, namespace) is None:
            raise Conflict(f"cannot create Secret {name!r} in namespace {namespace!r}: it is there by now")
        return password

    async def _close_users(self, redis: RedisClient, step: CleanupStepInput, live_uid: str | None) -> list[RedisUser]:
        """Close the users that carry the owner's record, and return them; other users stay open."""
        try:
            users = await redis.users()
        except UsersMissing:
            return []
        estate = step.estate(self._kube.cluster)
        claimed = {held.claim.name: held.owner for held in await self._claim_store.held_by(estate, ClaimKind.REDIS)}
        # Read the Secrets only if a record is missing: copies that carry the owner's marks may be many.
        is_bare = any(user.record is None and user.name in claimed for user in users)
        passwords, closed = await self._passwords(estate) if is_bare else [], list[RedisUser]()
        for user in users:
            mark, record = recorded_mark(user.record), user.record
            if user.name in claimed and _has_a_password(user, passwords):
                mark, record = Mark.of(claimed[user.name]), channel_record(claimed[user.name])
            if mark is None or record is None or not estate.holds(mark) or mark.uid == live_uid:
                continue
            if user.is_on:
                await redis.lock_user(user, record)
            closed.append(user)
        return closed

    async def _passwords(self, estate: Estate) -> list[str]:
        """Return the passwords of the owner's Secrets."""
        found = []
        for namespace in await namespaces_of(self._kube, estate):
            for each in await list_owned(self._kube, SECRETS, estate, namespace, labels=_LABELS):
                # Read the Secrets one by one and keep only the passwords, because a Secret may have a megabyte.
                body = await self._kube.get(SECRETS, each["metadata"]["name"], namespace)
                if (password := _password_in(body)) is not None:
                    found.append(password)
        return found

    def _keys_of(self, claim: Claim) -> str | None:
        """Return a name for the keys that a claim stands for; None when it stands for none."""
        if claim.kind is ClaimKind.REDIS and self._settings.redis_isolation != "none":
            return f"the keys {redis_prefix(claim.name)}* of Redis"
        # Only if each application has a database: with prefixes, any application may have keys in any database.
        if claim.kind is ClaimKind.REDIS_DATABASE and self._settings.redis_isolation == "database":
            return f"the keys in database {claim.name} of Redis"
        return None

    async def _empty(self, redis: RedisClient, claim: Claim, is_over: Callable[[], bool]) -> bool:
        """Remove the keys that a claim stands for; return False when the time is up."""
        if claim.kind is ClaimKind.REDIS_DATABASE:
            return await self._remove_keys(redis, "", is_over, only=int(claim.name))
        return await self._remove_keys(redis, redis_prefix(claim.name), is_over)

    async def _remove_keys(
        self, redis: RedisClient, prefix: str, is_over: Callable[[], bool], *, only: int | None = None
    ) -> bool:
        """Remove every key below the prefix, in all databases or only in one; return False when the time is up."""
        place = f"{prefix}{only}"
        first, cursor = self._cursors.pop(place, (0, 0))
        for database in await redis.databases():
            if database < first or only not in (None, database):
                continue
            position = cursor if database == first else 0
            while True:
                position = await redis.unlink_page(database, prefix, position)
                if position == 0:
                    break
                if is_over():
                    self._cursors[place] = (database, position)
                    return False
        return True


def _ensure_ours(target: Target, user: RedisUser | None, password: str | None) -> None:
    if user is None:
        return
    if password is not None and _has_a_password(user, [password]):
        return
    ensure_own(f"user {user.name!r} of Redis", recorded_mark(user.record), target.owner)


async def _has_keys(redis: RedisClient, claim: Claim, is_over: Callable[[], bool]) -> bool:
    """Tell whether there may be keys that a claim stands for; also true when the time is up before the last page."""
    databases = await redis.databases()
    if claim.kind is ClaimKind.REDIS_DATABASE:
        return int(claim.name) in databases
    for database in databases:
        position, has_found = await redis.look_at_page(database, redis_prefix(claim.name), 0)
        while position != 0 and not has_found:
            if is_over():
                return True
            position, has_found = await redis.look_at_page(database, redis_prefix(claim.name), position)
        if has_found:
            return True
    return False


def _reached(user: RedisUser, claim: Claim) -> bool:
    """Tell whether a claim stands for the keys of this user, which may be closed."""
    if claim.kind is ClaimKind.REDIS_DATABASE:
        return int(claim.name) in user.databases
    return user.name == claim.name


def _has_a_password(user: RedisUser, passwords: Collection[str]) -> bool:
    """Tell whether a user lacks its record, as after `ACL SETUSER user allchannels`, but has a password of Plattr's."""
    return user.record is None and not {password_digest(each) for each in passwords}.isdisjoint(user.passwords)


def _password_in(secret: Json | None) -> str | None:
    """Return the Secret's password; None when there is none, or when Plattr did not make it."""
    if secret is None:
        return None
    password = b64decode(secret.get("data", {}).get("REDIS_PASSWORD", "")).decode(errors="replace")
    return password if re.fullmatch(rf"[0-9a-f]{{{2 * PASSWORD_BYTES}}}", password) else None
