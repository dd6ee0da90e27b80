"""An access key for each application, limited to its buckets' objects, on the real S3 server."""

from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from activities.storage import StorageActivities
from clients.resources import SECRETS, Json
from clients.s3 import S3Client
from plattr.errors import BackendRefused, InvalidSpec, MissingSetting, OwnedElsewhere
from plattr.settings import Settings
from plattr.target import application_target
from stack.platform import Platform
from tests.domain.corpus import BASE_DOMAIN, Case, object_of
from tests.fix_s3 import PUBLIC, UPLOADS, MakeStorage, Shop, Shops

Boto = Callable[[str, str], Any]


@pytest.fixture
async def keyed(
    platform: Platform, s3_settings: Settings, s3_session: Any, make_storage: MakeStorage, shops: Shops
) -> AsyncIterator[StorageActivities]:
    """The activities of a platform whose S3 server has accounts."""
    settings = s3_settings.model_copy(update={"s3_accounts": "versitygw"})
    client = S3Client(settings, session=s3_session(platform.endpoints.s3_key, platform.endpoints.s3_secret))
    storage = make_storage(client)
    yield storage
    assert client.accounts is not None
    for name in set(shops.made):
        if keys := await secret_of(shops, name):
            await client.accounts.remove(keys["AWS_ACCESS_KEY_ID"])
    client.close()


async def secret_of(shops: Shops, name: str) -> dict[str, str] | None:
    body = await shops.kube.get(SECRETS, f"{name}-storage-keys", shops.namespace)
    return {key: b64decode(text).decode() for key, text in (body or {}).get("data", {}).items()} or None


