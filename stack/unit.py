"""One supervised process: started when its requirements are healthy, and restarted when it dies."""

import datetime as dt
import signal
import subprocess
import threading
import time
from collections.abc import Callable

import psutil

from stack.control import Control, ServiceStatus, State
from stack.errors import PlatformError
from stack.folders import write_private
from stack.processes import Command, ProcessIdentity, end, last_lines, signal_group, spawn
from stack.services.base import Service
from stack.settings import port_is_free

# A failed start is retried at once: a port may be in TIME_WAIT, or a postmaster's children may still be dying. After
# this many attempts the process counts as failed.
ATTEMPTS = 3
# A process that has been healthy once is restarted forever, with ever longer pauses.
FIRST_BACKOFF_SECONDS, LAST_BACKOFF_SECONDS = 0.2, 10.0
# A process that listens on nothing counts as healthy only if it has not exited within this time.
SILENT_SECONDS = 0.5
LOG_BYTES = 20 * 2**20


class Unit(threading.Thread):
    """One process from start to stop, in its own thread."""

    def __init__(self, service: Service, control: Control, changed: Callable[[], None]) -> None:
        super().__init__(name=service.name, daemon=True)
        self.service = service
        self.control = control
        self.log = control.folders.log(service.name)
        self._changed = changed
        self._condition = threading.Condition()
        self._wanted = False
        self._requirements: tuple[Unit, ...] = ()
        self._state: State = "stopped"
        self._since = _now()
        self._pid: int | None = None
        self._restarts = 0
        self._failures = 0
        self._was_healthy = False
        self._message = ""
        self._log_start = 0

    def status(self) -> ServiceStatus:
        """Return the current status of the process."""
        with self._condition:
            return ServiceStatus(
                service=self.service.name,
                state=self._state,
                address=self.service.address,
                pid=self._pid,
                since=self._since,
                restarts=self._restarts,
                log=self.log,
                message=self._message,
            )

    @property
    def is_running(self) -> bool:
        """Whether the process is healthy and set up."""
        return self._state == "running"

    def want(self, *, wanted: bool, requirements: "tuple[Unit, ...]" = ()) -> None:
        """Ask the process to run or to stop. A failed process is tried again."""
        with self._condition:
            self._requirements = requirements
            if wanted and self._state == "failed":
                self._set("waiting")
                self._failures = 0
            if wanted and not self._wanted:
                self._failures = 0
            self._wanted = wanted
            pid = self._pid
            self._condition.notify_all()
        if not wanted and pid is not None:
            threading.Thread(target=self._end, args=(pid,), daemon=True).start()

    def wait_stopped(self, timeout_seconds: float) -> None:
        """Wait until the process has stopped."""
        with self._condition:
            self._condition.wait_for(lambda: self._state == "stopped", timeout_seconds)

    def run(self) -> None:
        """Start the process, wait for its end, and restart it, forever."""
        while True:
            with self._condition:
                if not self._wanted and self._state != "stopped":
                    self._set("stopped", message="")
                self._condition.wait_for(lambda: self._wanted)
                self._condition.wait_for(lambda: self._state != "failed" or not self._wanted)
            if not self._requirements_met():
                continue
            process = self._start()
            if process is None:
                continue
            code = process.wait()
            self._gone(process)
            with self._condition:
                if self._wanted:
                    self._restarts += 1
                    self._set("restarting", message=_exit(code))
            self._pause()

    def _requirements_met(self) -> bool:
        with self._condition:
            if self._state == "stopped":
                self._set("waiting", message="")
        while any(not unit.is_running for unit in self._requirements):
            with self._condition:
                # A change of a requirement sends no notification, so the wait is short.
                if self._condition.wait_for(lambda: not self._wanted, timeout=0.1):
                    return False
        return self._wanted

    def _start(self) -> subprocess.Popen[bytes] | None:
        """Start and set up the process; on failure return None after the back-off."""
        process = None
        began = time.monotonic()
        try:
            with self._condition:
                self._set("starting")
            self._clear_the_ground()
            self.service.prepare()
            process = self._spawn(self.service.command())
            self._await_health(process, began)
            self.service.set_up()
        except Exception as error:  # noqa: BLE001  # whatever a start raises is this service's failure: its status says so
            self._fail(process, error)
            return None
        with self._condition:
            self._was_healthy, self._failures = True, 0
            self._set("running", message="")
        return process

    def _clear_the_ground(self) -> None:
        leftover = ProcessIdentity.read(self.control.process_file(self.service.name))
        if leftover is not None:
            end(leftover, number=self.service.stop_signal, grace_seconds=self.service.stop_grace_seconds)
        for name in self.service.ports:
            port = self.service.site.port(name)
            if not port_is_free(port):
                variable = f"PLATTR_PORT_{name.upper().replace('-', '_')}"
                raise PlatformError(f"port {port} is held by another process; end that one, or set {variable}")
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        self._log_start = self.log.stat().st_size if self.log.exists() else 0

    def _spawn(self, command: Command) -> subprocess.Popen[bytes]:
        process = spawn(command, self.log)
        with self._condition:
            self._pid = process.pid
        try:
            identity = ProcessIdentity.of(process.pid, command.arguments[0])
        except psutil.NoSuchProcess:
            raise PlatformError(_exit(process.wait())) from None
        write_private(self.control.process_file(self.service.name), identity.model_dump_json())
        self._changed()
        return process

    def _await_health(self, process: subprocess.Popen[bytes], began: float) -> None:
        deadline = began + self.service.healthy_within_seconds
        earliest = time.monotonic() + (0 if self.service.ports else SILENT_SECONDS)
        while True:
            if process.poll() is not None:
                raise PlatformError(f"{_exit(process.returncode)} after {time.monotonic() - began:.1f} s")
            if not self._wanted:
                raise PlatformError("preempted")
            if time.monotonic() >= earliest and self.service.is_healthy():
                return
            if time.monotonic() > deadline:
                raise PlatformError(f"not healthy after {self.service.healthy_within_seconds:.0f} s")
            time.sleep(0.1)

    def _fail(self, process: subprocess.Popen[bytes] | None, error: Exception) -> None:
        if process is not None:
            signal_group(process.pid, self.service.stop_signal)
            try:
                process.wait(self.service.stop_grace_seconds)
            except subprocess.TimeoutExpired:
                signal_group(process.pid, signal.SIGKILL)
                process.wait()
            self._gone(process)
        lines = last_lines(self.log, start=self._log_start)
        with self._condition:
            self._failures += 1
            given_up = self._failures >= ATTEMPTS and not self._was_healthy
            if self._wanted:
                self._set("failed" if given_up else "restarting", message=f"{error}\n{lines}".strip())
        if not given_up:
            self._pause()

    def _gone(self, process: subprocess.Popen[bytes]) -> None:
        # The leader is dead, but its children may live: for example kc.sh's Java after a kill -9 of kc.sh.
        signal_group(process.pid, signal.SIGKILL)
        with self._condition:
            self._pid = None
            self._condition.notify_all()
        self.control.process_file(self.service.name).unlink(missing_ok=True)

    def _end(self, pid: int) -> None:
        with self._condition:
            self._set("stopping")
            signal_group(pid, self.service.stop_signal)
            if not self._condition.wait_for(lambda: self._pid != pid, self.service.stop_grace_seconds):
                signal_group(pid, signal.SIGKILL)

    def _pause(self) -> None:
        seconds = min(FIRST_BACKOFF_SECONDS * 2**self._failures, LAST_BACKOFF_SECONDS)
        with self._condition:
            self._condition.wait_for(lambda: not self._wanted, timeout=seconds)

    def _set(self, state: State, message: str | None = None) -> None:
        self._state = state
        self._since = _now()
        if message is not None:
            self._message = message
        self._condition.notify_all()
        self._changed()


def _exit(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
