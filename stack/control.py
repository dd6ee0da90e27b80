"""Files in the state folder, through which the supervisor and its callers exchange states."""

import datetime as dt
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from stack.folders import Folders, locked, write_private
from stack.processes import ProcessIdentity

State = Literal["waiting", "starting", "running", "restarting", "stopping", "stopped", "failed", "on demand"]


class ServiceStatus(BaseModel):
    """One process of the platform, as its supervisor sees it."""

    model_config = ConfigDict(frozen=True)

    service: str
    state: State
    address: str = ""
    pid: int | None = None
    since: dt.datetime | None = None
    restarts: int = 0
    log: Path
    message: str = ""


class DesiredState(BaseModel):
    """Which `processes` should run, except those that are `held` down. Each change raises `serial`."""

    model_config = ConfigDict(frozen=True)

    serial: int = 0
    processes: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    tools: dict[str, Path] = {}

    @property
    def up(self) -> tuple[str, ...]:
        """The processes that should run now."""
        return tuple(name for name in self.processes if name not in self.held)


class ActualState(BaseModel):
    """The supervisor's answer: the serial of the last desired state it has seen, and the state of each process."""

    model_config = ConfigDict(frozen=True)

    serial: int = 0
    services: tuple[ServiceStatus, ...] = ()


class Control:
    """The files `desired.json`, `actual.json` and `supervisor.json` of one state folder."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self._desired = folders.run / "desired.json"
        self._report = folders.run / "actual.json"
        self._supervisor = folders.run / "supervisor.json"

    def desired(self) -> DesiredState:
        """Return the last desired state."""
        return DesiredState.model_validate_json(self._desired.read_text()) if self._desired.exists() else DesiredState()

    def change(
        self,
        *,
        add: tuple[str, ...] = (),
        hold: tuple[str, ...] = (),
        tools: dict[str, Path] | None = None,
        fresh: bool = False,
    ) -> DesiredState:
        """Add processes (which ends their hold) or hold some down; `fresh` discards the old desired state."""
        with locked(self.folders.run / "desired.lock"):
            old = self.desired()
            if fresh:
                old = DesiredState(serial=old.serial)
            desired = DesiredState(
                serial=old.serial + 1,
                processes=(*old.processes, *(name for name in add if name not in old.processes)),
                held=tuple(name for name in {*old.held, *hold} if name not in add),
                tools=old.tools | (tools or {}),
            )
            write_private(self._desired, desired.model_dump_json())
        return desired

    def report(self) -> ActualState:
        """Return the supervisor's last report. If the supervisor is dead, the report may be outdated."""
        return ActualState.model_validate_json(self._report.read_text()) if self._report.exists() else ActualState()

    def write_report(self, report: ActualState) -> None:
        """Publish the supervisor's report."""
        write_private(self._report, report.model_dump_json())

    def supervisor(self) -> ProcessIdentity | None:
        """Return the supervisor if it is alive."""
        identity = ProcessIdentity.read(self._supervisor)
        return identity if identity is not None and identity.process() is not None else None

    def write_supervisor(self, identity: ProcessIdentity) -> None:
        """Record which process supervises."""
        write_private(self._supervisor, identity.model_dump_json())

    def process_file(self, process: str) -> Path:
        """Return the file with a running process's identity, which is needed to end the process later."""
        return self.folders.run / f"{process}.process.json"
