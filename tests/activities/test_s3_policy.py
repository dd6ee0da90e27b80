"""The S3 policy in docs/installing.md is enough, and opens nothing else: on a server that evaluates such policies.

The platform's own versitygw keeps its accounts in files and knows three roles, none of which can say `plattr-*`; its
standalone IAM server reads the document's policy as it stands.
"""

import asyncio
import json
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from activities.storage import StorageActivities
from clients.s3 import S3Client
from plattr.errors import BackendRefused, OwnedElsewhere
from plattr.settings import Settings
from stack.platform import Platform
from tests.deploy.installing import block
from tests.fix_s3 import PUBLIC, UPLOADS, Shops
from tests.s3_view import fill, has_bucket, status_of

POLICY = block("json", "s3:CreateBucket")


@dataclass(frozen=True)
class Gateway:
    """A versitygw whose accounts have IAM policies; all buckets are the one account's."""

    s3_url: str
    iam_url: str
    root_secret: str

    def user(self, policy: str) -> boto3.Session:
        """Return a session of a new user who may do what the policy says."""
        iam = self._root().client("iam", endpoint_url=self.iam_url)
        name = f"u{secrets.token_hex(4)}"
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="plattr", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        iam.close()
        return _session(key["AccessKeyId"], key["SecretAccessKey"])

    def s3(self, session: boto3.Session) -> Any:
        return session.client("s3", endpoint_url=self.s3_url, config=Config(s3={"addressing_style": "path"}))

    def root(self) -> Any:
        return self.s3(self._root())

    def _root(self) -> boto3.Session:
        return _session("root", self.root_secret)


def _session(key: str, secret: str) -> boto3.Session:
    return boto3.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1")


