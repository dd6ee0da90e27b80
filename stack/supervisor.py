"""The daemon that keeps one platform's processes running; one per state folder."""

import fcntl
import os
import signal
import sys
import threading
import time
from types import FrameType

from stack.control import Control, Report, Wish
from stack.folders import Folders
from stack.processes import ProcessIdentity, end
from stack.registry import PROCESSES, requirements
from stack.services.application import APPS
from stack.services.base import Site
from stack.settings import StateSettings
from stack.unit import Unit

# A process that ignores its signal gets SIGKILL after its grace: apps 30 s, Keycloak 20, API server and etcd 10 each.
STOP_SECONDS = 75.0


class Supervisor:
    """Reads wishes, runs a unit for each process, publishes reports."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self.control = Control(folders)
        self.settings = StateSettings.load(folders)
        self._wake = threading.Event()
        self._closing = False
        self._units: dict[str, Unit] = {}
        self._serial = 0

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT; returns the exit code."""
        # Held until the process ends, however it ends.
        lock = (self.folders.run / "supervisor.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"cannot supervise {self.folders.state}: another supervisor does\n")
            return 1
        self.control.write_supervisor(ProcessIdentity.of(os.getpid(), sys.executable))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._end_leftovers()
        while not self._closing:
            wish = self.control.wish()
            if wish.serial != self._serial:
                self._follow(wish)
            self._publish()
            # A signal says that there is a new wish; the five seconds are for one that got lost.
            self._wake.wait(timeout=5)
            self._wake.clear()
        self._stop_all()
        self._publish()
        return 0

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._closing = self._closing or number != signal.SIGHUP
        self._wake.set()

    def _end_leftovers(self) -> None:
        """End what a killed predecessor left, those first that need others: an API server waits long for its etcd."""
        for name in reversed(list(PROCESSES)):
            leftover = ProcessIdentity.read(self.control.process_file(name))
            if leftover is not None:
                end(leftover, number=PROCESSES[name].stop_signal)
                self.control.process_file(name).unlink(missing_ok=True)

    def _follow(self, wish: Wish) -> None:
        site = Site(self.folders, self.settings, wish.tools)
        for name in wish.processes:
            if name not in self._units:
                self._units[name] = Unit(PROCESSES[name](site), self.control, self._wake.set)
                self._units[name].start()
            self._units[name].service.site = site
        for name, unit in self._units.items():
            needed = tuple(self._units[other] for other in requirements(name, wish.up))
            unit.want(wanted=name in wish.up, requirements=needed)
        self._serial = wish.serial

    def _publish(self) -> None:
        statuses = tuple(self._units[name].status() for name in PROCESSES if name in self._units)
        report = Report(serial=self._serial, services=statuses)
        if report != self.control.report():
            self.control.write_report(report)

    def _stop_all(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        # What needs others stops before them: apps, everything else, the API server, etcd.
        last = ("kube-apiserver", "etcd")
        middle = tuple(name for name in PROCESSES if name not in (*APPS, *last))
        for stage in (APPS, middle, *((name,) for name in last)):
            units = [self._units[name] for name in stage if name in self._units]
            for unit in units:
                unit.want(wanted=False)
            for unit in units:
                unit.wait_stopped(max(0.1, deadline - time.monotonic()))
            self._publish()
