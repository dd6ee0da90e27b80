"""How commands connect to Kubernetes and Temporal, and how a person sees their errors."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
import yaml

from cli.environment import settings
from cli.output import complain
from clients.kube import KubeClient
from plattr.errors import PlattrError

if TYPE_CHECKING:
    from temporalio.client import Client

FIELD_MANAGER = "plattr-cli"
EXIT_FAILED = 1
EXIT_TIMEOUT = 3
# As in a shell, for a program that was interrupted.
EXIT_INTERRUPTED = 130


class Session:
    """The connections of one command."""

    def __init__(self, kube: KubeClient, chosen: Mapping[str, str]) -> None:
        """Hold a Kubernetes client, and the settings for a Temporal client, which is created when first needed."""
        self.kube = kube
        self.default_namespace = _context_namespace(chosen.get("KUBECONFIG"))
        self.lease_namespace = chosen.get("LEASE_NAMESPACE") or "plattr-system"
        self._settings = dict(chosen)
        self._temporal: Client | None = None

    async def temporal(self) -> "Client":
        """Return the Temporal client. It connects to Temporal at its first request.

        Raises:
            MissingSetting: the settings cannot be used.
        """
        if self._temporal is None:
            # Imported here: the library takes a third of a second, and half of the commands need no Temporal.
            from clients.temporal import connect_temporal

            self._temporal = await connect_temporal(environment=self._settings)
        return self._temporal


@asynccontextmanager
async def connected() -> AsyncIterator[Session]:
    """Connect to Kubernetes."""
    chosen = settings()
    kube = await KubeClient.connect(chosen.get("KUBECONFIG"), field_manager=FIELD_MANAGER, redact=False)
    try:
        yield Session(kube, chosen)
    finally:
        await kube.close()


def perform(work: Callable[[Session], Awaitable[int]]) -> None:
    """Run a command's work with its connections, and exit with the code that it returns.

    An error becomes one line on the standard error and exit code 1. PLATTR_DEBUG=1 shows where it came from.
    """

    async def connect_and_work() -> int:
        async with connected() as session:
            return await work(session)

    try:
        code = asyncio.run(connect_and_work())
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if os.environ.get("PLATTR_DEBUG") == "1":
            raise
        complain(_words(error))
        code = EXIT_FAILED
    raise typer.Exit(code)


def _words(error: Exception) -> str:
    if isinstance(error, PlattrError):
        return str(error)
    # Imported here: either the library is already imported, or there is a fault to find.
    from temporalio.service import RPCError

    from clients.temporal import translated

    if isinstance(error, RPCError):
        return str(translated(error, "ask Temporal"))
    return f"cannot continue: unexpected {type(error).__name__}: {error}; PLATTR_DEBUG=1 shows where"


def _context_namespace(kubeconfig: str | None) -> str:
    """Return the namespace of the kubeconfig's current context, as kubectl does."""
    # Several files may be joined, as in kubectl. The first one decides.
    path = Path((kubeconfig or "~/.kube/config").split(os.pathsep)[0]).expanduser()
    if not path.exists():
        return "default"
    config = yaml.safe_load(path.read_text()) or {}
    for context in config.get("contexts") or []:
        if context.get("name") == config.get("current-context"):
            return str((context.get("context") or {}).get("namespace") or "default")
    return "default"
