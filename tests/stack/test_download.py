import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from stack.errors import ChecksumMismatch, DownloadFailed
from stack.settings import port_is_free
from stack.tools.download import Downloads, verify
from stack.tools.pins import Pin, pins
from stack.tools.resolve import Resolver

CONTENT = b"#!/bin/sh\necho 1.0.0\n"


class Publisher(HTTPServer):
    """A vendor's server; `checksum` is what it vouches for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PublisherHandler)
        self.checksum = hashlib.sha256(CONTENT).hexdigest()
        self.requests: list[str] = []

    def pin(self, **fields: str) -> Pin:
        url = f"http://127.0.0.1:{self.server_port}/tool"
        # kubectl: the one tool Kubernetes publishes for every platform these tests may run on.
        return Pin.model_validate({"name": "kubectl", "version": "1.0.0", "url": url, **fields})


class PublisherHandler(BaseHTTPRequestHandler):
    server: Publisher

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(f"{self.server.checksum}  tool\n".encode() if self.path.endswith(".sha256") else CONTENT)

    def _answer(self, body: bytes) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    for variable in ("PLATTR_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    server = Publisher()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()

    yield server

    server.shutdown()
    thread.join()
    server.server_close()


def test_published_checksum_lets_the_file_pass(publisher: Publisher, tmp_path: Path) -> None:
    target = tmp_path / "tool"

    Downloads().fetch(publisher.pin(), target)

    assert target.read_bytes() == CONTENT
    assert publisher.requests == ["HEAD /tool", "GET /tool.sha256", "GET /tool"]


def test_file_with_another_checksum_is_refused_and_deleted(publisher: Publisher, tmp_path: Path) -> None:
    publisher.checksum = "0" * 64
    target = tmp_path / "tool"

    with pytest.raises(ChecksumMismatch):
        Downloads().fetch(publisher.pin(), target)

    assert not target.exists()


def test_mismatch_does_not_fall_back_to_a_build(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.checksum = "0" * 64
    pin = publisher.pin(module="example.invalid/never/built")
    monkeypatch.setitem(pins(), "kubectl", pin)
    resolver = Resolver(exclude=tmp_path / "links", tell=lambda _line: None, cache=tmp_path / "cache")

    with pytest.raises(ChecksumMismatch):
        resolver.resolve("kubectl")

    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["kubectl.lock"]


def test_download_ends_in_the_cache_and_is_not_repeated(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pins(), "kubectl", publisher.pin())
    told: list[str] = []
    first = Resolver(exclude=tmp_path / "links", tell=told.append, cache=tmp_path / "cache").resolve("kubectl")
    requests = len(publisher.requests)

    second = Resolver(exclude=tmp_path / "links", tell=told.append, cache=tmp_path / "cache").resolve("kubectl")

    assert first == second
    assert first.stat().st_mode & 0o111
    assert len(publisher.requests) == requests
    assert told == ["kubectl 1.0.0: downloaded in 0 s"]


def test_servers_out_of_reach_are_asked_once(publisher: Publisher, tmp_path: Path) -> None:
    port = next(port for port in range(20000, 20100) if port_is_free(port))
    dead = publisher.pin(url=f"http://127.0.0.1:{port}/tool")
    downloads = Downloads()
    began = time.monotonic()

    for pin in (dead, publisher.pin()):
        with pytest.raises(DownloadFailed):
            downloads.fetch(pin, tmp_path / "tool")

    assert publisher.requests == []
    assert time.monotonic() - began < 4


def test_offline_asks_nobody(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATTR_OFFLINE", "1")

    with pytest.raises(DownloadFailed):
        Downloads().fetch(publisher.pin(), tmp_path / "tool")

    assert publisher.requests == []


def test_verify_names_both_checksums(tmp_path: Path) -> None:
    path = tmp_path / "tool"
    path.write_bytes(CONTENT)

    with pytest.raises(ChecksumMismatch) as refusal:
        verify(path, "0" * 64, origin="https://example.invalid/tool")

    assert hashlib.sha256(CONTENT).hexdigest() in str(refusal.value)
    assert "0" * 64 in str(refusal.value)
