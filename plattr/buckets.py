"""How a bucket has to be: its owner's tags, its CORS rules and its policy, and how to compare them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from plattr import naming
from plattr.errors import MissingSetting
from plattr.marks import Mark
from plattr.naming import BucketName
from plattr.objects import Owner
from plattr.settings import Settings
from plattr.target import Target

# A tag's value in S3 may hold letters, digits, spaces and + - = . _ : / @. So an owner's key needs no encoding.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/tagging-managing.html
OWNER_TAG = "plattr-owner"
OWNER_UID_TAG = "plattr-owner-uid"
OWNER_CLUSTER_TAG = "plattr-owner-cluster"
OWNER_NAMESPACE_UID_TAG = "plattr-owner-namespace-uid"

# ACLs are switched off: only a policy can open a bucket. https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html
OWNERSHIP = "BucketOwnerEnforced"

ACCESS_BLOCK = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}

# What an application's own account may do with the objects in its buckets.
OBJECT_ACTIONS = (
    *("s3:GetObject", "s3:GetObjectAttributes", "s3:PutObject", "s3:DeleteObject"),
    *("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"),
)
LIST_ACTIONS = ("s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetBucketLocation")

# What a page in a browser needs: every method on the application's own objects, and an hour between two preflight
# requests.
CORS_METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD")
CORS_MAX_AGE_SECONDS = 3600

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def owner_tags(owner: Owner) -> dict[str, str]:
    """Return the tags that say whose a bucket is."""
    return {
        OWNER_TAG: owner.reference.key,
        OWNER_UID_TAG: owner.uid,
        OWNER_CLUSTER_TAG: owner.cluster,
        OWNER_NAMESPACE_UID_TAG: owner.namespace_uid,
    }


def tagged_mark(tags: Mapping[str, str]) -> Mark | None:
    """Return the owner that a bucket's tags name; None when there is no such tag."""
    if OWNER_TAG not in tags:
        return None
    return Mark(
        key=tags[OWNER_TAG],
        cluster=tags.get(OWNER_CLUSTER_TAG, ""),
        namespace_uid=tags.get(OWNER_NAMESPACE_UID_TAG, ""),
        uid=tags.get(OWNER_UID_TAG, ""),
    )


def cors_rules(target: Target) -> list[dict[str, Any]]:
    """Return the rules that let browsers on the application's origins use its buckets."""
    return [
        {
            "AllowedOrigins": list(target.spec.cors.origins or (target.names.url,)),
            "AllowedMethods": list(CORS_METHODS),
            "AllowedHeaders": ["*"],
            # A browser that uploads in parts must read each part's ETag to complete the upload.
            "ExposeHeaders": ["ETag"],
            "MaxAgeSeconds": CORS_MAX_AGE_SECONDS,
        }
    ]


def public_read_policy(bucket: BucketName, *, partition: str) -> dict[str, Any]:
    """Return the policy that lets anybody read the bucket's objects, but not list them.

    Args:
        bucket: the bucket.
        partition: the first part of its ARN: aws, aws-cn, aws-us-gov.
    """
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "PlattrPublicRead",
                "Effect": "Allow",
                "Principal": "*",
                "Action": "s3:GetObject",
                "Resource": f"arn:{partition}:s3:::{bucket}/*",
            }
        ],
    }


def bucket_policy(bucket: BucketName, *, is_public: bool, account: str | None, partition: str) -> dict[str, Any] | None:
    """Return the policy of a bucket; None when it is to have no policy.

    Args:
        bucket: the bucket.
        is_public: whether anybody may read its objects.
        account: the access key id of the application's account, if it has one. This account may read, write and list
            the objects. It has no right on tags, policy, ACL, CORS or old versions. With these it could give the bucket
            another owner's mark, or open it.
        partition: the first part of its ARN: aws, aws-cn, aws-us-gov.
    """
    policy = public_read_policy(bucket, partition=partition)
    statements = list(policy["Statement"]) if is_public else []
    if account is not None:
        resource = f"arn:{partition}:s3:::{bucket}"
        statements += [
            _allow("PlattrObjects", account, OBJECT_ACTIONS, f"{resource}/*"),
            _allow("PlattrList", account, LIST_ACTIONS, resource),
        ]
    return policy | {"Statement": statements} if statements else None


