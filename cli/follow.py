"""Follow an object to the end of its run, with one line for each step as it happens."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from cli.claims import claim_words, held_claims
from cli.connection import EXIT_FAILED, EXIT_TIMEOUT, Session
from cli.formatting import clock, duration, failures
from cli.objects import shown_phase
from cli.runs import WORKER_AWAY, Run, read_run
from clients.resources import custom_resource
from clients.temporal import is_cleanup
from plattr.errors import Transient
from plattr.objects import CustomObject, ObjectReference

# 0.3 s: quicker than a person notices, slow enough for many terminals at once.
POLL_SECONDS = 0.3
# 3 s: a run that is alive needs milliseconds to decide. A run whose worker died must not delay the command.
OUTLOOK_SECONDS = 3.0


async def latest_run_id(session: Session, reference: ObjectReference) -> str:
    """Return the id of a closed run that already exists, so that its steps are not shown as new ones."""
    run = await read_run(await session.temporal(), reference, with_progress=False)
    return run.run_id if run is not None and not run.is_open else ""


async def follow_all(
    session: Session, objects: Sequence[tuple[CustomObject, str]], timeout: timedelta, tell: Callable[[str], None]
) -> int:
    """Follow each object until its spec is Running or Failed; return the command's exit code.

    Args:
        session: the connections.
        objects: each object as it was applied, with the id of its last run that was closed before.
        timeout: the limit for all objects together.
        tell: takes each line.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    codes = await asyncio.gather(
        *(Follower(session, found, old_run, deadline, tell).follow() for found, old_run in objects)
    )
    # A failure is more important than a timeout.
    return EXIT_FAILED if EXIT_FAILED in codes else max(codes, default=0)


