import json
from typing import Any

import pytest

from plattr.buckets import checked_endpoint, is_same_cors, is_same_policy, public_read_policy, size_in_bytes
from plattr.errors import MissingSetting
from plattr.naming import BucketName

POLICY = public_read_policy(BucketName("b"), partition="aws")
(STATEMENT,) = POLICY["Statement"]
RULE = {"AllowedOrigins": ["https://a.test", "https://b.test"], "AllowedMethods": ["GET", "PUT"], "MaxAgeSeconds": 3600}


@pytest.mark.parametrize(
    "other",
    [
        POLICY | {"Statement": STATEMENT},
        POLICY | {"Statement": [STATEMENT | {"Principal": {"AWS": "*"}}]},
        POLICY | {"Statement": [STATEMENT | {"Principal": {"AWS": ["*"]}}]},
        POLICY | {"Statement": [STATEMENT | {"Action": ["s3:GetObject"], "Resource": [STATEMENT["Resource"]]}]},
        json.loads(json.dumps(POLICY, sort_keys=True)),
    ],
    ids=["one statement", "AWS star", "AWS list of star", "lists of one", "other order"],
)
def test_a_policy_written_otherwise_is_the_same(other: dict[str, Any]) -> None:
    assert is_same_policy(POLICY, other)


@pytest.mark.parametrize(
    "other",
    [
        None,
        {},
        POLICY | {"Statement": []},
        POLICY | {"Statement": [STATEMENT, STATEMENT | {"Sid": "More", "Action": "s3:ListBucket"}]},
        POLICY | {"Statement": [STATEMENT | {"Action": ["s3:GetObject", "s3:PutObject"]}]},
        POLICY | {"Statement": [STATEMENT | {"Effect": "Deny"}]},
        POLICY | {"Statement": [STATEMENT | {"Resource": "arn:aws:s3:::other/*"}]},
        POLICY | {"Statement": [STATEMENT | {"Principal": {"AWS": ["123456789012"]}}]},
        POLICY | {"Statement": [STATEMENT | {"Condition": {"Bool": {"aws:SecureTransport": "true"}}}]},
    ],
    ids=["none", "empty", "no statement", "one more", "one more action", "deny", "resource", "principal", "condition"],
)
def test_a_policy_that_means_something_else_is_another(other: dict[str, Any] | None) -> None:
    assert not is_same_policy(POLICY, other)


def test_no_policy_is_the_same_as_none() -> None:
    assert is_same_policy(None, None)


def test_order_and_id_of_a_cors_rule_mean_nothing() -> None:
    other = RULE | {"ID": "made-by-the-server", "AllowedOrigins": ["https://b.test", "https://a.test"]}

    assert is_same_cors([RULE], [other])


@pytest.mark.parametrize(
    "others",
    [[], [RULE, RULE], [RULE | {"MaxAgeSeconds": 5}], [RULE | {"AllowedOrigins": ["*"]}]],
    ids=["none", "two", "age", "origins"],
)
def test_cors_rules_that_allow_something_else_are_others(others: list[dict[str, Any]]) -> None:
    assert not is_same_cors([RULE], others)


@pytest.mark.parametrize(
    ("size", "count"),
    [("7", 7), ("5K", 5_000), ("5Ki", 5_120), ("10M", 10_000_000), ("10Mi", 10_485_760), ("1Gi", 2**30)],
)
def test_a_size_is_its_number_of_bytes(size: str, count: int) -> None:
    assert size_in_bytes(size) == count


@pytest.mark.parametrize(
    "endpoint",
    ["s3.test", "ftp://s3.test", "http://", "http://user:password@s3.test", "http://[::1", "//s3.test"],
)
def test_an_address_that_is_none_or_holds_a_password_is_refused_unseen(endpoint: str) -> None:
    with pytest.raises(MissingSetting) as caught:
        checked_endpoint("AWS_ENDPOINT_URL", endpoint)

    assert "password" not in str(caught.value)
    assert "AWS_ENDPOINT_URL" in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [("http://127.0.0.1:9000/", "http://127.0.0.1:9000"), ("https://s3.test", "https://s3.test"), (None, None)],
)
def test_an_address_loses_only_its_trailing_slash(endpoint: str | None, expected: str | None) -> None:
    assert checked_endpoint("AWS_ENDPOINT_URL", endpoint) == expected