async def login(shops: Shops, shop: Shop, boto: Boto) -> Any:
    """Return S3 as the application sees it, with the key of its Secret."""
    keys = await secret_of(shops, shop.name)
    assert keys is not None
    return boto(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"])


def code_of(call: Callable[..., Any], **arguments: Any) -> str:
    """Return what S3 refuses a call with."""
    with pytest.raises(ClientError) as refusal:
        call(**arguments)
    return str(refusal.value.response["Error"]["Code"])


async def test_an_application_reads_writes_lists_and_deletes_its_objects(
    keyed: StorageActivities, shops: Shops, s3_boto: Boto
) -> None:
    shop = await shops.provision(keyed, UPLOADS, PUBLIC)
    s3 = await login(shops, shop, s3_boto)

    for bucket in (shop.bucket("uploads"), shop.bucket("assets")):
        s3.put_object(Bucket=bucket, Key="a/b", Body=b"text")
        upload = s3.create_multipart_upload(Bucket=bucket, Key="big")["UploadId"]
        s3.upload_part(Bucket=bucket, Key="big", UploadId=upload, PartNumber=1, Body=b"part")
        s3.abort_multipart_upload(Bucket=bucket, Key="big", UploadId=upload)

        assert s3.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"text"
        assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["a/b"]
        s3.delete_object(Bucket=bucket, Key="a/b")
        assert s3.list_objects_v2(Bucket=bucket).get("Contents", []) == []
    s3.close()


@pytest.mark.attack
async def test_an_applications_key_reaches_no_other_bucket(
    keyed: StorageActivities, shops: Shops, s3_boto: Boto, own_account: Any
) -> None:
    one, two = await shops.provision(keyed, UPLOADS), await shops.provision(keyed, UPLOADS, PUBLIC)
    theirs, public = two.bucket("uploads"), two.bucket("assets")
    own_account.put_object(Bucket=theirs, Key="k", Body=b"secret")
    s3 = await login(shops, one, s3_boto)

    refusals = {
        "get": code_of(s3.get_object, Bucket=theirs, Key="k"),
        "put": code_of(s3.put_object, Bucket=theirs, Key="k", Body=b"x"),
        "delete": code_of(s3.delete_object, Bucket=theirs, Key="k"),
        "list": code_of(s3.list_objects_v2, Bucket=theirs),
        "copy": code_of(s3.copy_object, Bucket=one.bucket("uploads"), Key="k", CopySource=f"{theirs}/k"),
        "put-public": code_of(s3.put_object, Bucket=public, Key="k", Body=b"x"),
        "list-public": code_of(s3.list_objects_v2, Bucket=public),
        "create": code_of(s3.create_bucket, Bucket=f"plattr-prod-{two.name}-new"),
        "tags": code_of(s3.get_bucket_tagging, Bucket=theirs),
    }
    seen = [each["Name"] for each in s3.list_buckets().get("Buckets", [])]
    s3.close()

    assert refusals == dict.fromkeys(refusals, "AccessDenied")
    assert seen == []
    assert own_account.get_object(Bucket=theirs, Key="k")["Body"].read() == b"secret"


@pytest.mark.attack
async def test_an_applications_key_changes_nothing_about_its_own_bucket(
    keyed: StorageActivities, shops: Shops, s3_boto: Boto, own_account: Any
) -> None:
    shop = await shops.provision(keyed, UPLOADS)
    bucket = shop.bucket("uploads")
    policy = own_account.get_bucket_policy(Bucket=bucket)["Policy"]
    s3 = await login(shops, shop, s3_boto)
    tag_set = {"TagSet": [{"Key": "plattr-owner", "Value": "other/Application/shop"}]}
    cors = {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]}
    ownership = {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}

    refusals = {
        "tags": code_of(s3.put_bucket_tagging, Bucket=bucket, Tagging=tag_set),
        "no-tags": code_of(s3.delete_bucket_tagging, Bucket=bucket),
        "policy": code_of(s3.put_bucket_policy, Bucket=bucket, Policy=policy),
        "no-policy": code_of(s3.delete_bucket_policy, Bucket=bucket),
        "cors": code_of(s3.put_bucket_cors, Bucket=bucket, CORSConfiguration=cors),
        "acl": code_of(s3.put_bucket_acl, Bucket=bucket, ACL="public-read"),
        "ownership": code_of(s3.put_bucket_ownership_controls, Bucket=bucket, OwnershipControls=ownership),
        "versioning": code_of(s3.put_bucket_versioning, Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}),
        "delete": code_of(s3.delete_bucket, Bucket=bucket),
    }
    s3.close()

    assert refusals == dict.fromkeys(refusals, "AccessDenied")
    assert own_account.get_bucket_policy(Bucket=bucket)["Policy"] == policy
    tags = own_account.get_bucket_tagging(Bucket=bucket)["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == shop.tags


@pytest.mark.attack
async def test_an_applications_key_administers_no_accounts(
    keyed: StorageActivities, shops: Shops, platform: Platform, s3_settings: Settings, s3_session: Any
) -> None:
    shop = await shops.provision(keyed, UPLOADS)
    keys = await secret_of(shops, shop.name)
    assert keys is not None
    settings = s3_settings.model_copy(update={"s3_accounts": "versitygw"})
    session = s3_session(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"])
    client = S3Client(settings, session=session)
    assert client.accounts is not None

    for call in (client.accounts.put("mallory", "m" * 40), client.accounts.remove(platform.endpoints.s3_key)):
        with pytest.raises(BackendRefused):
            await call

    client.close()


@pytest.mark.attack
async def test_a_secret_that_names_anothers_account_does_not_take_it(
    keyed: StorageActivities, shops: Shops, s3_boto: Boto
) -> None:
    one, two = await shops.provision(keyed, UPLOADS), await shops.provision(keyed, UPLOADS)
    mine, theirs = await secret_of(shops, one.name), await secret_of(shops, two.name)
    assert mine is not None
    assert theirs is not None
    stolen = (await shops.kube.get(SECRETS, f"{two.name}-storage-keys", shops.namespace) or {})["data"]
    body: Json = {"metadata": {"name": f"{one.name}-storage-keys"}, "apiVersion": "v1", "kind": "Secret"}
    key = {"AWS_ACCESS_KEY_ID": stolen["AWS_ACCESS_KEY_ID"]}
    await shops.kube.apply(SECRETS, body | {"data": key}, shops.namespace)

    await keyed.reconcile_storage(one.step)

    assert await secret_of(shops, one.name) == mine
    s3 = await login(shops, two, s3_boto)
    s3.list_objects_v2(Bucket=two.bucket("uploads"))
    s3.close()


async def test_a_secret_that_is_deleted_is_a_new_key_and_the_old_one_is_refused(
    keyed: StorageActivities, shops: Shops, s3_boto: Boto
) -> None:
    shop = await shops.provision(keyed, UPLOADS)
    old = await login(shops, shop, s3_boto)
    before = await secret_of(shops, shop.name)

    await shops.kube.delete(SECRETS, f"{shop.name}-storage-keys", shops.namespace)
    await keyed.reconcile_storage(shop.step)

    after = await secret_of(shops, shop.name)
    new = await login(shops, shop, s3_boto)
    assert before is not None
    assert after is not None
    assert before["AWS_ACCESS_KEY_ID"] == after["AWS_ACCESS_KEY_ID"]
    assert before["AWS_SECRET_ACCESS_KEY"] != after["AWS_SECRET_ACCESS_KEY"]
    assert code_of(old.list_objects_v2, Bucket=shop.bucket("uploads")) == "SignatureDoesNotMatch"
    new.list_objects_v2(Bucket=shop.bucket("uploads"))
    old.close()
    new.close()


async def test_a_second_run_changes_neither_secret_nor_policy_and_an_account_that_is_lost_is_back(
    keyed: StorageActivities, shops: Shops, s3_boto: Boto, own_account: Any
) -> None:
    shop = await shops.provision(keyed, UPLOADS)
    name, bucket = f"{shop.name}-storage-keys", shop.bucket("uploads")

    async def state() -> tuple[Json | None, str]:
        policy = own_account.get_bucket_policy(Bucket=bucket)["Policy"]
        return await shops.kube.get(SECRETS, name, shops.namespace), policy

    before = await state()
    keys = await secret_of(shops, shop.name)
    assert keys is not None

    await keyed.reconcile_storage(shop.step)
    after = await state()
    assert keyed._s3.accounts is not None
    await keyed._s3.accounts.remove(keys["AWS_ACCESS_KEY_ID"])
    await keyed.reconcile_storage(shop.step)

    assert after == before
    s3 = await login(shops, shop, s3_boto)
    s3.list_objects_v2(Bucket=bucket)
    s3.close()


async def test_with_the_object_go_key_and_secret_and_retained_objects_have_no_key(
    keyed: StorageActivities, shops: Shops, s3_boto: Boto, own_account: Any
) -> None:
    gone, kept = await shops.provision(keyed, UPLOADS), await shops.provision(keyed, UPLOADS)
    logins = [await login(shops, shop, s3_boto) for shop in (gone, kept)]
    for shop in (gone, kept):
        await shops.delete(shop)

    for _ in range(2):
        await keyed.delete_storage(gone.cleanup())
        await keyed.delete_storage(kept.cleanup(retain=True))

    refusals = [code_of(s3.list_objects_v2, Bucket=kept.bucket("uploads")) for s3 in logins]
    assert refusals == ["InvalidAccessKeyId"] * 2
    assert [await secret_of(shops, shop.name) for shop in (gone, kept)] == [None, None]
    assert own_account.head_bucket(Bucket=kept.bucket("uploads"))
    for s3 in logins:
        s3.close()


async def test_a_secret_of_somebody_else_is_left_alone(keyed: StorageActivities, shops: Shops) -> None:
    shop = await shops.apply("", UPLOADS)
    body: Json = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{shop.name}-storage-keys"}}
    await shops.kube.create(SECRETS, body, shops.namespace)
    before = await shops.kube.get(SECRETS, f"{shop.name}-storage-keys", shops.namespace)

    with pytest.raises(OwnedElsewhere):
        await keyed.reconcile_storage(shop.step)

    assert await shops.kube.get(SECRETS, f"{shop.name}-storage-keys", shops.namespace) == before


@pytest.mark.attack
def test_another_applications_key_is_no_variable() -> None:
    reference = {"name": "K", "secretKeyRef": {"name": "two-storage-keys", "key": "AWS_SECRET_ACCESS_KEY"}}

    with pytest.raises(InvalidSpec) as refusal:
        application_target(object_of(Case("", {"envVars": [reference]}, name="one")), base_domain=BASE_DOMAIN)

    assert refusal.value.field == "spec.envVars[0].secretKeyRef.name"


def test_accounts_need_a_server_of_ones_own(s3_settings: Settings) -> None:
    with pytest.raises(MissingSetting, match="S3_ACCOUNTS"):
        S3Client(s3_settings.model_copy(update={"s3_accounts": "versitygw", "aws_endpoint_url": None}))
