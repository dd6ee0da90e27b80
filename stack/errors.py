"""What can go wrong on the local platform."""

from typing import ClassVar

from plattr.errors import PlattrError


class PlatformError(PlattrError):
    """Raised when the local platform cannot be started, stopped or asked; the message is one clear line.

    When a service failed, the last lines of its log follow the line.
    """

    reason: ClassVar[str] = "PlatformError"


class ChecksumMismatch(PlatformError):
    """Raised when a downloaded file is not the one its publisher vouches for; never falls back to a build."""

    reason: ClassVar[str] = "ChecksumMismatch"


class DownloadFailed(PlatformError):
    """Raised when an official download cannot be had; the build from the registries comes next."""

    reason: ClassVar[str] = "DownloadFailed"
