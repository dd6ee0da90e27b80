import asyncio
from datetime import timedelta
from typing import Any

import pytest

from activities.storage import StorageActivities
from clients.resources import CONFIG_MAPS
from clients.s3 import S3Client
from plattr.claims import Claim
from plattr.errors import (
    BackendRefused,
    StillDeleting,
)
from plattr.features import ClaimKind
from stack.platform import Platform
from tests.fix_s3 import PUBLIC, UPLOADS, MakeStorage, Shops
from tests.inputs import estate
from tests.s3_hooks import Hooks
from tests.s3_view import (
    fetch_anonymously,
    fill,
    has_bucket,
    read_tags,
)


async def test_every_version_marker_and_upload_goes(storage: StorageActivities, shops: Shops, own_account: Any) -> None:
    shop = await shops.provision(storage, UPLOADS, PUBLIC)
    await asyncio.to_thread(fill, own_account, shop.bucket("uploads"))

    result = await storage.delete_storage(shop.cleanup())

    assert result.is_done
    assert not has_bucket(own_account, shop.bucket("uploads"))
    assert not has_bucket(own_account, shop.bucket("assets"))
    assert await shops.kube.get(CONFIG_MAPS, f"{shop.name}-storage", shops.namespace) is None


async def test_a_used_up_budget_says_so_and_the_next_call_goes_on(
    make_storage: MakeStorage, shops: Shops, own_account: Any
) -> None:
    shop = await shops.provision(make_storage(), UPLOADS)
    await asyncio.to_thread(fill, own_account, shop.bucket("uploads"))
    hurried = make_storage(budget=timedelta(0))

    first = await hurried.delete_storage(shop.cleanup())
    calls = 1
    while not (await hurried.delete_storage(shop.cleanup())).is_done:
        calls += 1

    assert not first.is_done
    assert shop.bucket("uploads") in first.waiting_for
    assert calls <= 4
    assert not has_bucket(own_account, shop.bucket("uploads"))


async def test_deleting_what_is_gone_is_success(storage: StorageActivities, shops: Shops, hooks: Hooks) -> None:
    shop = await shops.provision(storage, UPLOADS)
    await storage.delete_storage(shop.cleanup())
    hooks.calls.clear()

    result = await storage.delete_storage(shop.cleanup())

    assert result.is_done
    assert hooks.writes == []


async def test_buckets_are_found_without_any_claim(storage: StorageActivities, shops: Shops, own_account: Any) -> None:
    shop = await shops.provision(storage, UPLOADS)
    held = await shops.claim_store.held_by(estate(shop.reference))
    await shops.claim_store.release(estate(shop.reference), [claim.claim for claim in held])

    await storage.delete_storage(shop.cleanup())

    assert not has_bucket(own_account, shop.bucket("uploads"))


async def test_buckets_that_left_the_spec_go_too(storage: StorageActivities, shops: Shops, own_account: Any) -> None:
    shop = await shops.provision(storage, UPLOADS, PUBLIC)
    shop = await shops.apply(shop.name)

    await storage.delete_storage(shop.cleanup())

    assert not has_bucket(own_account, shop.bucket("uploads"))
    assert not has_bucket(own_account, shop.bucket("assets"))


async def test_retained_data_stays_and_is_no_longer_served(
    storage: StorageActivities, shops: Shops, own_account: Any, platform: Platform
) -> None:
    shop = await shops.provision(storage, PUBLIC)
    own_account.put_object(Bucket=shop.bucket("assets"), Key="logo", Body=b"x")

    result = await storage.delete_storage(shop.cleanup(retain=True))

    assert result.is_done
    assert own_account.get_object(Bucket=shop.bucket("assets"), Key="logo")["Body"].read() == b"x"
    assert read_tags(own_account, shop.bucket("assets")) == shop.tags
    assert await fetch_anonymously(platform, f"{shop.bucket('assets')}/logo") == 403
    assert await shops.kube.get(CONFIG_MAPS, f"{shop.name}-storage", shops.namespace) is None


async def test_a_bucket_that_the_predecessor_retained_outlives_an_object_that_did_not_adopt_it(
    storage: StorageActivities, shops: Shops, own_account: Any, platform: Platform
) -> None:
    shop = await shops.provision(storage, PUBLIC)
    own_account.put_object(Bucket=shop.bucket("assets"), Key="logo", Body=b"x")
    await shops.delete(shop)
    other = await shops.apply(shop.name, UPLOADS)
    await storage.reconcile_storage(other.step)

    await storage.delete_storage(other.cleanup(Claim(kind=ClaimKind.BUCKET, name=shop.bucket("assets"))))

    assert not has_bucket(own_account, shop.bucket("uploads"))
    assert own_account.get_object(Bucket=shop.bucket("assets"), Key="logo")["Body"].read() == b"x"
    # The predecessor may have been removed by force: then nobody has closed it yet.
    assert await fetch_anonymously(platform, f"{shop.bucket('assets')}/logo") == 403


