"""The daemon that keeps the processes of one platform running. Each state folder has one."""

import fcntl
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import TextIO

from plattr.local_platform import SUPERVISOR_LOCK
from stack.control import ActualState, Control, DesiredState, ServiceStatus
from stack.doorbell import Doorbell
from stack.folders import Folders
from stack.processes import ProcessIdentity, end
from stack.registry import ON_DEMAND, PROCESSES, SERVICES, TOOLS, processes_of, requirements, services_of
from stack.services.application import APPS
from stack.services.base import Site
from stack.settings import StateSettings
from stack.tools.resolve import link_tools, resolve_tools
from stack.unit import Unit

# A command that checks for a supervisor holds the lock for some microseconds.
LOCK_SECONDS = 1.0
# A process that ignores its signal gets SIGKILL after its grace: apps 30 s, Keycloak 20 s, API server and etcd 10 s
# each.
STOP_SECONDS = 75.0


def say(line: str) -> None:
    """Write a line to the supervisor's own log."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def take_lock(lock: TextIO) -> bool:
    """Take the supervisor's lock; False if another supervisor has it."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


class Supervisor:
    """Read the desired state, run a unit for each process, and publish the actual state."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self.control = Control(folders)
        self.settings = StateSettings.load(folders)
        self._wake = threading.Event()
        self._closing = False
        self._units: dict[str, Unit] = {}
        self._serial = 0
        self._bells = {name: self._doorbell(name) for name in ON_DEMAND}

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT; return the exit code."""
        # The lock is held until the process ends, however it ends.
        lock = (self.folders.state / SUPERVISOR_LOCK).open("a")
        if not take_lock(lock):
            sys.stderr.write(f"cannot supervise {self.folders.state}: another supervisor does\n")
            return 1
        self.control.write_supervisor(ProcessIdentity.of(os.getpid(), sys.executable))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._end_leftovers()
        while not self._closing:
            desired = self.control.desired()
            if desired.serial != self._serial:
                self._follow(desired)
            self._publish()
            # A signal announces a new desired state. The timeout of five seconds covers a lost signal.
            self._wake.wait(timeout=5)
            self._wake.clear()
        self._stop_all()
        self._publish()
        return 0

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._closing = self._closing or number != signal.SIGHUP
        self._wake.set()

    def _end_leftovers(self) -> None:
        """End what a killed supervisor left, dependents first: an API server waits long for a missing etcd."""
        for name in reversed(list(PROCESSES)):
            leftover = ProcessIdentity.read(self.control.process_file(name))
            if leftover is not None:
                end(leftover, number=PROCESSES[name].stop_signal)
                self.control.process_file(name).unlink(missing_ok=True)

    def _follow(self, desired: DesiredState) -> None:
        for name, bell in self._bells.items():
            # Before the unit starts, because its port must be free by then.
            if desired.processes and name in services_of(desired.processes):
                bell.take_down()
        site = Site(self.folders, self.settings, desired.tools)
        for name in desired.processes:
            if name not in self._units:
                self._units[name] = Unit(PROCESSES[name](site), self.control, self._wake.set)
                self._units[name].start()
            self._units[name].service.site = site
        for name, unit in self._units.items():
            needed = tuple(self._units[other] for other in requirements(name, desired.up))
            unit.want(wanted=name in desired.up, requirements=needed)
        self._serial = desired.serial

    def _publish(self) -> None:
        statuses = {name: self._units[name].status() for name in PROCESSES if name in self._units}
        self._tend_bells(statuses)
        report = ActualState(
            serial=self._serial, services=tuple(statuses[name] for name in PROCESSES if name in statuses)
        )
        if report != self.control.report():
            self.control.write_report(report)

    def _tend_bells(self, statuses: dict[str, ServiceStatus]) -> None:
        """Listen for connections to each service that no client has used yet, and report it as on demand."""
        for name, bell in self._bells.items():
            parts = [process.name for process in SERVICES[name]]
            started = [statuses[part].state for part in parts if part in statuses]
            if not started:
                if not self._closing:
                    bell.put_up()
                for part in parts:
                    statuses[part] = ServiceStatus(
                        service=part, state="on demand", log=self.folders.log(part), message=bell.message
                    )
            elif all(state in ("running", "failed", "stopped") for state in started):
                bell.let_go()

    def _doorbell(self, name: str) -> Doorbell:
        """Return the doorbell of a service. A connection fetches its tools and adds it to the desired state."""
        site = Site(self.folders, self.settings, {})
        process = SERVICES[name][0]

        def start() -> None:
            tools = resolve_tools(TOOLS[name], exclude=self.folders.bin, tell=say)
            self.control.change(add=processes_of([name]), tools=link_tools(tools, self.folders.bin))
            self._wake.set()

        return Doorbell(name, site.port(process.ports[0]), start)

    def _stop_all(self) -> None:
        for bell in self._bells.values():
            bell.take_down()
            bell.let_go()
        deadline = time.monotonic() + STOP_SECONDS
        # Dependents stop before what they need: apps, everything else, the API server, etcd.
        last = ("kube-apiserver", "etcd")
        middle = tuple(name for name in PROCESSES if name not in (*APPS, *last))
        for stage in (APPS, middle, *((name,) for name in last)):
            units = [self._units[name] for name in stage if name in self._units]
            for unit in units:
                unit.want(wanted=False)
            for unit in units:
                unit.wait_stopped(max(0.1, deadline - time.monotonic()))
            self._publish()
