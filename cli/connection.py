"""Where the commands' Kubernetes and Temporal are, and how their errors reach a person."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
import yaml
from temporalio.client import Client
from temporalio.service import RPCError

from cli.environment import settings
from clients.kube import KubeClient
from clients.temporal import connect_temporal, translated
from plattr.denials import printable
from plattr.errors import PlattrError

FIELD_MANAGER = "plattr-cli"
EXIT_FAILED = 1
EXIT_TIMEOUT = 3
# As a shell has it for a program that was interrupted.
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Session:
    """The connections of one command."""

    kube: KubeClient
    temporal: Client
    default_namespace: str
    lease_namespace: str


@asynccontextmanager
async def connected() -> AsyncIterator[Session]:
    """Connect; Temporal is only reached by the first call that needs it."""
    chosen = settings()
    kubeconfig = chosen.get("KUBECONFIG")
    kube = await KubeClient.connect(kubeconfig, field_manager=FIELD_MANAGER, redact=False)
    try:
        yield Session(
            kube=kube,
            temporal=await connect_temporal(environment=dict(chosen)),
            default_namespace=_context_namespace(kubeconfig),
            lease_namespace=chosen.get("LEASE_NAMESPACE") or "plattr-system",
        )
    finally:
        await kube.close()


def perform(work: Callable[[Session], Awaitable[int]]) -> None:
    """Run a command's work with its connections and exit with the code it returns.

    An error becomes one line on the standard error and exit code 1; PLATTR_DEBUG=1 shows where it came from.
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


def complain(text: str) -> None:
    """Write one line to the standard error; line breaks and a terminal's commands become blanks."""
    sys.stderr.write(" ".join(printable(text).split()) + "\n")


def say(text: str) -> None:
    """Write one line to the standard output at once, also into a pipe; a terminal's commands become blanks."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def _words(error: Exception) -> str:
    if isinstance(error, PlattrError):
        return str(error)
    if isinstance(error, RPCError):
        return str(translated(error, "ask Temporal"))
    return f"cannot go on: unexpected {type(error).__name__}: {error}; PLATTR_DEBUG=1 shows where"


def _context_namespace(kubeconfig: str | None) -> str:
    """Return the namespace of the kubeconfig's current context, as kubectl does."""
    # Several files may be joined as in kubectl; the first decides.
    path = Path((kubeconfig or "~/.kube/config").split(os.pathsep)[0]).expanduser()
    if not path.exists():
        return "default"
    config = yaml.safe_load(path.read_text()) or {}
    for context in config.get("contexts") or []:
        if context.get("name") == config.get("current-context"):
            return str((context.get("context") or {}).get("namespace") or "default")
    return "default"
