"""What the tests do at the edge of an S3Client: count its calls, lose answers, give answers of their own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ReadTimeoutError

from clients.resources import Json
from clients.s3 import S3Client

WRITES = ("Put", "Create", "Delete", "Abort")


class Hooks:
    """What happens at the edge of one S3Client: calls are written down, broken, or answered by the test."""

    def __init__(self, s3: S3Client) -> None:
        self._events = s3.boto.meta.events
        self.calls: list[str] = []
        self.requests: list[tuple[str, Json]] = []
        self._events.register("before-call.s3", self._remember)

    @property
    def writes(self) -> list[str]:
        return [name for name in self.calls if name.startswith(WRITES)]

    def _remember(self, model: Any, params: Json, **_: Any) -> None:
        self.calls.append(model.name)
        self.requests.append((model.name, params))

    @contextmanager
    def crash_after_write(self, number: int) -> Iterator[None]:
        """Let the call through that is the `number`th write from now on, and lose its answer."""
        done = 0

        def lose(model: Any, http_response: Any, **_: Any) -> None:
            nonlocal done
            if model.name.startswith(WRITES) and http_response.status_code < 300:
                done += 1
                if done == number:
                    raise ReadTimeoutError(endpoint_url="http://s3.test")

        with self._hooked("after-call.s3", lose):
            yield

    @contextmanager
    def answer(
        self, status: int, code: str, *operations: str, times: int | None = None, body: str = ""
    ) -> Iterator[None]:
        """Answer the operations' calls, the first `times` of them, without asking the server."""
        left = times

        def reply(request: Any, **_: Any) -> AWSResponse | None:
            nonlocal left
            if left is not None:
                if left == 0:
                    return None
                left -= 1
            error = f"<Error><Code>{code}</Code><Message>made by the test</Message></Error>" if code else body
            return respond(request, status, error.encode())

        with self._hooked_all([f"before-send.s3.{operation}" for operation in operations], reply):
            yield

    @contextmanager
    def _hooked(self, event: str, handler: Callable[..., Any]) -> Iterator[None]:
        with self._hooked_all([event], handler):
            yield

    @contextmanager
    def _hooked_all(self, events: list[str], handler: Callable[..., Any]) -> Iterator[None]:
        for event in events:
            self._events.register(event, handler)
        try:
            yield
        finally:
            for event in events:
                self._events.unregister(event, handler)


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body


def respond(request: Any, status: int, body: bytes = b"") -> AWSResponse:
    """Make the answer that a `before-send` handler returns instead of the server's."""
    return AWSResponse(request.url, status, cast("Any", {"Content-Type": "application/xml"}), _Raw(body))


class AccessBlocks:
    """AWS' public access block, which no server here has: it refuses a public policy while it is set."""

    def __init__(self, s3: S3Client) -> None:
        self.blocked: set[str] = set()
        # An answer of a handler's own is botocore's way to send nothing; its stubs have no handler answer.
        events: Any = s3.boto.meta.events
        events.register("before-send.s3.GetPublicAccessBlock", self._get)
        events.register("before-send.s3.PutPublicAccessBlock", self._put)
        events.register("before-send.s3.DeletePublicAccessBlock", self._delete)
        events.register("before-send.s3.PutBucketPolicy", self._check_policy)

    def _get(self, request: Any, **_: Any) -> AWSResponse:
        if self._bucket(request) not in self.blocked:
            return respond(request, 404, b"<Error><Code>NoSuchPublicAccessBlockConfiguration</Code></Error>")
        names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        flags = "".join(f"<{name}>true</{name}>" for name in names)
        body = f"<PublicAccessBlockConfiguration>{flags}</PublicAccessBlockConfiguration>"
        return respond(request, 200, body.encode())

    def _put(self, request: Any, **_: Any) -> AWSResponse:
        self.blocked.add(self._bucket(request))
        return respond(request, 200)

    def _delete(self, request: Any, **_: Any) -> AWSResponse:
        self.blocked.discard(self._bucket(request))
        return respond(request, 204)

    def _check_policy(self, request: Any, **_: Any) -> AWSResponse | None:
        if self._bucket(request) in self.blocked:
            return respond(request, 403, b"<Error><Code>AccessDenied</Code></Error>")
        return None

    @staticmethod
    def _bucket(request: Any) -> str:
        return str(request.url.split("/")[3].split("?")[0])
