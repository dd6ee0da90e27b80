from typing import Any

import pytest

from activities.storage import StorageActivities
from clients import fence
from plattr.errors import (
    BackendUnavailable,
    Conflict,
    FencedOff,
    OwnedElsewhere,
)
from tests.fix_s3 import PUBLIC, UPLOADS, Shops
from tests.s3_hooks import Hooks
from tests.s3_view import has_bucket, look_at, read_tags


async def test_a_crash_after_any_write_leaves_what_the_next_run_completes(
    storage: StorageActivities, shops: Shops, own_account: Any, hooks: Hooks
) -> None:
    crashes = 0
    for number in range(1, 30):
        shop = await shops.apply("", PUBLIC)
        try:
            with hooks.crash_after_write(number):
                await storage.reconcile_storage(shop.step)
        except BackendUnavailable:
            crashes += 1
            await storage.reconcile_storage(shop.step)
        state = look_at(own_account, shop.bucket("assets"))
        assert state["tags"] == shop.tags
        assert state["policy"] is not None
        assert state["cors"][0]["AllowedOrigins"] == [f"https://{shop.name}.s3.test"]
        if crashes < number:
            break

    # Create, tag, policy, CORS: the loop ended because there was no write left to lose.
    assert crashes == number - 1 == 4


async def test_a_crash_after_any_write_of_a_cleanup_leaves_what_the_next_run_removes(
    storage: StorageActivities, shops: Shops, own_account: Any, hooks: Hooks
) -> None:
    crashes = 0
    for number in range(1, 30):
        shop = await shops.provision(storage, PUBLIC)
        bucket = shop.bucket("assets")
        own_account.put_object(Bucket=bucket, Key="logo", Body=b"x")
        own_account.create_multipart_upload(Bucket=bucket, Key="open")
        try:
            with hooks.crash_after_write(number):
                await storage.delete_storage(shop.cleanup())
        except BackendUnavailable:
            crashes += 1
            assert (await storage.delete_storage(shop.cleanup())).is_done
        assert not has_bucket(own_account, bucket)
        if crashes < number:
            break

    # The upload, the object, the bucket.
    assert crashes == number - 1 == 3


async def test_a_bucket_created_by_a_crashed_attempt_is_removed_by_a_cleanup(
    storage: StorageActivities, shops: Shops, own_account: Any, hooks: Hooks
) -> None:
    shop = await shops.apply("", UPLOADS)
    with hooks.crash_after_write(1), pytest.raises(BackendUnavailable):
        await storage.reconcile_storage(shop.step)
    assert has_bucket(own_account, shop.bucket("uploads"))

    await storage.delete_storage(shop.cleanup())

    assert not has_bucket(own_account, shop.bucket("uploads"))


async def test_an_operation_in_progress_is_a_conflict_until_it_ends(
    storage: StorageActivities, shops: Shops, own_account: Any, hooks: Hooks
) -> None:
    shop = await shops.apply("", UPLOADS)

    with hooks.answer(409, "OperationAborted", "CreateBucket", times=20):
        for _ in range(20):
            with pytest.raises(Conflict):
                await storage.reconcile_storage(shop.step)
        await storage.reconcile_storage(shop.step)

    assert read_tags(own_account, shop.bucket("uploads")) == shop.tags


async def test_one_refused_bucket_does_not_hold_up_the_others_and_is_what_is_reported(
    storage: StorageActivities, shops: Shops, own_account: Any, other_account: Any, hooks: Hooks
) -> None:
    shop = await shops.apply("", {"name": "a"}, {"name": "b"}, {"name": "c"})
    other_account.create_bucket(Bucket=shop.bucket("b"))

    with hooks.answer(503, "SlowDown", "CreateBucket", times=1), pytest.raises(OwnedElsewhere):
        await storage.reconcile_storage(shop.step)

    made = {name for name in ("a", "c") if has_bucket(own_account, shop.bucket(name))}
    assert len(made) == 1


async def test_an_attempt_past_its_lease_writes_nothing(
    storage: StorageActivities, shops: Shops, own_account: Any, hooks: Hooks
) -> None:
    shop = await shops.apply("", UPLOADS)
    lease = fence.Lease(0)
    token = fence.lease.set(lease)

    try:
        with pytest.raises(FencedOff):
            await storage.reconcile_storage(shop.step)
    finally:
        fence.lease.reset(token)

    assert not has_bucket(own_account, shop.bucket("uploads"))
