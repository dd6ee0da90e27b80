from typing import Any

import pytest

from activities.storage import StorageActivities
from clients.resources import CONFIG_MAPS, Json
from clients.s3 import S3Client
from plattr.buckets import OWNER_UID_TAG
from plattr.errors import (
    BackendRefused,
    Conflict,
)
from plattr.features import ConditionType
from plattr.settings import Settings
from stack.platform import Platform
from tests.fix_s3 import PUBLIC, UPLOADS, Shops
from tests.s3_hooks import AccessBlocks, Hooks
from tests.s3_view import fetch_anonymously, has_bucket, look_at, preflight, public_policy, read_tags, write_tags


async def test_a_bucket_carries_its_owner_and_the_application_learns_its_name(
    storage: StorageActivities, shops: Shops, own_account: Any, s3_settings: Settings
) -> None:
    shop = await shops.apply("", {"name": "user-files", "maxFileSize": "10Mi"}, UPLOADS)

    result = await storage.reconcile_storage(shop.step)

    assert read_tags(own_account, shop.bucket("user-files")) == shop.tags
    config_map = await shops.kube.get(CONFIG_MAPS, f"{shop.name}-storage", shops.namespace)
    assert config_map is not None
    assert config_map["data"] == {
        "S3_ENDPOINT": s3_settings.aws_endpoint_url,
        "S3_REGION": "us-east-1",
        "S3_BUCKET_USER_FILES": shop.bucket("user-files"),
        "S3_MAX_FILE_SIZE_USER_FILES": "10485760",
        "S3_BUCKET_UPLOADS": shop.bucket("uploads"),
    }
    assert [(update.type, update.status, update.reason) for update in result.updates] == [
        (ConditionType.STORAGE, "True", "Provisioned")
    ]
    assert shop.bucket("user-files") in result.updates[0].message


async def test_anybody_reads_a_public_bucket_and_nobody_lists_it(
    storage: StorageActivities, shops: Shops, own_account: Any, platform: Platform
) -> None:
    shop = await shops.provision(storage, PUBLIC)
    own_account.put_object(Bucket=shop.bucket("assets"), Key="logo", Body=b"x")

    assert await fetch_anonymously(platform, f"{shop.bucket('assets')}/logo") == 200
    assert await fetch_anonymously(platform, shop.bucket("assets")) == 403


async def test_nobody_reads_a_private_bucket(
    storage: StorageActivities, shops: Shops, own_account: Any, platform: Platform
) -> None:
    shop = await shops.provision(storage, UPLOADS)
    own_account.put_object(Bucket=shop.bucket("uploads"), Key="letter", Body=b"x")

    assert await fetch_anonymously(platform, f"{shop.bucket('uploads')}/letter") == 403


async def test_a_public_bucket_turned_private_is_closed(
    storage: StorageActivities, shops: Shops, own_account: Any, platform: Platform
) -> None:
    shop = await shops.provision(storage, PUBLIC)
    own_account.put_object(Bucket=shop.bucket("assets"), Key="logo", Body=b"x")

    shop = await shops.apply(shop.name, PUBLIC | {"public": False})
    await storage.reconcile_storage(shop.step)

    assert await fetch_anonymously(platform, f"{shop.bucket('assets')}/logo") == 403


@pytest.mark.parametrize("bucket", [UPLOADS, PUBLIC], ids=["private", "public"])
async def test_a_policy_loosened_by_hand_is_put_back(
    storage: StorageActivities, shops: Shops, own_account: Any, platform: Platform, bucket: dict[str, Any]
) -> None:
    shop = await shops.provision(storage, bucket)
    name = shop.bucket(bucket["name"])
    before = look_at(own_account, name)
    own_account.put_bucket_policy(Bucket=name, Policy=public_policy(name, "s3:GetObject", "s3:ListBucket"))

    await storage.reconcile_storage(shop.step)

    assert look_at(own_account, name) == before
    assert await fetch_anonymously(platform, name) == 403


async def test_browsers_may_call_from_the_applications_own_origin_only(
    storage: StorageActivities, shops: Shops, platform: Platform
) -> None:
    shop = await shops.provision(storage, UPLOADS)

    own = f"https://{shop.name}.s3.test"
    assert await preflight(platform, shop.bucket("uploads"), own) == (200, own)
    assert (await preflight(platform, shop.bucket("uploads"), "https://evil.test"))[0] == 403


async def test_a_changed_domain_changes_the_origin(
    storage: StorageActivities, shops: Shops, platform: Platform
) -> None:
    shop = await shops.provision(storage, UPLOADS)

    shop = await shops.apply(shop.name, UPLOADS, domain=f"{shop.name}.shop.test")
    await storage.reconcile_storage(shop.step)

    new = f"https://{shop.name}.shop.test"
    assert await preflight(platform, shop.bucket("uploads"), new) == (200, new)
    assert (await preflight(platform, shop.bucket("uploads"), f"https://{shop.name}.s3.test"))[0] == 403


