import asyncio
import contextlib
import time
import traceback
from collections.abc import Callable
from typing import Any, cast

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from clients.s3 import THREADS, S3Client, Standing
from plattr.errors import (
    BackendRefused,
    BackendUnavailable,
    Conflict,
    PlattrError,
)
from plattr.settings import Settings
from stack.platform import Platform
from tests.s3_hooks import Hooks, respond


async def test_the_region_is_named_outside_of_s3s_own(
    platform: Platform, s3_settings: Settings, s3_session: Callable[[str, str], boto3.Session]
) -> None:
    settings = s3_settings.model_copy(update={"aws_region": "eu-west-1"})
    s3 = S3Client(settings, session=s3_session(platform.endpoints.s3_key, platform.endpoints.s3_secret))
    hooks = Hooks(s3)

    with contextlib.closing(s3), hooks.answer(200, "", "CreateBucket", "ListBuckets"):
        await s3.create("plattr-prod-somewhere")

    body = dict(hooks.requests)["CreateBucket"]["body"]
    assert b"<LocationConstraint>eu-west-1</LocationConstraint>" in body


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (409, "OperationAborted", Conflict),
        (404, "NoSuchBucket", Conflict),
        (503, "SlowDown", BackendUnavailable),
        (500, "InternalError", BackendUnavailable),
        (502, "", BackendUnavailable),
        (403, "AccessDenied", BackendRefused),
        (400, "TooManyBuckets", BackendRefused),
    ],
    ids=str,
)
async def test_a_refusal_is_sorted_by_what_mends_it(
    s3: S3Client, hooks: Hooks, status: int, code: str, expected: type[PlattrError]
) -> None:
    with hooks.answer(status, code, "CreateBucket"), pytest.raises(expected):
        await s3.create("plattr-prod-nothing")


async def test_a_refusal_names_the_right_that_is_missing(s3: S3Client, hooks: Hooks) -> None:
    with hooks.answer(403, "AccessDenied", "PutBucketCors"), pytest.raises(BackendRefused) as caught:
        await s3.put_cors("plattr-prod-nothing", [])

    assert "grant s3:PutBucketCORS" in str(caught.value)
    assert "'plattr-prod-nothing'" in str(caught.value)


@pytest.mark.parametrize("case", ["wrong secret", "unknown key", "server down", "address with a password"])
async def test_no_credential_is_in_any_error(
    platform: Platform, s3_settings: Settings, s3_session: Callable[[str, str], boto3.Session], case: str
) -> None:
    secret = "wJalrXUtnFEMI-secret-access-key"
    key = "AKIAUNKNOWN" if case == "unknown key" else platform.endpoints.s3_key
    url = {"server down": "http://127.0.0.1:9", "address with a password": f"http://me:{secret}@127.0.0.1:9"}
    settings = s3_settings.model_copy(update={"aws_endpoint_url": url.get(case, s3_settings.aws_endpoint_url)})

    async def look() -> None:
        with contextlib.closing(S3Client(settings, session=s3_session(key, secret))) as client:
            await client.locate("plattr-prod-nothing")

    with pytest.raises(PlattrError) as caught:
        await look()

    text = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(vars(caught.value))
    assert secret not in text
    assert caught.value.__cause__ is None


async def test_a_server_that_is_away_is_tried_again(
    s3_settings: Settings, s3_session: Callable[[str, str], boto3.Session]
) -> None:
    settings = s3_settings.model_copy(update={"aws_endpoint_url": "http://127.0.0.1:9"})

    with contextlib.closing(S3Client(settings, session=s3_session("key", "secret"))) as client:  # noqa: SIM117
        with pytest.raises(BackendUnavailable):
            await client.locate("plattr-prod-nothing")


async def test_on_aws_every_call_names_the_account_that_sts_gives(s3_settings: Settings) -> None:
    session = boto3.Session(aws_access_key_id="key", aws_secret_access_key="secret", region_name="eu-west-1")
    caller = b"<R><GetCallerIdentityResult><Account>123456789012</Account></GetCallerIdentityResult></R>"
    requests = []

    def reply(request: Any, **_: Any) -> AWSResponse:
        requests.append(request)
        return respond(request, 200, caller) if "sts." in request.url else respond(request, 404)

    session.events.register("before-send.*", cast("Any", reply))
    settings = s3_settings.model_copy(update={"aws_region": "eu-west-1", "aws_endpoint_url": None})

    with contextlib.closing(S3Client(settings, session=session)) as client:
        standing = await client.locate("plattr-prod-nothing")

    sts, head = requests
    assert standing is Standing.ABSENT
    assert sts.url == "https://sts.eu-west-1.amazonaws.com/"
    assert head.url == "https://plattr-prod-nothing.s3.eu-west-1.amazonaws.com/"
    assert head.headers["x-amz-expected-bucket-owner"] == b"123456789012"


async def test_a_server_that_hangs_ends_in_time_and_holds_up_nobody_else(
    s3_settings: Settings, s3_session: Callable[[str, str], boto3.Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.s3.READ_SECONDS", 1)
    is_over = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await is_over.wait()
        writer.close()
        await writer.wait_closed()

    hanging = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = hanging.sockets[0].getsockname()[1]
    settings = s3_settings.model_copy(update={"aws_endpoint_url": f"http://127.0.0.1:{port}"})

    async with hanging:
        with contextlib.closing(S3Client(settings, session=s3_session("key", "secret"))) as client:
            looks = [asyncio.create_task(client.locate("plattr-prod-nothing")) for _ in range(2 * THREADS)]
            await asyncio.sleep(0.5)
            # Other clients' calls use the loop's own threads.
            await asyncio.wait_for(asyncio.to_thread(time.monotonic), 0.5)
            outcomes = await asyncio.wait_for(asyncio.gather(*looks, return_exceptions=True), 10)
        is_over.set()
        # The handlers close their connections at the loop's next turns.
        await asyncio.sleep(0.2)

    assert {type(outcome) for outcome in outcomes} == {BackendUnavailable}