@pytest.fixture(scope="module")
def gateway(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder, secret = tmp_path_factory.mktemp("gateway"), secrets.token_hex(16)
    for part in ("iam", "objects", "versions"):
        (folder / part).mkdir()
    # Not in pytest's folder: the path of a socket has at most 107 characters.
    private = f"@plattr-{secrets.token_hex(8)}"
    ports = _free_port(), _free_port()
    program = [str(platform.endpoints.bin_dir / "versitygw"), "--quiet", "--port"]
    files = ["posix", "--versioning-dir", str(folder / "versions"), str(folder / "objects")]
    iam = [*program, f"127.0.0.1:{ports[0]}", "iam", "--dir", str(folder / "iam"), "--private-ports", private]
    gateway = [*program, f"127.0.0.1:{ports[1]}", "--iam-standalone-endpoint", private, *files]
    with ExitStack() as stack:
        for port, command in zip(ports, (iam, gateway), strict=True):
            environment = {"ROOT_ACCESS_KEY": "root", "ROOT_SECRET_KEY": secret}
            log = stack.enter_context((folder / f"{port}.log").open("w"))
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            _await_port(port, process, folder / f"{port}.log")
        yield Gateway(f"http://127.0.0.1:{ports[1]}", f"http://127.0.0.1:{ports[0]}", secret)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture
def make_storage(gateway: Gateway, shops: Shops, s3_settings: Settings) -> Iterator[Callable[[str], StorageActivities]]:
    """Return how to make the activities with no rights but a policy's."""
    settings = s3_settings.model_copy(update={"aws_endpoint_url": gateway.s3_url})
    with ExitStack() as stack:

        def make(policy: str) -> StorageActivities:
            client = S3Client(settings, session=gateway.user(policy))
            stack.callback(client.close)
            return StorageActivities(shops.loader, shops.kube, client, shops.claim_store, settings)

        yield make


@pytest.fixture
def root(gateway: Gateway) -> Iterator[Any]:
    root = gateway.root()
    yield root
    root.close()


async def test_with_the_documents_policy_buckets_come_open_close_and_go(
    make_storage: Callable[[str], StorageActivities], shops: Shops, gateway: Gateway, root: Any
) -> None:
    storage = make_storage(POLICY)
    shop = await shops.provision(storage, UPLOADS, PUBLIC)
    # What the application writes: root stands for it here, the policy gives Plattr no right to.
    await asyncio.to_thread(fill, root, shop.bucket("uploads"))
    root.put_object(Bucket=shop.bucket("assets"), Key="logo", Body=b"seen")
    logo = f"{gateway.s3_url}/{shop.bucket('assets')}/logo"
    opened = await status_of(logo)
    closing = await shops.apply(shop.name, UPLOADS, PUBLIC | {"public": False}, origins=("https://a.example.test",))
    await storage.reconcile_storage(closing.step)
    closed = await status_of(logo)

    result = await storage.delete_storage(closing.cleanup())

    assert (opened, closed) == (200, 403)
    assert result.is_done
    assert not has_bucket(root, shop.bucket("uploads"))
    assert not has_bucket(root, shop.bucket("assets"))


def test_it_opens_no_bucket_of_another_name_and_no_content(gateway: Gateway, root: Any) -> None:
    foreign, ours = f"foreign-{secrets.token_hex(4)}", f"plattr-prod-{secrets.token_hex(4)}"
    root.create_bucket(Bucket=foreign)
    root.put_object(Bucket=foreign, Key="kept", Body=b"kept")
    root.create_bucket(Bucket=ours)
    root.put_object(Bucket=ours, Key="kept", Body=b"kept")
    plattr = gateway.s3(gateway.user(POLICY))
    tags = {"TagSet": [{"Key": "plattr-owner", "Value": "me"}]}
    calls: dict[str, Callable[[], Any]] = {
        "create": lambda: plattr.create_bucket(Bucket=f"{foreign}-2"),
        "look": lambda: plattr.head_bucket(Bucket=foreign),
        "list": lambda: plattr.list_object_versions(Bucket=foreign),
        "tag": lambda: plattr.put_bucket_tagging(Bucket=foreign, Tagging=tags),
        "open": lambda: plattr.put_bucket_policy(Bucket=foreign, Policy=json.dumps({"Version": "2012-10-17"})),
        "empty": lambda: plattr.delete_object(Bucket=foreign, Key="kept"),
        "delete": lambda: plattr.delete_bucket(Bucket=foreign),
        "read": lambda: plattr.get_object(Bucket=ours, Key="kept"),
        "write": lambda: plattr.put_object(Bucket=ours, Key="new", Body=b"new"),
    }

    assert {name: _code(call) for name, call in calls.items()} == dict.fromkeys(calls, 403)
    assert root.get_object(Bucket=foreign, Key="kept")["Body"].read() == b"kept"
    plattr.close()


def _code(call: Callable[[], Any]) -> int:
    try:
        answer = call()
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
    return int(answer["ResponseMetadata"]["HTTPStatusCode"])


@pytest.mark.parametrize("action", ["s3:CreateBucket", "s3:PutBucketTagging", "s3:PutBucketPolicy", "s3:PutBucketCORS"])
async def test_a_right_that_is_missing_is_named(
    make_storage: Callable[[str], StorageActivities], shops: Shops, root: Any, action: str
) -> None:
    lacking = json.loads(POLICY)
    for statement in lacking["Statement"]:
        statement["Action"] = [each for each in statement["Action"] if each != action]
    shop = await shops.apply("", PUBLIC, origins=("https://a.example.test",))

    with pytest.raises(BackendRefused, match=action):
        await make_storage(json.dumps(lacking)).reconcile_storage(shop.step)


async def test_a_bucket_of_the_account_that_is_another_owners_is_refused(
    make_storage: Callable[[str], StorageActivities], shops: Shops, root: Any
) -> None:
    shop = await shops.apply("", UPLOADS)
    root.create_bucket(Bucket=shop.bucket("uploads"))

    with pytest.raises(OwnedElsewhere):
        await make_storage(POLICY).reconcile_storage(shop.step)

    assert has_bucket(root, shop.bucket("uploads"))
