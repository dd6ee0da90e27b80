import contextlib
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from activities.storage import StorageActivities
from clients.resources import CONFIG_MAPS
from clients.s3 import S3Client, Standing
from plattr.buckets import OWNER_TAG
from plattr.errors import (
    BackendRefused,
    OwnedElsewhere,
)
from plattr.settings import Settings
from tests.fix_s3 import UPLOADS, MakeStorage, Shops
from tests.s3_hooks import Hooks
from tests.s3_view import has_bucket, read_tags, write_tags


async def test_another_accounts_bucket_is_refused_and_untouched(
    storage: StorageActivities, shops: Shops, other_account: Any, hooks: Hooks
) -> None:
    shop = await shops.apply("", UPLOADS)
    other_account.create_bucket(Bucket=shop.bucket("uploads"))
    other_account.put_object(Bucket=shop.bucket("uploads"), Key="theirs", Body=b"x")

    with pytest.raises(OwnedElsewhere):
        await storage.reconcile_storage(shop.step)
    result = await storage.delete_storage(shop.cleanup())

    assert hooks.writes == []
    assert result.is_done
    assert other_account.get_object(Bucket=shop.bucket("uploads"), Key="theirs")["Body"].read() == b"x"


async def test_another_accounts_bucket_is_not_ours_although_its_tags_say_so(
    storage: StorageActivities, shops: Shops, other_account: Any, hooks: Hooks
) -> None:
    shop = await shops.apply("", UPLOADS)
    other_account.create_bucket(Bucket=shop.bucket("uploads"))
    write_tags(other_account, shop.bucket("uploads"), shop.tags)

    with pytest.raises(OwnedElsewhere):
        await storage.reconcile_storage(shop.step)
    await storage.delete_storage(shop.cleanup())

    assert hooks.writes == []
    assert has_bucket(other_account, shop.bucket("uploads"))


async def test_a_bucket_that_does_not_even_open_is_another_accounts(
    make_storage: MakeStorage,
    shops: Shops,
    s3_settings: Settings,
    s3_session: Callable[[str, str], boto3.Session],
    plain_account: tuple[str, str],
    other_account: Any,
) -> None:
    shop = await shops.apply("", UPLOADS)
    other_account.create_bucket(Bucket=shop.bucket("uploads"))

    with contextlib.closing(S3Client(s3_settings, session=s3_session(*plain_account))) as client:
        standing = await client.locate(shop.bucket("uploads"))
        with pytest.raises(OwnedElsewhere):
            await make_storage(client).reconcile_storage(shop.step)

    assert standing is Standing.FOREIGN


async def test_a_name_that_another_account_takes_meanwhile_is_refused(
    storage: StorageActivities, shops: Shops, other_account: Any, hooks: Hooks
) -> None:
    shop = await shops.apply("", UPLOADS)
    other_account.create_bucket(Bucket=shop.bucket("uploads"))

    # The look comes a moment before the other account's bucket.
    with hooks.answer(404, "404", "HeadBucket"), pytest.raises(OwnedElsewhere):
        await storage.reconcile_storage(shop.step)


async def test_our_own_bucket_that_may_not_be_looked_at_is_a_missing_right(
    storage: StorageActivities, shops: Shops, hooks: Hooks
) -> None:
    shop = await shops.provision(storage, UPLOADS)

    with hooks.answer(403, "403", "HeadBucket"), pytest.raises(BackendRefused, match="s3:ListBucket"):
        await storage.reconcile_storage(shop.step)
    with hooks.answer(403, "403", "HeadBucket"), pytest.raises(BackendRefused, match="s3:ListBucket"):
        await storage.delete_storage(shop.cleanup())


@pytest.mark.parametrize(
    ("tags", "has_object"),
    [({}, False), ({}, True), ({"cost": "team a"}, False), ({OWNER_TAG: "other/Application/shop"}, False)],
    ids=["untagged and empty", "untagged and filled", "tagged by others and empty", "another owner's"],
)
async def test_a_bucket_of_our_account_that_is_not_the_owners_is_left_alone(
    storage: StorageActivities,
    shops: Shops,
    own_account: Any,
    hooks: Hooks,
    tags: dict[str, str],
    has_object: bool,
) -> None:
    shop = await shops.apply("", UPLOADS)
    bucket = shop.bucket("uploads")
    own_account.create_bucket(Bucket=bucket)
    if tags:
        write_tags(own_account, bucket, tags)
    if has_object:
        own_account.put_object(Bucket=bucket, Key="theirs", Body=b"x")

    with pytest.raises(OwnedElsewhere):
        await storage.reconcile_storage(shop.step)
    result = await storage.delete_storage(shop.cleanup())

    assert hooks.writes == []
    assert result.is_done
    assert has_bucket(own_account, bucket)


async def test_an_untagged_empty_bucket_that_nobody_claimed_is_not_deleted(
    storage: StorageActivities, shops: Shops, own_account: Any
) -> None:
    shop = await shops.provision(storage, UPLOADS)
    own_account.create_bucket(Bucket=shop.bucket("made-by-hand"))

    await storage.delete_storage(shop.cleanup())

    assert has_bucket(own_account, shop.bucket("made-by-hand"))


async def test_an_application_whose_name_begins_the_same_keeps_its_buckets(
    storage: StorageActivities, shops: Shops, own_account: Any
) -> None:
    shop = await shops.provision(storage, UPLOADS)
    longer = await shops.apply(f"{shop.name}-b", UPLOADS)
    await storage.reconcile_storage(longer.step)

    await storage.delete_storage(shop.cleanup())

    assert not has_bucket(own_account, shop.bucket("uploads"))
    assert has_bucket(own_account, longer.bucket("uploads"))


async def test_the_owner_created_remade_adopts_its_bucket(
    storage: StorageActivities, shops: Shops, own_account: Any
) -> None:
    shop = await shops.provision(storage, UPLOADS)
    own_account.put_object(Bucket=shop.bucket("uploads"), Key="letter", Body=b"x")
    await shops.delete(shop)

    remade = await shops.apply(shop.name, UPLOADS)
    await storage.reconcile_storage(remade.step)

    assert remade.tags != shop.tags
    assert read_tags(own_account, shop.bucket("uploads")) == remade.tags
    assert own_account.get_object(Bucket=shop.bucket("uploads"), Key="letter")["Body"].read() == b"x"


async def test_a_late_cleanup_spares_what_the_owner_created_remade_has_adopted(
    storage: StorageActivities, shops: Shops, own_account: Any
) -> None:
    shop = await shops.provision(storage, UPLOADS)
    await shops.delete(shop)
    remade = await shops.apply(shop.name, UPLOADS)
    await storage.reconcile_storage(remade.step)

    await storage.delete_storage(shop.cleanup())

    assert has_bucket(own_account, shop.bucket("uploads"))
    assert await shops.kube.get(CONFIG_MAPS, f"{shop.name}-storage", shops.namespace) is not None


async def test_a_config_map_of_somebody_else_is_refused_and_survives_the_deletion(
    storage: StorageActivities, shops: Shops
) -> None:
    shop = await shops.apply("", UPLOADS)
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{shop.name}-storage"}, "data": {"A": "b"}}
    await shops.kube.create(CONFIG_MAPS, theirs, shops.namespace)
    before = await shops.kube.get(CONFIG_MAPS, f"{shop.name}-storage", shops.namespace)

    with pytest.raises(OwnedElsewhere):
        await storage.reconcile_storage(shop.step)
    await storage.delete_storage(shop.cleanup())

    assert await shops.kube.get(CONFIG_MAPS, f"{shop.name}-storage", shops.namespace) == before
