"""The storage step: create buckets, keep them as the spec asks, and remove them with all their content."""

import asyncio
import re
import secrets
from base64 import b64decode
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import activity

from activities.loading import TargetLoader
from activities.ownership import ensure_adoptable, find_live_uid, holds, remove_owned
from activities.polling import time_is_up
from clients.claim_store import ClaimStore
from clients.kube import KubeClient
from clients.resources import CONFIG_MAPS, SECRETS, Json
from clients.s3 import Entries, S3Client, Standing
from clients.s3_errors import AccessDenied, FeatureMissing
from plattr.buckets import (
    OWNERSHIP,
    bucket_policy,
    cors_rules,
    is_same_cors,
    is_same_policy,
    owner_tags,
    storage_values,
    tagged_mark,
)
from plattr.claims import Claim
from plattr.errors import Conflict, PlattrError, Refusal, StillDeleting, Transient
from plattr.features import ClaimKind, ConditionType
from plattr.manifests.config_map import build_config_map
from plattr.manifests.metadata import FEATURE_LABEL
from plattr.manifests.secret import SECRET_KEY, build_storage_keys
from plattr.marks import Estate, ensure_own, estate_of, owned_elsewhere
from plattr.naming import BucketName, possible_bucket_prefixes, storage_account
from plattr.objects import ObjectReference, Owner
from plattr.retries import CLEANUP_BUDGET
from plattr.settings import Settings
from plattr.status import ConditionUpdate
from plattr.steps import CleanupStepInput, StepInput, StepResult
from plattr.target import Target

# A spec may hold 50 buckets, and each takes some ten calls. Four at once fit into the activity's 60 s and leave
# threads for other applications: the client has 16.
BUCKETS_AT_ONCE = 4
# As long as AWS's own secret keys, which have 40 characters.
SECRET_KEY_BYTES = 20


