"""What the supervisor must know about a service."""

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
    """One platform's folders, its kept ports and credentials, and its tools by name."""

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
            PlatformError: the tool was not resolved before the start.
        """
        if name not in self.tools:
            raise PlatformError(f"cannot find {name}: not resolved for this platform; run plattr infra start")
        return str(self.tools[name])


class Service(ABC):
    """One process of the platform. Methods may block, because each service has its own thread."""

    name: ClassVar[str]
    # The names of its ports in the settings. The ports must be free before a start.
    ports: ClassVar[tuple[str, ...]] = ()
    # Processes that must be healthy before this one starts.
    requires: ClassVar[tuple[str, ...]] = ()
    # A long time, because the machine may be busy with the start of the other services.
    healthy_within_seconds: ClassVar[float] = 60
    # If true, the first connection to its port starts the service: see stack/doorbell.py.
    is_on_demand: ClassVar[bool] = False
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_grace_seconds: ClassVar[float] = 10

    def __init__(self, site: Site) -> None:
        self.site = site

    @property
    def folder(self) -> Path:
        """The folder with the service's files."""
        return self.site.folders.service(self.name)

    @property
    def address(self) -> str:
        """The address that a person would look for; empty if the service listens on nothing."""
        return self.site.url(self.ports[0]) if self.ports else ""

    def prepare(self) -> None:
        """Create what the command needs. It runs before every start, so it must be idempotent."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @abstractmethod
    def command(self) -> Command:
        """Return what to run."""

    @abstractmethod
    def is_healthy(self) -> bool:
        """Tell whether the service answers now. It must be quick, and must not raise if the server is away."""

    def set_up(self) -> None:  # noqa: B027  # most services have nothing to set up
        """Create accounts and similar things once the service is healthy. It runs after every start: be idempotent."""


def answers(url: str, *, expected: int = 200) -> bool:
    """Tell whether a GET has the expected status.

    It uses only the standard library, because an httpx client loads all CAs of the machine, and this runs ten times a
    second.
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
