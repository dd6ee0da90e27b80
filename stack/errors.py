"""Errors of the local platform."""

from typing import ClassVar

from plattr.errors import PlattrError


class PlatformError(PlattrError):
    """Raised when the local platform cannot be started, stopped or asked. The message is one clear line.

    If a service failed, the last lines of its log follow.
    """

    reason: ClassVar[str] = "PlatformError"


class ChecksumMismatch(PlatformError):
    """Raised when a download does not match its publisher's checksum. No build is tried instead."""

    reason: ClassVar[str] = "ChecksumMismatch"


class DownloadFailed(PlatformError):
    """Raised when an official download is not available. The build from the registries is tried next."""

    reason: ClassVar[str] = "DownloadFailed"
