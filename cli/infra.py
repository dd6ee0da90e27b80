"""`plattr infra`: manage the local platform's services."""

import datetime as dt
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from cli.output import command
from plattr.errors import PlattrError
from stack.control import ServiceStatus
from stack.errors import PlatformError
from stack.platform import Platform
from stack.registry import processes_of

app = typer.Typer(help="Manage the services of the local platform.", no_args_is_help=True)
COLOURS = {"running": "green", "failed": "red", "restarting": "yellow", "stopped": "dim", "on demand": "dim"}
Service = Annotated[
    str | None,
    typer.Argument(help="temporal, postgres, s3, keycloak, kubernetes, redis, opensearch, or the name of a process."),
]


@contextmanager
def reported() -> Iterator[None]:
    """Turn an error of Plattr into one line and exit code 1."""
    try:
        yield
    except PlattrError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from None


@app.command()
def init() -> None:
    """Download or build every tool, start all services, and print their addresses."""
    with reported():
        platform = Platform()
        platform.start()
        show_endpoints(platform)


@app.command()
def start(service: Service = None) -> None:
    """Start all services, or one service."""
    with reported():
        platform = Platform()
        if service is None or not platform.is_running:
            platform.start() if service is None else platform.start(services=[service])
        else:
            platform.start_service(service)
        show_status(platform)


@app.command()
def stop(service: Service = None) -> None:
    """Stop everything, or one service; that one stays down until it is started."""
    with reported():
        platform = Platform()
        if service is None:
            platform.stop()
        else:
            platform.stop_service(service)
        show_status(platform)


@app.command()
def status() -> None:
    """Show the state, address, restarts and log of each process."""
    with reported():
        platform = Platform()
        show_status(platform)
        if not platform.is_running:
            raise typer.Exit(1)


@app.command()
def logs(
    service: Annotated[
        str, typer.Argument(help="A service, a process, worker or watcher; `supervisor` for the supervisor.")
    ],
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines to print.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines as they are written.")] = False,
) -> None:
    """Print the last lines of a service's log."""
    with reported():
        folders = Platform().folders
        names = ("supervisor",) if service == "supervisor" else processes_of([service])
        paths = [path for path in map(folders.log, names) if path.exists()]
        if not paths:
            raise PlatformError(f"cannot read the log of {service}: it has none in {folders.logs}; it never ran")
        for path in paths:
            if len(paths) > 1:
                sys.stdout.write(f"==> {path} <==\n")
            sys.stdout.write("".join(path.read_text(errors="replace").splitlines(keepends=True)[-lines:]))
        if follow:
            _follow(paths[-1])


@app.command()
def environment(role: Annotated[str, typer.Argument(help="worker, watcher or cli.")] = "cli") -> None:
    """Print the platform's settings as shell exports: eval "$(plattr infra environment)"."""
    with reported():
        platform = Platform()
        for name, value in platform.environment(role).items():
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
        # Besides the tools, PATH gets the virtual environment's programs, which include plattr.
        folders = f"{platform.endpoints.bin_dir}:{Path(sys.executable).parent}"
        sys.stdout.write(f'export PATH={shlex.quote(folders)}:"$PATH"\n')


@app.command()
def destroy(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False) -> None:
    """Stop everything and delete the state folder: databases, buckets, realms, the cluster."""
    with reported():
        platform = Platform()
        state = platform.folders.state
        if not state.exists():
            sys.stdout.write(f"nothing to delete: {state} does not exist\n")
            return
        if not (platform.folders.run / "settings.json").exists():
            raise PlatformError(f"cannot delete {state}: it holds no platform's state; check PLATTR_STATE")
        if not yes:
            typer.confirm(f"Delete {state} with all databases, buckets, realms and the cluster?", abort=True)
        platform.stop()
        shutil.rmtree(state)
        sys.stdout.write(f"deleted {state}\n")


def show_status(platform: Platform) -> None:
    """Print the table of processes."""
    state = platform.folders.state
    table = Table(title=f"{state}: log paths are below it", title_justify="left", box=box.SIMPLE)
    for column in ("service", "state", "address", "pid", "for", "restarts", "log"):
        table.add_column(column, overflow="fold", no_wrap=column not in {"address", "log"})
    entries = platform.status()
    for entry in entries:
        table.add_row(*_cells(entry, state))
    # A pipe has no width. 160 is enough for every column, so that grep finds whole paths.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table if entries else f"{state}: never started")
    for entry in entries:
        if entry.message:
            console.print(f"{entry.service}: {entry.message}", markup=False, highlight=False)


def show_endpoints(platform: Platform) -> None:
    """Print the addresses for a person, without passwords; `plattr infra environment` prints those."""
    endpoints = platform.endpoints
    rows = {
        "Temporal UI": endpoints.temporal_ui,
        "Temporal": endpoints.temporal_address,
        "Kubernetes": f"export KUBECONFIG={shlex.quote(str(endpoints.kubeconfig_admin))}",
        "PostgreSQL": f"{endpoints.database_host}:{endpoints.database_port}/{endpoints.database_name}",
        "S3": endpoints.s3_url,
        "Keycloak": f"{endpoints.keycloak_url}/admin (user {endpoints.keycloak_admin_user})",
        "Redis": f"127.0.0.1:{endpoints.redis_port}, started by the first connection",
        "OpenSearch": f"{endpoints.opensearch_url}, started by the first connection",
        "Tools": f'export PATH={shlex.quote(str(endpoints.bin_dir))}:"$PATH"',
        "Logs": str(endpoints.log_dir),
        "Settings": f'eval "$({command()} infra environment)"',
    }
    for name, value in rows.items():
        sys.stdout.write(f"{name:12}{value}\n")


def _cells(entry: ServiceStatus, state: Path) -> tuple[str, ...]:
    colour = COLOURS.get(entry.state, "cyan")
    return (
        entry.service,
        f"[{colour}]{entry.state}[/]",
        entry.address,
        "" if entry.pid is None else str(entry.pid),
        "" if entry.since is None else _ago(entry.since),
        str(entry.restarts),
        str(entry.log.relative_to(state)),
    )


def _ago(moment: dt.datetime) -> str:
    return str(dt.timedelta(seconds=int((dt.datetime.now(dt.UTC) - moment).total_seconds())))


def _follow(path: Path) -> None:
    with path.open(errors="replace") as file:
        file.seek(0, 2)
        try:
            while True:
                text = file.read()
                sys.stdout.write(text)
                sys.stdout.flush()
                if not text:
                    time.sleep(0.3)
        except KeyboardInterrupt:
            return
