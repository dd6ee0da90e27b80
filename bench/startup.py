"""What a command costs from its start to its end: CPU seconds and the most memory.

uv run python -m bench.startup --count 10
"""

import argparse
import asyncio
import os
import statistics
import sys
from functools import partial

from bench.applications import THIN, manifest
from bench.platform import BenchPlatform, keep, run_on_platform
from clients.resources import APPLICATIONS

NAMESPACE = "bench-startup"
APPLICATION = "startup"
COMMANDS = {
    "--help": ["--help"],
    "status --help": ["status", "--help"],
    "status": ["status", "--namespace", NAMESPACE],
    "pause": ["pause", APPLICATION, "--namespace", NAMESPACE],
    "resume": ["resume", APPLICATION, "--namespace", NAMESPACE],
    "explain": ["explain", APPLICATION, "--namespace", NAMESPACE],
    "infra status": ["infra", "status"],
}
# The command itself reports its largest memory, because wait4's figure would also count this process.
TOLD_AT = 9
PROGRAM = f"""
import atexit, os
@atexit.register
def tell():
    with open("/proc/self/status") as status:
        os.write({TOLD_AT}, next(line for line in status if line.startswith("VmHWM:")).encode())
from cli.main import app
app()
"""
# Seconds of CPU. Source: the issue "The house".
GOALS = {"--help": 0.25, "status": 0.8}


async def measure(ground: BenchPlatform, count: int) -> None:
    async with ground.namespace(NAMESPACE):
        await ground.kube.create(APPLICATIONS, manifest(NAMESPACE, APPLICATION, THIN), NAMESPACE)
        state = str(ground.platform.folders.state)
        results = {name: await asyncio.to_thread(cost, arguments, state, count) for name, arguments in COMMANDS.items()}
        await ground.kube.delete(APPLICATIONS, APPLICATION, NAMESPACE)
    print(f"{'':16}{'CPU s':>7}{'MB':>6}")
    for name, (seconds, megabytes) in results.items():
        goal = f"   (goal: {GOALS[name]} s)" if name in GOALS else ""
        print(f"{name:16}{seconds:>7.2f}{megabytes:>6.0f}{goal}")
    keep("startup", results)


def cost(arguments: list[str], state: str, count: int) -> tuple[float, float]:
    """Return a command's CPU seconds and its largest resident memory in MB, as the median of several runs.

    The first run does not count, because it may write the bytecode.
    """
    spent = [run(arguments, state) for _ in range(count + 1)][1:]
    return statistics.median(seconds for seconds, _ in spent), statistics.median(megabytes for _, megabytes in spent)


def run(arguments: list[str], state: str) -> tuple[float, float]:
    kept = {name: value for name, value in os.environ.items() if name not in ("KUBECONFIG", "TEMPORAL_ADDRESS")}
    reading, writing = os.pipe()
    files = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_WRONLY, 0) for descriptor in (1, 2)]
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", PROGRAM, *arguments],
        kept | {"PLATTR_STATE": state},
        file_actions=[(os.POSIX_SPAWN_DUP2, writing, TOLD_AT), *files],
    )
    os.close(writing)
    with open(reading) as told:  # noqa: PTH123  a descriptor
        memory = told.read()
    _, status, usage = os.wait4(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"plattr {' '.join(arguments)} ended with {code}")
    return usage.ru_utime + usage.ru_stime, int(memory.split()[1]) / 1000


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10)
    run_on_platform(partial(measure, count=parser.parse_args().count))