async def test_given_origins_replace_the_applications_own(
    storage: StorageActivities, shops: Shops, own_account: Any
) -> None:
    shop = await shops.apply("", UPLOADS, origins=("https://a.test", "https://b.test"))

    await storage.reconcile_storage(shop.step)

    (rule,) = look_at(own_account, shop.bucket("uploads"))["cors"]
    assert rule["AllowedOrigins"] == ["https://a.test", "https://b.test"]
    assert set(rule["AllowedMethods"]) == {"GET", "PUT", "POST", "DELETE", "HEAD"}
    assert rule["MaxAgeSeconds"] == 3600


async def test_the_second_run_writes_nothing(storage: StorageActivities, shops: Shops, hooks: Hooks) -> None:
    shop = await shops.provision(storage, UPLOADS, PUBLIC)
    before = await shops.kube.get(CONFIG_MAPS, f"{shop.name}-storage", shops.namespace)
    assert hooks.writes
    hooks.calls.clear()

    await storage.reconcile_storage(shop.step)

    assert hooks.writes == []
    assert await shops.kube.get(CONFIG_MAPS, f"{shop.name}-storage", shops.namespace) == before


async def test_a_bucket_that_left_the_spec_is_kept_and_named(
    storage: StorageActivities, shops: Shops, own_account: Any, hooks: Hooks
) -> None:
    shop = await shops.provision(storage, UPLOADS, PUBLIC)
    own_account.put_object(Bucket=shop.bucket("uploads"), Key="letter", Body=b"x")

    shop = await shops.apply(shop.name, PUBLIC)
    hooks.calls.clear()
    result = await storage.reconcile_storage(shop.step)

    assert hooks.writes == []
    assert own_account.get_object(Bucket=shop.bucket("uploads"), Key="letter")["Body"].read() == b"x"
    assert f"kept: {shop.bucket('uploads')}" in result.updates[0].message


async def test_tags_of_others_survive(storage: StorageActivities, shops: Shops, own_account: Any) -> None:
    shop = await shops.apply("", UPLOADS)
    own_account.create_bucket(Bucket=shop.bucket("uploads"))
    write_tags(own_account, shop.bucket("uploads"), shop.tags | {OWNER_UID_TAG: "of before", "cost": "team a"})

    await storage.reconcile_storage(shop.step)

    assert read_tags(own_account, shop.bucket("uploads")) == shop.tags | {"cost": "team a"}


async def test_twenty_buckets_come_and_go(storage: StorageActivities, shops: Shops, own_account: Any) -> None:
    buckets: list[Json] = [{"name": f"b{number}", "public": number % 2 == 0} for number in range(20)]

    shop = await shops.provision(storage, *buckets)
    made = {bucket["name"] for bucket in buckets if has_bucket(own_account, shop.bucket(bucket["name"]))}
    result = await storage.delete_storage(shop.cleanup())

    assert made == {bucket["name"] for bucket in buckets}
    assert result.is_done
    assert not any(has_bucket(own_account, shop.bucket(bucket["name"])) for bucket in buckets)


async def test_a_private_bucket_has_its_public_access_blocked(
    storage: StorageActivities, shops: Shops, s3: S3Client, hooks: Hooks
) -> None:
    blocks = AccessBlocks(s3)
    shop = await shops.provision(storage, UPLOADS)
    assert blocks.blocked == {shop.bucket("uploads")}
    hooks.calls.clear()

    await storage.reconcile_storage(shop.step)

    assert hooks.writes == []


async def test_the_block_is_lifted_before_the_policy_is_set(
    storage: StorageActivities, shops: Shops, s3: S3Client, own_account: Any
) -> None:
    blocks = AccessBlocks(s3)
    shop = await shops.provision(storage, UPLOADS)

    shop = await shops.apply(shop.name, UPLOADS | {"public": True})
    await storage.reconcile_storage(shop.step)

    assert blocks.blocked == set()
    assert look_at(own_account, shop.bucket("uploads"))["policy"] is not None


async def test_the_block_closes_before_the_policy_goes(
    storage: StorageActivities, shops: Shops, s3: S3Client, hooks: Hooks
) -> None:
    AccessBlocks(s3)
    shop = await shops.provision(storage, PUBLIC)
    shop = await shops.apply(shop.name, PUBLIC | {"public": False})
    hooks.calls.clear()

    await storage.reconcile_storage(shop.step)

    assert hooks.writes == ["PutPublicAccessBlock", "DeleteBucketPolicy"]


async def test_a_block_that_is_not_forgotten_yet_is_tried_again_soon(
    storage: StorageActivities, shops: Shops, s3: S3Client, hooks: Hooks
) -> None:
    blocks = AccessBlocks(s3)
    shop = await shops.provision(storage, UPLOADS)
    shop = await shops.apply(shop.name, UPLOADS | {"public": True})

    with hooks.answer(403, "AccessDenied", "PutBucketPolicy"):
        with pytest.raises(Conflict):
            await storage.reconcile_storage(shop.step)
        # The second time nothing was lifted just before: now it is a right that is missing.
        with pytest.raises(BackendRefused, match="account's own public access block"):
            await storage.reconcile_storage(shop.step)
    assert blocks.blocked == set()