class Narrator:
    """Print the progress of one object's runs, each line once."""

    def __init__(self, session: Session, reference: ObjectReference, tell: Callable[[str], None]) -> None:
        self._session = session
        self._reference = reference
        self._tell = tell
        self._began = time.monotonic()
        self._said: set[tuple[object, ...]] = set()

    def _report(self, run: Run) -> None:
        progress = run.progress
        if progress is None:
            self._once((run.run_id, "silent"), WORKER_AWAY)
            return
        for step in progress.done:
            took = progress.took.get(step)
            self._once((run.run_id, progress.round, step), f"✓ {step}  {duration(took) if took else ''}".rstrip())
        if progress.waiting_for:
            waits = f"… {progress.step} waits for {progress.waiting_for}"
            self._once((run.run_id, progress.round, progress.step, "waits"), waits)
        attempt = run.attempt
        if attempt is not None and attempt.last_failure and attempt.number > 1:
            # The failure is that of the previous attempt, not of the one that waits or runs.
            failed = attempt.number - 1
            retry = _retry(attempt.next_at)
            self._once(
                (run.run_id, progress.round, progress.step, failed),
                f"✗ {progress.step} attempt {failed} of {attempt.maximum} failed: {attempt.last_failure}{retry}",
            )
        if progress.next_retry is not None:
            # A cleanup never gives up, so its rounds are followed as well.
            again = f"… waits after round {progress.round}; the next begins at {clock(progress.next_retry)}"
            self._once((run.run_id, progress.round, "pause"), again)

    def _once(self, key: tuple[object, ...], text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self._line(text)

    def _line(self, text: str) -> None:
        self._tell(f"{self._reference.name}  {text}")

    def _end(self, text: str, code: int) -> int:
        self._line(text)
        return code


class Follower(Narrator):
    """Follow one object that was applied."""

    def __init__(
        self, session: Session, found: CustomObject, old_run: str, deadline: float, tell: Callable[[str], None]
    ) -> None:
        super().__init__(session, found.reference, tell)
        self._uid = found.metadata.uid
        self._generation = found.metadata.generation
        self._old_run = old_run
        self._deadline = deadline
        self._failed_at = 0.0

    async def follow(self) -> int:
        """Return 0 for Running, 1 for Failed or gone, 3 after the timeout."""
        while True:
            try:
                found = await self._read()
                if found is None:
                    return self._end(f"{self._reference} was deleted", EXIT_FAILED)
                # The object is read first. The run is then at least as new, so no step is missed.
                run = await read_run(await self._session.temporal(), self._reference)
            except Transient as error:
                self._once(("away", error.reason), f"{error}; trying again")
                found, run = None, None
            if run is not None and run.run_id != self._old_run:
                self._report(run)
            if found is not None and (code := self._verdict(found, run)) is not None:
                return code
            if time.monotonic() > self._deadline:
                return self._time_over(found, run)
            await asyncio.sleep(POLL_SECONDS)

    async def _read(self) -> CustomObject | None:
        resource = custom_resource(self._reference.kind)
        body = await self._session.kube.get(resource, self._reference.name, self._reference.namespace)
        if body is None or body["metadata"]["uid"] != self._uid:
            return None
        return CustomObject.from_api(self._reference.kind, body)

    def _verdict(self, found: CustomObject, run: Run | None) -> int | None:
        if found.is_paused:
            return self._end(f"{self._reference.name} is paused: plattr resume {found.reference.name}", EXIT_FAILED)
        # A newer generation than the applied one settles the applied one as well.
        if found.observed_generation < self._generation or found.is_deleting:
            return None
        if found.phase == "Running":
            url = found.status.get("url", "")
            took = duration(timedelta(seconds=time.monotonic() - self._began))
            return self._end(f"Running after {took}  {url}".rstrip(), 0)
        if found.phase == "Failed" and self._outlook_is_known(run):
            for condition in failures(found.conditions):
                self._line(f"✗ {condition['type']} {condition.get('reason', '')}: {condition.get('message', '')}")
            return self._end(f"Failed; {_outlook(run)}", EXIT_FAILED)
        return None

    def _outlook_is_known(self, run: Run | None) -> bool:
        """Tell whether the run has decided when it tries again. It decides just after it wrote the status."""
        self._failed_at = self._failed_at or time.monotonic()
        is_decided = (
            run is None or not run.is_open or (run.progress is not None and run.progress.next_retry is not None)
        )
        return is_decided or time.monotonic() - self._failed_at > OUTLOOK_SECONDS

    def _time_over(self, found: CustomObject | None, run: Run | None) -> int:
        where = ""
        if run is not None and run.progress is not None and run.progress.step is not None:
            where = f" at step {run.progress.step}"
        elif run is None:
            where = "; Temporal knows of no run: is the watcher running?"
        phase = shown_phase(found) if found is not None else "not known"
        return self._end(f"not done in time: phase {phase}{where}; it continues: see plattr explain", EXIT_TIMEOUT)


async def await_absence(session: Session, found: CustomObject, timeout: timedelta, tell: Callable[[str], None]) -> int:
    """Wait until a deleted object is gone, and print what still holds it; return the command's exit code."""
    follower = _Absence(session, found, tell)
    deadline = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < deadline:
        if await follower.is_gone():
            return 0
        await asyncio.sleep(POLL_SECONDS)
    tell(f"{found.reference.name}  not gone in time; it continues: see plattr explain")
    return EXIT_TIMEOUT


def left_of(timeout: timedelta, began: float) -> timedelta:
    """Return the rest of a timeout that began at this moment of the monotonic clock."""
    return timeout - timedelta(seconds=time.monotonic() - began)


async def make_way(session: Session, dying: CustomObject, timeout: timedelta, tell: Callable[[str], None]) -> int:
    """Wait until an object that is being deleted is gone, so that it can be created again; return the exit code."""
    tell(f"{dying.reference.name}  is being deleted; waiting until it is gone to create it again")
    return await await_absence(session, dying, timeout, tell)


class _Absence(Follower):
    def __init__(self, session: Session, found: CustomObject, tell: Callable[[str], None]) -> None:
        super().__init__(session, found, "", 0.0, tell)

    async def is_gone(self) -> bool:
        try:
            found = await self._read()
            run = await read_run(await self._session.temporal(), self._reference)
        except Transient as error:
            self._once(("away", error.reason), f"{error}; trying again")
            return False
        if run is not None and is_cleanup(run.workflow_type):
            self._report(run)
        if found is None:
            self._line(f"gone after {duration(timedelta(seconds=time.monotonic() - self._began))}")
            return True
        return False


async def await_nothing_left(
    session: Session, reference: ObjectReference, deadline: float, tell: Callable[[str], None]
) -> int:
    """Follow the cleanup of what an object left to its end; return the command's exit code."""
    follower = _Purge(session, reference, tell)
    while time.monotonic() < deadline:
        if (code := await follower.verdict()) is not None:
            return code
        await asyncio.sleep(POLL_SECONDS)
    tell(f"{reference.name}  not done in time; it continues: see plattr explain")
    return EXIT_TIMEOUT


class _Purge(Narrator):
    async def verdict(self) -> int | None:
        """Return the exit code; None while the cleanup continues."""
        reference = self._reference
        try:
            run = await read_run(await self._session.temporal(), reference)
            body = await self._session.kube.get(custom_resource(reference.kind), reference.name, reference.namespace)
            if run is not None and is_cleanup(run.workflow_type):
                self._report(run)
            if body is not None:
                return self._end("was created again; what it has not adopted may be left", EXIT_FAILED)
            if run is None or run.is_open:
                return None
            left = await held_claims(self._session, reference)
        except Transient as error:
            self._once(("away", error.reason), f"{error}; trying again")
            return None
        if run.status != "completed":
            cause = f": {run.failure}" if run.failure else ""
            return self._end(f"its cleanup ended as {run.status}{cause}; start it again", EXIT_FAILED)
        if left:
            return self._end(f"left: {claim_words(left)}; see plattr explain", EXIT_FAILED)
        return self._end(f"nothing is left after {duration(timedelta(seconds=time.monotonic() - self._began))}", 0)


def _outlook(run: Run | None) -> str:
    if run is None or not run.is_open:
        return "it is not tried again by itself: change the object, or plattr resync"
    if run.progress is not None and run.progress.next_retry is not None:
        return f"next try at {clock(run.progress.next_retry)}"
    return "it is tried again"


def _retry(moment: datetime | None) -> str:
    if moment is None or moment <= datetime.now(moment.tzinfo):
        return ""
    return f"; next attempt at {clock(moment)}"
