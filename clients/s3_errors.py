"""Turn S3's refusals into Plattr's errors, and name the right that each call needs."""

from dataclasses import dataclass

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004  botocore's own; the built-in one never leaves it
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError

from plattr.errors import BackendRefused, BackendUnavailable, Conflict, PlattrError, StillDeleting


class FeatureMissing(BackendRefused):
    """Raised when the server does not implement the call; S3-compatible servers lack some calls."""


class AccessDenied(BackendRefused):
    """Raised when the worker lacks a right, or another account has the bucket: S3's answer is the same for both."""


@dataclass(frozen=True)
class Operation:
    """One call of S3's API.

    `method` is the name in boto3, `doing` the text for error messages, and `right` the IAM action that the call needs.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
    """

    method: str
    doing: str
    right: str


GET_CALLER = Operation("get_caller_identity", "identify", "sts:GetCallerIdentity")
LIST_BUCKETS = Operation("list_buckets", "list the buckets of", "s3:ListAllMyBuckets")
HEAD_BUCKET = Operation("head_bucket", "look at", "s3:ListBucket")
CREATE_BUCKET = Operation("create_bucket", "create", "s3:CreateBucket")
DELETE_BUCKET = Operation("delete_bucket", "delete", "s3:DeleteBucket")
GET_TAGS = Operation("get_bucket_tagging", "read the tags of", "s3:GetBucketTagging")
PUT_TAGS = Operation("put_bucket_tagging", "tag", "s3:PutBucketTagging")
GET_CORS = Operation("get_bucket_cors", "read the CORS rules of", "s3:GetBucketCORS")
PUT_CORS = Operation("put_bucket_cors", "set the CORS rules of", "s3:PutBucketCORS")
GET_POLICY = Operation("get_bucket_policy", "read the policy of", "s3:GetBucketPolicy")
PUT_POLICY = Operation("put_bucket_policy", "set the policy of", "s3:PutBucketPolicy")
DELETE_POLICY = Operation("delete_bucket_policy", "remove the policy of", "s3:DeleteBucketPolicy")
GET_BLOCK = Operation("get_public_access_block", "read the public access block of", "s3:GetBucketPublicAccessBlock")
PUT_BLOCK = Operation("put_public_access_block", "block public access to", "s3:PutBucketPublicAccessBlock")
DELETE_BLOCK = Operation("delete_public_access_block", "allow public access to", "s3:PutBucketPublicAccessBlock")
GET_OWNERSHIP = Operation("get_bucket_ownership_controls", "read the ownership of", "s3:GetBucketOwnershipControls")
PUT_OWNERSHIP = Operation("put_bucket_ownership_controls", "set the ownership of", "s3:PutBucketOwnershipControls")
LIST_VERSIONS = Operation("list_object_versions", "list the object versions of", "s3:ListBucketVersions")
DELETE_OBJECTS = Operation("delete_objects", "empty", "s3:DeleteObject and s3:DeleteObjectVersion")
DELETE_OBJECT = Operation("delete_object", "empty", "s3:DeleteObject and s3:DeleteObjectVersion")
LIST_UPLOADS = Operation("list_multipart_uploads", "list the open uploads of", "s3:ListBucketMultipartUploads")
ABORT_UPLOAD = Operation("abort_multipart_upload", "abort an upload to", "s3:AbortMultipartUpload")

# The codes are S3's own. https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
# HEAD answers carry no body, so botocore reports the status as their code.
_CONFLICTS = frozenset({"OperationAborted", "ConditionalRequestConflict", "BucketAlreadyOwnedByYou", "NoSuchBucket"})
_OVERLOADED = frozenset({"SlowDown", "RequestTimeout", "RequestLimitExceeded", "Throttling", "ThrottlingException"})
_NO_LOGIN = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "InvalidClientTokenId"}
)
_DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "AccessDeniedException", "403", "Forbidden"})
_MISSING = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})

# Longer than every message of S3 itself. A proxy between us and S3 may answer with a whole page.
_MESSAGE_LIMIT = 300


def code_of(error: ClientError) -> str:
    """Return S3's code of the error, such as AccessDenied; for HEAD it is the status, such as 403."""
    return str(error.response.get("Error", {}).get("Code", ""))


def translate(error: Exception, operation: Operation, bucket: str, *, is_aws: bool) -> PlattrError:
    """Return Plattr's error for an error of botocore; its text contains no credential.

    Args:
        error: a ClientError or another error of botocore.
        operation: the call that failed.
        bucket: the bucket of the call; empty for a call about the account.
        is_aws: whether the server is AWS itself, which has every feature.
    """
    what = f"cannot {operation.doing} " + (f"bucket {bucket!r}" if bucket else "this account")
    if isinstance(error, ClientError):
        return _translate_answer(error, operation, what, is_aws=is_aws)
    if isinstance(error, HTTPClientError | ConnectionError):
        # Only the class: the text quotes the address, which may contain a user and a password.
        return BackendUnavailable(f"{what}: S3 cannot be reached: {type(error).__name__}; check AWS_ENDPOINT_URL")
    if isinstance(error, NoCredentialsError | PartialCredentialsError | UnauthorizedSSOTokenError):
        return BackendRefused(f"{what}: the worker has no AWS credentials; give it an IRSA role or access keys")
    if isinstance(error, BotoCoreError | ResponseParserError):
        return BackendUnavailable(f"{what}: boto3 failed with {type(error).__name__}")
    raise TypeError(f"cannot translate {type(error).__name__}: it is no error of botocore")


def kept_objects(code: str, count: int, bucket: str) -> PlattrError:
    """Return the error for a DeleteObjects call that answered 200 but kept some objects.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
    """
    what = f"cannot empty bucket {bucket!r}: S3 kept {count} object versions: {code}"
    if code in _DENIED:
        return BackendRefused(f"{what}; grant {DELETE_OBJECTS.right}, or end the objects' retention")
    return BackendUnavailable(what)


def _translate_answer(error: ClientError, operation: Operation, what: str, *, is_aws: bool) -> PlattrError:
    code = code_of(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    message = str(error.response.get("Error", {}).get("Message", ""))[:_MESSAGE_LIMIT].rstrip(". ")
    # MinIO handles an unknown subresource as the bucket itself, and answers MalformedXML.
    if code in _MISSING or status == 501 or (code == "MalformedXML" and not is_aws):
        return FeatureMissing(f"{what}: this S3 server does not implement it: {code}")
    if code in _CONFLICTS:
        return Conflict(f"{what}: somebody else changes it at the same time: {code}")
    if code == "BucketNotEmpty":
        return StillDeleting(f"{what}: objects are still being written to it; stop who writes them")
    if code in _OVERLOADED or status >= 500 or status == 429:
        return BackendUnavailable(f"{what}: S3 answered {code or status}")
    if code in _NO_LOGIN:
        # Leave the message out: some servers quote the key or the string that was signed.
        return BackendRefused(f"{what}: S3 does not accept the worker's credentials: {code}; renew them")
    if code in _DENIED or status == 403:
        right = "sts:AssumeRoleWithWebIdentity" if error.operation_name.startswith("AssumeRole") else operation.right
        return AccessDenied(f"{what}: access denied: {message or code}; grant {right} to the worker's role")
    return BackendRefused(f"{what}: S3 answered {code}: {message}")