class StorageActivities:
    """Reconcile and delete an owner's buckets."""

    def __init__(
        self,
        loader: TargetLoader,
        kube: KubeClient,
        s3: S3Client,
        claim_store: ClaimStore,
        settings: Settings,
        *,
        cleanup_budget: timedelta = CLEANUP_BUDGET,
    ) -> None:
        self._loader = loader
        self._kube = kube
        self._s3 = s3
        self._claim_store = claim_store
        self._settings = settings
        self._cleanup_budget = cleanup_budget

    @activity.defn
    async def reconcile_storage(self, step: StepInput) -> StepResult:
        """Bring every bucket to its spec, and write the bucket names into the application's ConfigMap.

        Each bucket is read first, and written only where it differs: owner's tags, public access, ownership, CORS.
        A second run writes nothing. A bucket that is no longer in the spec stays as it is.

        Raises:
            OwnedElsewhere: a bucket of that name belongs to another account or another owner, or has no owner.
        """
        target = await self._loader.load(step)
        claimed = await self._claimed(estate_of(target.owner))
        # Create the account before the buckets, because a bucket policy can only name an account that exists.
        account = await self._keep_account(target)
        limit = asyncio.Semaphore(BUCKETS_AT_ONCE)

        async def reconcile(name: BucketName, *, is_public: bool) -> bool:
            async with limit:
                return await self._reconcile(
                    target, name, account, is_public=is_public, is_made=claimed.get(name, False)
                )

        wanted = {target.names.bucket(bucket.name): bucket.public for bucket in target.spec.storage.buckets}
        # Wait for all buckets, even after a failure. Otherwise the next attempt could meet writes of this attempt.
        outcomes = await asyncio.gather(
            *(reconcile(name, is_public=is_public) for name, is_public in wanted.items()), return_exceptions=True
        )
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if errors:
            raise min(errors, key=_severity)
        config_map = build_config_map(target, "storage", storage_values(target, self._settings))
        await self._kube.apply_owned(CONFIG_MAPS, config_map, target.owner, target.names.namespace)
        message = _message(target, sorted(claimed.keys() - wanted.keys()), has_cors=all(outcomes))
        update = ConditionUpdate(type=ConditionType.STORAGE, status="True", reason="Provisioned", message=message)
        return StepResult(updates=(update,))

    @activity.defn
    async def delete_storage(self, step: CleanupStepInput) -> StepResult:
        """Remove account, Secret, ConfigMap and the owner's buckets with every version, delete marker and open upload.

        The candidates are the buckets that the owner has claimed, and those whose names could be the owner's. A bucket
        is removed only if its tags name the owner. A bucket of another owner stays, and so does one without an owner
        that is not empty. When the time budget is used up, the result says not done: call again to continue.

        Retained buckets keep their content and tags, but are closed to the public: deleted data is no longer served.
        When the same object is created again, it opens the buckets again.

        Raises:
            StillDeleting: somebody keeps writing to a bucket, S3 still shows a deleted bucket, or a finalizer
                holds the ConfigMap.
        """
        is_over = time_is_up(self._cleanup_budget)
        live_uid = await find_live_uid(self._kube, step)
        labels = {FEATURE_LABEL: "storage"}
        estate = step.estate(self._kube.cluster)
        if live_uid is None:
            # Remove the accounts first, so that nobody writes to a bucket that is being emptied or is retained.
            await self._remove_accounts(estate)
        await remove_owned(self._kube, estate, [SECRETS, CONFIG_MAPS], live_uid=live_uid, labels=labels)
        claimed = await self._claimed(estate)
        for bucket in sorted(claimed.keys() | await self._named_like(step.reference)):
            if not await self._is_ours(bucket, estate, live_uid, is_made=claimed.get(bucket, False)):
                continue
            if step.retains(ClaimKind.BUCKET, bucket):
                await self._close(bucket)
            elif not await self._remove(bucket, is_over):
                return StepResult(is_done=False, waiting_for=f"bucket {bucket!r} to be emptied")
        return StepResult()

    async def _keep_account(self, target: Target) -> str | None:
        """Return the access key id of the application's account, whose secret key is in the Secret.

        None: S3 has no accounts for applications.
        """
        if self._s3.accounts is None:
            return None
        owner = target.owner
        key = storage_account(owner.reference, owner.cluster, owner.namespace_uid)
        secret = await self._secret_key(target, key)
        if not await self._s3.accounts.accepts(key, secret):
            await self._s3.accounts.put(key, secret)
        return key

    async def _remove_accounts(self, estate: Estate) -> None:
        accounts, uids = self._s3.accounts, {estate.namespace_uid}
        if accounts is None:
            return
        if estate.namespace_uid is None:
            # When the object is gone together with its namespace, the claims still know the namespace's uid.
            uids = {held.owner.namespace_uid for held in await self._claim_store.held_by(estate)}
        for uid in sorted(uid for uid in uids if uid is not None):
            await accounts.remove(storage_account(estate.reference, estate.cluster, uid))

    async def _secret_key(self, target: Target, key: str) -> str:
        """Return the secret key in the target's Secret, after creating or updating the Secret."""
        name, namespace = target.names.storage_keys, target.names.namespace
        existing = await self._kube.get(SECRETS, name, namespace)
        if existing is None:
            secret = secrets.token_hex(SECRET_KEY_BYTES)
            # Create, never overwrite: if two attempts race, one key is kept and both use that key.
            if await self._kube.create(SECRETS, build_storage_keys(target, key, secret), namespace) is not None:
                return secret
            raise Conflict(f"cannot create Secret {name!r} in namespace {namespace!r}: it appears meanwhile")
        ensure_adoptable(SECRETS, existing, target.owner)
        # The Secret does not decide which account is used. Whoever can write the Secret must not reach another account.
        secret = _secret_key_in(existing) or secrets.token_hex(SECRET_KEY_BYTES)
        wanted = build_storage_keys(target, key, secret)
        if not holds(existing, wanted):
            await self._kube.apply_over(existing, SECRETS, wanted, target.owner, namespace)
        return secret

    async def _reconcile(
        self, target: Target, bucket: BucketName, account: str | None, *, is_public: bool, is_made: bool
    ) -> bool:
        """Reconcile one bucket; return False when the server has no CORS."""
        is_new = await self._own(target.owner, bucket, is_made=is_made)
        # Set public access first, so that no later failure leaves a bucket open that should be closed.
        partition = await self._s3.partition()
        policy = bucket_policy(bucket, is_public=is_public, account=account, partition=partition)
        if is_public and policy is not None:
            await self._open(bucket, policy, is_new=is_new)
        else:
            await self._close(bucket, policy, is_new=is_new)
        with suppress(FeatureMissing):
            if await self._s3.ownership(bucket) != OWNERSHIP:
                await self._s3.put_ownership(bucket, OWNERSHIP)
        rules = cors_rules(target)
        try:
            if is_new or not is_same_cors(await self._s3.cors(bucket), rules):
                await self._s3.put_cors(bucket, rules)
        except FeatureMissing:
            return False
        return True

    async def _own(self, owner: Owner, bucket: str, *, is_made: bool) -> bool:
        """Create the bucket if it is missing, write the owner's tags, and return whether the bucket is new."""
        standing, is_new = await self._s3.locate(bucket), False
        if standing is Standing.ABSENT:
            await self._claim_store.note_made(estate_of(owner), Claim(kind=ClaimKind.BUCKET, name=bucket))
            is_made = is_new = await self._s3.create(bucket)
            if not is_made:
                standing = Standing.FOREIGN
        if standing is Standing.FOREIGN:
            raise owned_elsewhere(f"bucket {bucket!r}", owner, "another account")
        tags = await self._s3.tags(bucket)
        mark = tagged_mark(tags)
        if mark is None:
            # The bucket is new, or an attempt that died created it before it wrote the tags. S3 cannot create and tag
            # in one call, so the claim is the proof: when it was noted, no such bucket existed, and nobody else can
            # hold the claim. Even so, a bucket that carries a tag or holds an object was made by others.
            if tags or not is_made or not (is_new or await self._s3.is_empty(bucket)):
                ensure_own(f"bucket {bucket!r}", mark, owner)
        else:
            ensure_own(f"bucket {bucket!r}", mark, owner)
        # PutBucketTagging replaces all tags. Keep the tags that others added, such as a cost tag.
        wanted = tags | owner_tags(owner)
        if tags != wanted:
            await self._s3.put_tags(bucket, wanted)
        return is_new

    async def _open(self, bucket: BucketName, policy: dict[str, Any], *, is_new: bool) -> None:
        """Let everybody read; lift the public access block first, because it refuses such a policy."""
        is_lifted = False
        with suppress(FeatureMissing):
            if await self._s3.blocks_public_access(bucket) is not None:
                await self._s3.allow_public_access(bucket)
                is_lifted = True
        if not is_new and is_same_policy(await self._s3.policy(bucket), policy):
            return
        try:
            await self._s3.put_policy(bucket, policy)
        except AccessDenied as error:
            if is_lifted:
                # S3 enforces a lifted block for some moments longer.
                raise Conflict(f"{error}, unless its public access block is still in force") from None
            raise AccessDenied(f"{error}, or lift the account's own public access block") from None

    async def _close(self, bucket: str, policy: dict[str, Any] | None = None, *, is_new: bool = False) -> None:
        """Let in only the account and whom the policy names; the block closes the bucket whatever the policy says."""
        with suppress(FeatureMissing):
            if not await self._s3.blocks_public_access(bucket):
                await self._s3.block_public_access(bucket)
        with suppress(FeatureMissing):
            found = None if is_new else await self._s3.policy(bucket)
            if policy is not None and not is_same_policy(found, policy):
                await self._s3.put_policy(bucket, policy)
            elif policy is None and found is not None:
                await self._s3.delete_policy(bucket)

    async def _is_ours(self, bucket: str, estate: Estate, live_uid: str | None, *, is_made: bool) -> bool:
        """Tell whether a cleanup has to remove the bucket."""
        if await self._s3.locate(bucket) is not Standing.OURS:
            return False
        tags = await self._s3.tags(bucket)
        mark = tagged_mark(tags)
        if mark is not None:
            return estate.holds(mark) and mark.uid != live_uid
        # A bucket without tags was created by an attempt that died, or by others; see _own.
        return not tags and is_made and live_uid is None and await self._s3.is_empty(bucket)

    async def _remove(self, bucket: str, is_over: Callable[[], bool]) -> bool:
        """Empty and delete the bucket; return False when the time is up."""
        # Each pass reads what is left, so a call after a crash needs no memory of earlier calls.
        # Uploads that stay do not matter, because S3 removes them with the bucket.
        if await self._empty(bucket, self._s3.abort_uploads, is_over) is None:
            return False
        left = await self._empty(bucket, self._s3.delete_page, is_over)
        if left is None:
            return False
        if left:
            raise StillDeleting(_unfit_keys(bucket, len(left)))
        await self._s3.delete_bucket(bucket)
        if await self._s3.locate(bucket) is Standing.OURS:
            # Do not return "not done", which is called again at once: S3 may take seconds to forget a bucket.
            raise StillDeleting(f"cannot confirm that bucket {bucket!r} is gone: S3 still shows it")
        return True

    async def _empty(
        self, bucket: str, take_page: Callable[[str], Awaitable[Entries]], is_over: Callable[[], bool]
    ) -> Entries | None:
        """Delete page after page; return what S3 still shows after its deletion, or None when the time is up."""
        last = Entries()
        while shown := await take_page(bucket):
            if shown <= last:
                return shown
            if is_over():
                return None
            last = shown
        return Entries()

    async def _claimed(self, estate: Estate) -> dict[str, bool]:
        """Return the buckets that the owner has claimed, and for each whether the owner set out to create it."""
        return {held.claim.name: held.is_made for held in await self._claim_store.held_by(estate, ClaimKind.BUCKET)}

    async def _named_like(self, reference: ObjectReference) -> frozenset[str]:
        """Return the account's buckets whose names could be the owner's; only the tags prove it."""
        lists = [await self._s3.list_buckets(prefix) for prefix in possible_bucket_prefixes(reference)]
        return frozenset(name for names in lists for name in names)