def is_same_cors(some: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether two lists of rules mean the same; the order within a rule and its ID mean nothing."""
    return [_plain_rule(rule) for rule in some] == [_plain_rule(rule) for rule in other]


def is_same_policy(some: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Tell whether two policies mean the same; a server may return a single value as a value or as a list."""
    return bool(_plain_policy(some) == _plain_policy(other))


def storage_values(target: Target, settings: Settings) -> dict[str, str]:
    """Return the variables of the application's buckets; credentials come from the pod (IRSA).

    A bucket in S3 cannot limit the size of an object. So the application has to enforce `maxFileSize` on the uploads
    that it signs. Its variable holds the number of bytes.

    Raises:
        MissingSetting: S3_PUBLIC_ENDPOINT or AWS_ENDPOINT_URL is not an address, or holds credentials.
    """
    public = checked_endpoint("S3_PUBLIC_ENDPOINT", settings.s3_public_endpoint)
    endpoint = public or checked_endpoint("AWS_ENDPOINT_URL", settings.aws_endpoint_url)
    values = {
        "S3_ENDPOINT": endpoint or f"https://s3.{settings.aws_region}.amazonaws.com",
        "S3_REGION": settings.aws_region,
    }
    for bucket in target.spec.storage.buckets:
        values[naming.bucket_variable(bucket.name)] = target.names.bucket(bucket.name)
        if bucket.max_file_size is not None:
            values[naming.bucket_size_variable(bucket.name)] = str(size_in_bytes(bucket.max_file_size))
    return values


def checked_endpoint(setting: str, endpoint: str | None) -> str | None:
    """Return the address of an S3 server without a trailing slash; None stays None.

    Raises:
        MissingSetting: it is not an http(s) address, or holds credentials.
    """
    if endpoint is None:
        return None
    try:
        address = urlsplit(endpoint)
        is_plain = address.scheme in ("http", "https") and address.hostname and address.username is None
    except ValueError:
        is_plain = False
    # The message does not show the value: a value may be bad because it holds a password.
    if not is_plain:
        raise MissingSetting(
            f"cannot use setting {setting}: it must begin with http:// or https:// and hold no credentials, since"
            " every application gets it in a ConfigMap; see docs/settings.md"
        )
    return endpoint.rstrip("/")


def size_in_bytes(size: str) -> int:
    """Return the number of bytes that a maxFileSize such as `10Mi` or `500K` names."""
    number, unit = re.fullmatch(r"(\d+)(\D*)", size).groups()  # type: ignore[union-attr]  # SIZE_PATTERN holds
    return int(number) * _UNITS[unit]


def _allow(sid: str, account: str, actions: Sequence[str], resource: str) -> dict[str, Any]:
    principal = {"AWS": account}
    return {"Sid": sid, "Effect": "Allow", "Principal": principal, "Action": list(actions), "Resource": resource}


def _plain_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {name: sorted(value) if isinstance(value, list) else value for name, value in rule.items() if name != "ID"}


def _plain_policy(policy: Mapping[str, Any] | None) -> Any:
    if policy is None:
        return None
    statements = policy.get("Statement", [])
    return {
        **policy,
        "Statement": [
            _plain_statement(part) for part in (statements if isinstance(statements, list) else [statements])
        ],
    }


def _plain_statement(statement: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: _listed(value) for name, value in statement.items()}
    if statement.get("Principal") == "*":
        plain["Principal"] = {"AWS": ["*"]}
    return plain


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _listed(part) for name, part in value.items()}
    return sorted(value) if isinstance(value, list) else [value]
