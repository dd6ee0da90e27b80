"""What the supervisor needs to know of a service."""

import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from stack.errors import PlatformError
from stack.folders import Folders
from stack.processes import Command
from stack.settings import StateSettings


@dataclass(frozen=True)
class Site:
    """Where a platform stands: its folders, its kept ports and credentials, its tools by name."""

    folders: Folders
    settings: StateSettings
    tools: dict[str, Path]

    def port(self, name: str) -> int:
        """Return a kept port."""
        return self.settings.ports[name]

    def url(self, name: str) -> str:
        """Return the address of an HTTP service on the loopback."""
        return f"http://127.0.0.1:{self.port(name)}"

    def credential(self, name: str) -> str:
        """Return a kept password or key."""
        return self.settings.credentials[name]

    def tool(self, name: str) -> str:
        """Return the path of a tool.

        Raises:
            PlatformError: it was not resolved before the start.
        """
        if name not in self.tools:
            raise PlatformError(f"cannot find {name}: not resolved for this platform; run plattr infra start")
        return str(self.tools[name])


class Service(ABC):
    """One process of the platform; methods may block, each service has a thread of its own."""

    name: ClassVar[str]
    # Ports by their names in the settings; they must be free before a start.
    ports: ClassVar[tuple[str, ...]] = ()
    # Processes that must be healthy before this one starts.
    requires: ClassVar[tuple[str, ...]] = ()
    # Generous: the machine may be busy with the other services' starts.
    healthy_within_seconds: ClassVar[float] = 60
    # Not started with the others, but by the first connection to its port: see stack/doorbell.py.
    is_on_demand: ClassVar[bool] = False
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_grace_seconds: ClassVar[float] = 10

    def __init__(self, site: Site) -> None:
        self.site = site

    @property
    def folder(self) -> Path:
        """Where the service keeps its files."""
        return self.site.folders.service(self.name)

    @property
    def address(self) -> str:
        """Return what a person would look for; empty if it listens on nothing."""
        return self.site.url(self.ports[0]) if self.ports else ""

    def prepare(self) -> None:
        """Make what the command needs; runs before every start, so it must be idempotent."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @abstractmethod
    def command(self) -> Command:
        """Return what to run."""

    @abstractmethod
    def is_healthy(self) -> bool:
        """Tell whether it serves now; quick, never raises for a server that is not there."""

    def set_up(self) -> None:  # noqa: B027  # most services have nothing to set up
        """Make accounts and the like once it is healthy; runs after every start, so it must be idempotent."""


def answers(url: str, *, expected: int = 200) -> bool:
    """Tell whether a GET has the expected status.

    By the plain standard library: an httpx client loads all of the machine's CAs, and this is asked ten times a second.
    """
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=2)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == expected
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