def _unfit_keys(bucket: str, count: int) -> str:
    # Do not show the keys, because they are a tenant's text.
    return (
        f"cannot empty bucket {bucket!r}: S3 says that it deleted {count} object versions and shows them still, as a"
        " server does that cannot show control characters in keys; delete them in the server's own storage"
    )


def _secret_key_in(secret: Json) -> str | None:
    """Return the Secret's key; None when somebody removed it, or wrote a key that could be guessed."""
    text = b64decode(secret.get("data", {}).get(SECRET_KEY, "")).decode(errors="replace")
    return text if re.fullmatch(r"[A-Za-z0-9/+=]{32,128}", text) else None


def _severity(error: BaseException) -> int:
    """Order errors so that the most helpful error comes first."""
    match error:
        case Refusal():
            return 0
        case Transient():
            return 2
        case PlattrError():
            return 1
        case _:
            return -1


def _message(target: Target, kept: Collection[str], *, has_cors: bool) -> str:
    names = [target.names.bucket(bucket.name) for bucket in target.spec.storage.buckets]
    parts = [f"buckets: {', '.join(names)}" if names else "no buckets asked for"]
    if kept:
        parts.append(f"kept: {', '.join(kept)}, not asked for any more")
    if not has_cors:
        parts.append("the S3 server has no CORS: browsers cannot use the buckets from other origins")
    return "; ".join(parts)
