"""The local platform for its users and tests: start, stop, ask."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from plattr.local_platform import COMMAND_SETTINGS
from stack.control import ActualState, Control, ServiceStatus
from stack.endpoints import Endpoints, environment
from stack.errors import PlatformError
from stack.folders import Folders, default_state, locked, write_private
from stack.processes import ProcessIdentity, end, last_lines, signal_group
from stack.registry import ALL, PROCESSES, TOOLS, processes_of, services_of
from stack.services.base import Site
from stack.services.cluster import Cluster
from stack.settings import StateSettings
from stack.tools.resolve import link_tools, resolve_tools

__all__ = ["ALL", "Platform"]

# Keycloak may take 180 s to start. Three attempts of a process that dies at once end much earlier.
START_SECONDS = 240.0
STOP_SECONDS = 90.0
# This process starts the supervisor and ends at once. So the supervisor survives its caller and leaves no zombie.
LAUNCHER = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"


def say(line: str) -> None:
    """Tell a person about a long step."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class Platform:
    """One local platform, by default the user's own. Several can run side by side, each in its own state folder."""

    def __init__(self, state: Path | None = None, *, tell: Callable[[str], None] = say) -> None:
        self.folders = Folders(state=(state or default_state()).absolute())
        self.control = Control(self.folders)
        self._tell = tell

    def start(self, *, services: Sequence[str] = ALL, apps: Sequence[str] = ()) -> None:
        """Start what does not run yet, and return when all of it is healthy. Held services are started too.

        Raises:
            PlatformError: a tool is not available, or a service does not start. Names it, with its log's last lines.
        """
        wanted = processes_of([*services, *apps])
        self.folders.create()
        with locked(self.folders.run / "start.lock"):
            self._tell_commands()
            if not self._runs(wanted):
                self._start(wanted)
            self._apply_changed_manifests()

    def stop(self) -> None:
        """Stop all processes, also those that a killed supervisor left behind. The state stays."""
        supervisor = self.control.supervisor()
        if supervisor is not None:
            end(supervisor, grace_seconds=STOP_SECONDS)
        for name in reversed(list(PROCESSES)):
            leftover = ProcessIdentity.read(self.control.process_file(name))
            if leftover is not None:
                end(leftover, number=PROCESSES[name].stop_signal)
                self.control.process_file(name).unlink(missing_ok=True)

    def start_service(self, name: str) -> None:
        """Start a service, process or app on a running platform; return when it is healthy."""
        supervisor = self._supervisor()
        wanted = processes_of([name])
        desired = self.control.change(add=wanted, tools=self._tools(wanted))
        signal_group(supervisor.pid, signal.SIGHUP)
        self._await_running(wanted, desired.serial)

    def stop_service(self, name: str) -> None:
        """Stop a service, process or app and hold it down until the next start; return when it has stopped."""
        supervisor = self._supervisor()
        # In reverse order: an API server that has lost its etcd takes ten seconds to end.
        for process in reversed(processes_of([name])):
            desired = self.control.change(hold=(process,))
            signal_group(supervisor.pid, signal.SIGHUP)
            self._await(partial(_is_down, process), desired.serial, STOP_SECONDS, f"stop {process}")

    def kill_service(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal the processes of a service without warning, to simulate a fault; return when they are gone."""
        for process in processes_of([name]):
            identity = ProcessIdentity.read(self.control.process_file(process))
            if identity is None:
                raise PlatformError(f"cannot kill {process}: it is not running")
            end(identity, number=number)

    def status(self) -> list[ServiceStatus]:
        """Return each process as it is now. Without a supervisor it is running if it is still alive, else stopped."""
        report = self.control.report()
        alive = self.control.supervisor() is not None
        statuses = []
        for status in report.services:
            identity = ProcessIdentity.read(self.control.process_file(status.service))
            lives = identity is not None and identity.process() is not None
            if not alive:
                message = "not supervised; run plattr infra start" if lives else ""
                changes = {"state": "running" if lives else "stopped", "message": message}
                status = status.model_copy(update=changes if lives else changes | {"pid": None})
            elif status.state == "running" and not lives:
                status = status.model_copy(update={"state": "restarting", "pid": None})
            statuses.append(status)
        return statuses

    @property
    def is_running(self) -> bool:
        """Whether a supervisor runs for this state folder."""
        return self.control.supervisor() is not None

    @property
    def endpoints(self) -> Endpoints:
        """All addresses and credentials. They are known before the first start."""
        return Endpoints.of(self._site())

    def environment(self, role: str = "worker") -> dict[str, str]:
        """Return the settings for `worker`, `watcher` or `cli`; docs/settings.md lists them."""
        return environment(self.endpoints, role)

    def _tell_commands(self) -> None:
        """Write the file from which the commands learn about this platform."""
        told = {"settings": self.environment("cli"), "temporal_ui": self.endpoints.temporal_ui}
        write_private(self.folders.state / COMMAND_SETTINGS, json.dumps(told))

    def _site(self) -> Site:
        return Site(self.folders, StateSettings.load(self.folders), self.control.desired().tools)

    def _supervisor(self) -> ProcessIdentity:
        supervisor = self.control.supervisor()
        if supervisor is None:
            raise PlatformError(
                f"cannot reach the platform in {self.folders.state}: not running; run plattr infra start"
            )
        return supervisor

    def _runs(self, wanted: Sequence[str]) -> bool:
        running = {status.service for status in self.status() if status.state == "running"}
        return self.is_running and running.issuperset(wanted)

    def _tools(self, processes: Sequence[str]) -> dict[str, Path]:
        names = [tool for service in services_of(processes) for tool in TOOLS[service]]
        tools = resolve_tools(names, exclude=self.folders.bin, tell=self._tell)
        return link_tools(tools, self.folders.bin)

    def _start(self, wanted: tuple[str, ...]) -> None:
        tools = self._tools(wanted)
        supervisor = self.control.supervisor()
        desired = self.control.change(add=wanted, tools=tools, fresh=supervisor is None)
        if supervisor is not None:
            signal_group(supervisor.pid, signal.SIGHUP)
            self._await_running(wanted, desired.serial)
            return
        self._spawn_supervisor()
        try:
            self._await_running(wanted, desired.serial)
        except PlatformError:
            self.stop()
            raise

    def _spawn_supervisor(self) -> None:
        command = (sys.executable, "-m", "stack", "supervise", str(self.folders.state))
        with self.folders.log("supervisor").open("ab") as log:
            subprocess.run(
                [sys.executable, "-I", "-S", "-c", LAUNCHER, *command],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
                check=True,
            )

    def _await_running(self, wanted: Sequence[str], serial: int) -> None:
        def done(report: ActualState) -> bool:
            states = {status.service: status for status in report.services}
            for name in wanted:
                status = states.get(name)
                if status is not None and status.state == "failed":
                    raise PlatformError(f"cannot start {name}: {status.message}\n(log: {status.log})")
            return self._runs(wanted)

        self._await(done, serial, START_SECONDS, f"start {', '.join(wanted)}")

    def _await(self, done: Callable[[ActualState], bool], serial: int, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        # A supervisor needs a moment to import its modules and write its identity.
        appears_by = time.monotonic() + 20
        while time.monotonic() < deadline:
            report = self.control.report()
            if report.serial >= serial and done(report):
                return
            if self.control.supervisor() is None and time.monotonic() > appears_by:
                log = self.folders.log("supervisor")
                raise PlatformError(f"cannot {what}: the supervisor is gone\n{last_lines(log)}\n(log: {log})")
            time.sleep(0.05)
        states = ", ".join(f"{status.service} {status.state}" for status in self.control.report().services)
        raise PlatformError(f"cannot {what}: not done after {seconds:.0f} s ({states}); see {self.folders.logs}")

    def _apply_changed_manifests(self) -> None:
        """Apply CRDs and roles that changed since the start to a running cluster."""
        cluster = Cluster(self._site())
        if self._runs(processes_of(["kubernetes"])) and cluster.has_changed_manifests() and cluster.apply_manifests():
            # Without a restart it notices new kinds only after 30 s, and collects no garbage of theirs until then.
            self.kill_service("kube-controller-manager", signal.SIGTERM)
            self.start_service("kube-controller-manager")


def _is_down(process: str, report: ActualState) -> bool:
    return all(status.state == "stopped" for status in report.services if status.service == process)
