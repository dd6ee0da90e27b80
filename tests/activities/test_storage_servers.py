from typing import Any

import pytest

from activities.storage import StorageActivities
from plattr.errors import (
    BackendRefused,
)
from tests.fix_s3 import PUBLIC, UPLOADS, Shops
from tests.s3_hooks import Hooks
from tests.s3_view import has_bucket


async def test_a_server_without_cors_is_a_message_and_no_failure(
    storage: StorageActivities, shops: Shops, hooks: Hooks
) -> None:
    shop = await shops.apply("", UPLOADS)

    with hooks.answer(501, "NotImplemented", "PutBucketCors"):
        result = await storage.reconcile_storage(shop.step)

    assert result.updates[0].status == "True"
    assert "no CORS" in result.updates[0].message


async def test_a_server_that_takes_other_subresources_for_the_bucket_is_no_failure(
    storage: StorageActivities, shops: Shops, hooks: Hooks
) -> None:
    shop = await shops.apply("", PUBLIC, UPLOADS)
    operations = [
        f"{verb}{what}" for verb in ("Get", "Put") for what in ("PublicAccessBlock", "BucketOwnershipControls")
    ]

    with hooks.answer(400, "MalformedXML", *operations, "DeletePublicAccessBlock"):
        result = await storage.reconcile_storage(shop.step)

    assert result.updates[0].status == "True"


async def test_a_server_without_tags_is_refused_since_nothing_could_say_whose_a_bucket_is(
    storage: StorageActivities, shops: Shops, hooks: Hooks
) -> None:
    shop = await shops.apply("", UPLOADS)

    with hooks.answer(501, "NotImplemented", "GetBucketTagging"), pytest.raises(BackendRefused):
        await storage.reconcile_storage(shop.step)


@pytest.mark.parametrize("code", ["MissingContentMD5", "NotImplemented", "MalformedXML"])
async def test_where_no_batch_is_taken_objects_are_deleted_one_by_one(
    storage: StorageActivities, shops: Shops, own_account: Any, hooks: Hooks, code: str
) -> None:
    shop = await shops.provision(storage, UPLOADS)
    for number in range(20):
        own_account.put_object(Bucket=shop.bucket("uploads"), Key=f"k{number}", Body=b"x")

    with hooks.answer(501 if code == "NotImplemented" else 400, code, "DeleteObjects"):
        result = await storage.delete_storage(shop.cleanup())

    assert result.is_done
    assert not has_bucket(own_account, shop.bucket("uploads"))
    assert hooks.calls.count("DeleteObject") == 20
