"""S3 as a person, a browser and a stranger see it: boto3 and HTTP, without any of Plattr's code."""

import json
from typing import Any

import aiohttp
from botocore.exceptions import ClientError

from stack.platform import Platform


async def fetch_anonymously(platform: Platform, path: str) -> int:
    return await status_of(f"{platform.endpoints.s3_url}/{path}")


async def status_of(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status


async def preflight(platform: Platform, bucket: str, origin: str) -> tuple[int, str | None]:
    headers = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
    url = f"{platform.endpoints.s3_url}/{bucket}/key"
    async with aiohttp.ClientSession() as session, session.options(url, headers=headers) as response:
        return response.status, response.headers.get("Access-Control-Allow-Origin")


def look_at(boto: Any, bucket: str) -> dict[str, Any]:
    """Return everything about a bucket that the step is to settle."""
    try:
        policy = boto.get_bucket_policy(Bucket=bucket)["Policy"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucketPolicy":
            raise
        policy = None
    return {
        "tags": read_tags(boto, bucket),
        "cors": boto.get_bucket_cors(Bucket=bucket)["CORSRules"],
        "policy": policy,
        "ownership": boto.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"],
    }


def fill(boto: Any, bucket: str) -> None:
    """Leave 1,200 versions and 60 delete markers of 60 objects, and three open uploads."""
    boto.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for number in range(60):
        for _ in range(20):
            boto.put_object(Bucket=bucket, Key=f"folder/{number} ä&<>", Body=b"x")
        boto.delete_object(Bucket=bucket, Key=f"folder/{number} ä&<>")
    for number in range(3):
        upload = boto.create_multipart_upload(Bucket=bucket, Key=f"upload-{number}")
        boto.upload_part(
            Bucket=bucket, Key=f"upload-{number}", UploadId=upload["UploadId"], PartNumber=1, Body=b"x" * 1024
        )


def write_tags(boto: Any, bucket: str, tags: dict[str, str]) -> None:
    boto.put_bucket_tagging(
        Bucket=bucket, Tagging={"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]}
    )


def read_tags(boto: Any, bucket: str) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in boto.get_bucket_tagging(Bucket=bucket)["TagSet"]}


def has_bucket(boto: Any, bucket: str) -> bool:
    return bucket in {entry["Name"] for entry in boto.list_buckets()["Buckets"]}


def remove_bucket(boto: Any, bucket: str) -> None:
    while True:
        page = boto.list_object_versions(Bucket=bucket)
        entries = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        if not entries:
            break
        keys = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]
        boto.delete_objects(Bucket=bucket, Delete={"Objects": keys})
    boto.delete_bucket(Bucket=bucket)


def public_policy(bucket: str, *actions: str) -> str:
    """Return a policy somebody else might set: these actions for anybody."""
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statement = {"Effect": "Allow", "Principal": "*", "Action": list(actions), "Resource": resources}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
