"""Which buckets the account has. Their tags name their owners."""

from collections.abc import Mapping

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from cli.auditing.inventory import AuditFailed, Found, Thing, ThingKind
from plattr.settings import Settings

_PREFIX = "plattr-"
_OWNER_TAG, _UID_TAG = "plattr-owner", "plattr-owner-uid"
_CLUSTER_TAG, _NAMESPACE_UID_TAG = "plattr-owner-cluster", "plattr-owner-namespace-uid"


class S3Listing:
    """Ask one S3 account."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        endpoint = settings.aws_endpoint_url
        self._client = boto3.client(
            "s3",
            # None: boto3 finds credentials itself (a pod's role, files).
            aws_access_key_id=environment.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY"),
            aws_session_token=environment.get("AWS_SESSION_TOKEN"),
            region_name=settings.aws_region,
            endpoint_url=endpoint,
            config=Config(
                connect_timeout=5,
                read_timeout=20,
                s3={"addressing_style": "path"} if endpoint else {},
            ),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def found(self) -> list[Found]:
        """Return every bucket of the account whose name has Plattr's prefix."""
        try:
            pages = self._client.get_paginator("list_buckets").paginate(Prefix=_PREFIX)
            names = [bucket["Name"] for page in pages for bucket in page.get("Buckets", [])]
            # Some servers ignore the parameter and list every bucket.
            tags = {name: self._tags(name) for name in names if name.startswith(_PREFIX)}
        except (BotoCoreError, ClientError, ResponseParserError) as error:
            raise AuditFailed(f"cannot list the buckets of S3: {error}") from None
        return [
            Found(
                thing=Thing(kind=ThingKind.BUCKET, name=name),
                owner=own.get(_OWNER_TAG),
                uid=own.get(_UID_TAG),
                cluster=own.get(_CLUSTER_TAG),
                namespace_uid=own.get(_NAMESPACE_UID_TAG),
            )
            for name, own in tags.items()
            if own is not None
        ]

    def _tags(self, bucket: str) -> dict[str, str] | None:
        """Return a bucket's tags; None if the bucket has disappeared since it was listed."""
        try:
            answer = self._client.get_bucket_tagging(Bucket=bucket)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            if code == "NoSuchBucket":
                return None
            if code == "NoSuchTagSet":
                return {}
            raise
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}