async def test_objects_that_s3_keeps_are_an_error(
    storage: StorageActivities, shops: Shops, own_account: Any, hooks: Hooks
) -> None:
    shop = await shops.provision(storage, UPLOADS)
    own_account.put_object(Bucket=shop.bucket("uploads"), Key="locked", Body=b"x")
    kept = "<DeleteResult><Error><Key>locked</Key><Code>AccessDenied</Code></Error></DeleteResult>"

    with hooks.answer(200, "", "DeleteObjects", body=kept), pytest.raises(BackendRefused, match="retention"):
        await storage.delete_storage(shop.cleanup())

    assert has_bucket(own_account, shop.bucket("uploads"))


async def test_a_bucket_that_somebody_still_writes_to_is_tried_again(
    storage: StorageActivities, shops: Shops, own_account: Any, hooks: Hooks
) -> None:
    shop = await shops.provision(storage, UPLOADS)
    own_account.put_object(Bucket=shop.bucket("uploads"), Key="late", Body=b"x")
    nothing = "<ListVersionsResult></ListVersionsResult>"

    with hooks.answer(200, "", "ListObjectVersions", body=nothing), pytest.raises(StillDeleting):
        await storage.delete_storage(shop.cleanup())


async def test_a_bucket_that_s3_still_shows_is_not_reported_as_gone(
    storage: StorageActivities, shops: Shops, hooks: Hooks
) -> None:
    shop = await shops.provision(storage, UPLOADS)

    with hooks.answer(200, "", "HeadBucket"), pytest.raises(StillDeleting):
        await storage.delete_storage(shop.cleanup())

    assert (await storage.delete_storage(shop.cleanup())).is_done


@pytest.mark.attack
@pytest.mark.parametrize("key", ["weird\n\x01key", "\x1b[31m"])
async def test_a_key_that_the_server_cannot_show_holds_the_deletion_with_a_cause_and_no_loop(
    storage: StorageActivities, shops: Shops, own_account: Any, hooks: Hooks, key: str
) -> None:
    shop = await shops.provision(storage, UPLOADS)
    bucket = shop.bucket("uploads")
    own_account.put_object(Bucket=bucket, Key=key, Body=b"x")
    own_account.put_object(Bucket=bucket, Key="plain", Body=b"x")
    hooks.calls.clear()

    with pytest.raises(StillDeleting, match=f"bucket '{bucket}': S3 says that it deleted 1 object") as caught:
        await storage.delete_storage(shop.cleanup())

    assert hooks.calls.count("ListObjectVersions") == 2
    assert not any(part in str(caught.value) for part in ("weird", "key\n", "\x1b", "\N{REPLACEMENT CHARACTER}"))
    own_account.delete_object(Bucket=bucket, Key=key, VersionId="null")
    assert (await storage.delete_storage(shop.cleanup())).is_done
    assert not has_bucket(own_account, bucket)


@pytest.mark.attack
async def test_an_upload_whose_key_the_server_cannot_show_goes_with_the_bucket(
    storage: StorageActivities, shops: Shops, own_account: Any, hooks: Hooks
) -> None:
    shop = await shops.provision(storage, UPLOADS)
    own_account.create_multipart_upload(Bucket=shop.bucket("uploads"), Key="weird\n\x01key")
    hooks.calls.clear()

    result = await storage.delete_storage(shop.cleanup())

    assert result.is_done
    assert hooks.calls.count("ListMultipartUploads") == 2
    assert not has_bucket(own_account, shop.bucket("uploads"))


async def test_the_keys_of_uploads_are_asked_for_encoded_and_decoded(s3: S3Client, hooks: Hooks) -> None:
    # As AWS answers; the local server knows no encoding.
    upload = "<Upload><Key>a+b%01%2Bc</Key><UploadId>u1</UploadId></Upload>"
    page = f"<ListMultipartUploadsResult><EncodingType>url</EncodingType>{upload}</ListMultipartUploadsResult>"

    with hooks.answer(200, "", "ListMultipartUploads", body=page), hooks.answer(204, "", "AbortMultipartUpload"):
        shown = await s3.abort_uploads("shop")

    assert shown == {("a b\x01+c", "u1")}
    sent = dict(hooks.requests)
    assert sent["ListMultipartUploads"]["query_string"]["encoding-type"] == "url"
    assert sent["AbortMultipartUpload"]["url_path"].endswith("/a%20b%01%2Bc")
