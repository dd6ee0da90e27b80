"""`plattr dev`: run the whole local platform in the foreground."""

import signal
import sys
import time
from types import FrameType
from typing import Annotated

import typer

from cli.infra import reported, show_endpoints
from cli.output import command
from stack.platform import Platform
from stack.services.application import APPS


def dev(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave the platform running and return.")] = False,
) -> None:
    """Start the local platform with worker and watcher, print its addresses, stop it on Ctrl-C."""
    with reported():
        platform = Platform()
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            began = time.monotonic()
            platform.start(apps=APPS)
            sys.stdout.write(f"the local platform runs after {time.monotonic() - began:.1f} s\n\n")
            show_endpoints(platform)
            if detach:
                sys.stdout.write(f"\n{command()} infra stop ends it\n")
                return
            sys.stdout.write("\nCtrl-C stops it\n")
            sys.stdout.flush()
            _watch(platform)
        except KeyboardInterrupt:
            sys.stdout.write("\nstopping\n")
            sys.stdout.flush()
            platform.stop()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _watch(platform: Platform) -> None:
    """Print changes, and restart a supervisor that was killed. Returns when the platform is stopped elsewhere."""
    known = {status.service: status.state for status in platform.status()}
    while True:
        time.sleep(1)
        if not platform.is_running:
            if all(status.state == "stopped" for status in platform.status()):
                sys.stdout.write("the local platform was stopped\n")
                return
            sys.stdout.write("the supervisor is gone: starting again\n")
            platform.start(apps=APPS)
        states = {status.service: status.state for status in platform.status()}
        for name, state in states.items():
            if known.get(name) != state:
                sys.stdout.write(f"{name}: {state}\n")
        sys.stdout.flush()
        known = states
