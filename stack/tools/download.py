"""Official downloads. Each one is verified before it is used."""

import hashlib
import os
import tarfile
import threading
from pathlib import Path

import httpx

from stack.errors import ChecksumMismatch, DownloadFailed
from stack.tools.pins import Pin

# Short, so that a machine without internet loses no time. The build is tried next.
CONNECT_SECONDS = 3.0
TIMEOUT = httpx.Timeout(60, connect=CONNECT_SECONDS)


class Downloads:
    """The official servers. One probe per run tells whether they can be reached."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reachable: bool | None = None

    def are_reachable(self, url: str) -> bool:
        """Probe once. With PLATTR_OFFLINE=1 the answer is no, without a probe."""
        with self._lock:
            if self._reachable is None:
                self._reachable = os.environ.get("PLATTR_OFFLINE") != "1" and _probe(url)
            return self._reachable

    def fetch(self, pin: Pin, target: Path) -> None:
        """Download a tool's file or archive to `target`, verified.

        Raises:
            DownloadFailed: there is no official download for this platform, or its server does not answer.
            ChecksumMismatch: the file differs from the published one. It is deleted.
        """
        url = address(pin)
        if url is None:
            raise DownloadFailed(f"cannot download {pin.name} {pin.version}: no official download is pinned")
        if not self.are_reachable(url):
            raise DownloadFailed(f"cannot download {pin.name} {pin.version}: no internet")
        try:
            with httpx.Client(timeout=TIMEOUT, follow_redirects=True) as http:
                expected = _published_checksum(http, pin, url)
                with http.stream("GET", url) as response, target.open("wb") as file:
                    response.raise_for_status()
                    for chunk in response.iter_bytes(2**20):
                        file.write(chunk)
        except httpx.HTTPError as error:
            raise DownloadFailed(f"cannot download {pin.name} {pin.version} from {url}: {error}") from error
        verify(target, expected, origin=url)


def address(pin: Pin) -> str | None:
    """Return the address of the official download, if there is one for this platform."""
    if pin.github is not None and pin.asset is not None:
        return f"https://github.com/{pin.github}/releases/download/{pin.fill(pin.tag)}/{pin.fill(pin.asset)}"
    # For macOS Kubernetes publishes only kubectl, but no control plane.
    if pin.url is not None and (pin.fill("{os}") == "linux" or pin.name == "kubectl"):
        return pin.fill(pin.url)
    return None


def verify(path: Path, expected: str, *, origin: str) -> None:
    """Compare a file with its SHA-256.

    Raises:
        ChecksumMismatch: the file differs. It is deleted.
    """
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected.lower():
        path.unlink()
        raise ChecksumMismatch(
            f"cannot use {origin}: its SHA-256 is {actual}, expected {expected}; "
            "somebody changed it on the way or at its source: do not use it, report it"
        )


def unpack_member(archive: Path, member: str, target: Path) -> None:
    """Extract one file from a tar archive.

    Raises:
        DownloadFailed: the archive has no such file.
    """
    with tarfile.open(archive) as tar:
        try:
            source = tar.extractfile(member)
        except KeyError:
            source = None
        if source is None:
            raise DownloadFailed(f"cannot unpack {archive.name}: it holds no {member}")
        with target.open("wb") as file:
            while chunk := source.read(2**20):
                file.write(chunk)


def _probe(url: str) -> bool:
    try:
        httpx.head(url, timeout=CONNECT_SECONDS)
    except httpx.HTTPError:
        return False
    return True


def _published_checksum(http: httpx.Client, pin: Pin, url: str) -> str:
    if pin.github is None:
        return http.get(f"{url}.sha256").raise_for_status().text.split()[0]
    release = f"https://api.github.com/repos/{pin.github}/releases/tags/{pin.fill(pin.tag)}"
    name = url.rpartition("/")[2]
    for asset in http.get(release).raise_for_status().json()["assets"]:
        if asset["name"] == name and str(asset.get("digest")).startswith("sha256:"):
            return str(asset["digest"]).removeprefix("sha256:")
    raise DownloadFailed(f"cannot verify {name} of {pin.github}: the release publishes no SHA-256 for it")
