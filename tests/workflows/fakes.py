"""Activities under their real names that do nothing but what a test tells them to."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from temporalio import activity
from temporalio.client import WorkflowHandle

from plattr.claims import Claim
from plattr.features import ConditionType, Step, cleanup_order, provision_order
from plattr.fleet import (
    ChangedReferences,
    FleetBatch,
    FleetPage,
    FleetProgress,
    FleetQuery,
    Member,
    ReferencesQuery,
)
from plattr.objects import Kind
from plattr.status import ConditionUpdate, Phase
from plattr.steps import (
    ClaimInput,
    ClaimResult,
    CleanupInput,
    CleanupPlan,
    CleanupStepInput,
    ExpiryInput,
    Lifetime,
    PreviewLifetime,
    Progress,
    RolloutInput,
    StatusInput,
    StatusResult,
    StepInput,
    StepResult,
)

UID = "11111111-2222-3333-4444-555555555555"
EVERYTHING = provision_order(Kind.APPLICATION)


class FakePlatform:
    """Records each call, and fails or waits where the test says so."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failures: dict[str, list[Exception]] = defaultdict(list)
        self.during: dict[str, Callable[[], Awaitable[None]]] = {}
        self.statuses: list[StatusInput] = []
        self.stuck: list[StatusInput] = []
        self.waits: dict[str, list[str]] = defaultdict(list)
        # When to look again after a release.
        self.late_calls: list[datetime] = []
        self.left: dict[str, str] = {}
        self.claim_inputs: list[ClaimInput] = []
        self.cleanup_inputs: list[CleanupInput] = []
        self.retained: list[bool] = []
        self.cascading: list[bool] = []
        self.outliving: list[tuple[Claim, ...]] = []
        self.claims: list[ClaimResult] = []
        self.plans: list[CleanupPlan] = []
        self.rollout_rounds = 1
        self.said: list[ConditionUpdate | None] = []
        self.phases: list[Phase] = []
        self.running: set[str] = set()
        self.overlaps: list[tuple[str, ...]] = []
        # A preview's object, as the API server would hold it.
        self.created = datetime.now(UTC).replace(microsecond=0)
        self.ttl = timedelta(hours=72)
        self.presence: Literal["alive", "paused", "deleting", "gone"] = "alive"
        self.warning: datetime | None = None
        self.warnings: list[ExpiryInput] = []
        self.deletions: list[ExpiryInput] = []
        # The fleet, by its keys, and who was asked to reconcile when by the clock of the test.
        self.members: list[Member] = []
        # Whose Secrets have changed, by name.
        self.changed: set[str] = set()
        self.requests: list[FleetBatch] = []
        self.requested_per_call: int | None = None
        self.refuses: Callable[[Member], bool] = lambda _: False

    async def call(self, name: str) -> None:
        if self.running:
            self.overlaps.append((*self.running, name))
        self.running.add(name)
        try:
            self.calls.append(name)
            if name in self.during:
                await self.during.pop(name)()
            if self.failures[name]:
                raise self.failures[name].pop(0)
        finally:
            self.running.discard(name)

    @property
    def expires_at(self) -> datetime:
        return self.created + self.ttl

    @property
    def warn_at(self) -> datetime:
        return self.expires_at - min(timedelta(hours=1), self.ttl / 10)

    def claim(self, **update: Any) -> ClaimResult:
        terms = {"verdict": "proceed", "uid": UID, "generation": 1, "environment": "production", "steps": EVERYTHING}
        return ClaimResult.model_validate(terms | update)

    def activities(self) -> list[Callable[..., Any]]:
        steps = [
            *(f"reconcile_{step}" for step in (*EVERYTHING, Step.NAMESPACE)),
        ]
        removals = [f"delete_{step}" for step in (*EVERYTHING, Step.NAMESPACE)] + ["release_object"]
        return [
            *(self._step(name) for name in steps),
            *(self._removal(name) for name in removals),
            self.claim_object,
            self.plan_cleanup,
            self.await_rollout,
            self.write_status,
            self.report_stuck,
            self.read_lifetime,
            self.warn_of_expiry,
            self.delete_expired,
            self.list_fleet,
            self.request_reconciles,
            self.find_changed_references,
        ]

    def _step(self, name: str) -> Callable[..., Any]:
        @activity.defn(name=name)
        async def run(step: StepInput) -> StepResult:
            await self.call(name)
            condition = Step(name.removeprefix("reconcile_")).condition
            return StepResult(updates=(ConditionUpdate(type=condition, status="True", reason="Provisioned"),))

        return run

    def _removal(self, name: str) -> Callable[..., Any]:
        @activity.defn(name=name)
        async def run(step: CleanupStepInput) -> StepResult:
            self.retained.append(step.retain)
            self.cascading.append(step.cascade)
            self.outliving.append(step.outliving)
            await self.call(name)
            if waits := self.waits.get(name):
                return StepResult(is_done=False, waiting_for=waits.pop(0))
            is_late = name == "release_object" and bool(self.late_calls)
            end = self.late_calls.pop(0) if is_late else None
            return StepResult(left=self.left.get(name, ""), look_again_at=end)

        return run

    @activity.defn
    async def claim_object(self, request: ClaimInput) -> ClaimResult:
        self.claim_inputs.append(request)
        await self.call("claim_object")
        return self.claims.pop(0) if self.claims else self.claim()

    @activity.defn
    async def plan_cleanup(self, request: CleanupInput) -> CleanupPlan:
        self.cleanup_inputs.append(request)
        await self.call("plan_cleanup")
        plan = self.plans.pop(0) if self.plans else CleanupPlan(verdict="proceed", uid=UID)
        steps = (*cleanup_order(request.reference.kind), Step.RELEASE) if plan.verdict == "proceed" else ()
        return plan.model_copy(update={"steps": steps})

    @activity.defn
    async def await_rollout(self, step: RolloutInput) -> StepResult:
        await self.call("await_rollout")
        self.said.append(step.said)
        self.rollout_rounds -= 1
        if self.rollout_rounds <= 0:
            return StepResult()
        pods = ConditionUpdate(
            type=ConditionType.DEPLOYMENT, status="False", reason="RolloutInProgress", message="pods"
        )
        return StepResult(is_done=False, waiting_for="pods", updates=(pods,))

    @activity.defn
    async def write_status(self, status: StatusInput) -> StatusResult:
        self.statuses.append(status)
        await self.call("write_status")
        phase = Phase.FAILED if status.retries_exhausted else Phase.RUNNING
        return StatusResult(phase=self.phases.pop(0) if self.phases else phase, is_written=True)

    @activity.defn
    async def report_stuck(self, status: StatusInput) -> StatusResult:
        self.stuck.append(status)
        await self.call("report_stuck")
        return StatusResult(phase=Phase.TERMINATING, is_written=True)

    @activity.defn
    async def read_lifetime(self, request: ClaimInput) -> PreviewLifetime:
        await self.call("read_lifetime")
        if self.presence != "alive":
            return PreviewLifetime(verdict=self.presence)
        warning = "none" if self.warning is None else "current" if self.warning == self.expires_at else "stale"
        lifetime = {"uid": UID, "expires_at": self.expires_at, "warn_at": self.warn_at, "warning": warning}
        return PreviewLifetime(verdict="alive", lifetime=Lifetime.model_validate(lifetime))

    @activity.defn
    async def warn_of_expiry(self, request: ExpiryInput) -> StepResult:
        await self.call("warn_of_expiry")
        self.warnings.append(request)
        self.warning = request.expires_at if request.is_due else None
        return StepResult()

    @activity.defn
    async def delete_expired(self, request: ExpiryInput) -> StepResult:
        await self.call("delete_expired")
        self.deletions.append(request)
        self.presence = "deleting"
        return StepResult()

    @activity.defn
    async def list_fleet(self, query: FleetQuery) -> FleetPage:
        await self.call("list_fleet")
        left = [member for member in self.members if member.reference.key > query.after]
        return FleetPage(members=tuple(left[: query.limit]), remaining=len(left))

    @activity.defn
    async def find_changed_references(self, query: ReferencesQuery) -> ChangedReferences:
        await self.call("find_changed_references")
        left = [member for member in self.members if member.reference.key > query.after]
        page = left[: query.limit]
        members = tuple(member for member in page if member.reference.name in self.changed)
        after = page[-1].reference.key if len(left) > len(page) else ""
        return ChangedReferences(members=members, looked_at=len(page), after=after)

    @activity.defn
    async def request_reconciles(self, batch: FleetBatch) -> FleetProgress:
        await self.call("request_reconciles")
        done = batch.members[: self.requested_per_call]
        refused = tuple(member for member in done if self.refuses(member))
        taken = tuple(member for member in done if member not in refused)
        self.requests.append(batch.model_copy(update={"members": taken}))
        return FleetProgress(requested=len(done), refused=refused)


async def eventually(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    """Wait until something the activities record is so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def pausing(handle: WorkflowHandle[Any, Any], *, seconds: float = 20) -> Progress:
    """Wait until the run sleeps before its next round: it learns that a status is written a moment after the fake."""
    async with asyncio.timeout(seconds):
        while not (progress := Progress.model_validate(await handle.query("progress"))).next_retry:
            await asyncio.sleep(0.02)
    return progress


async def timers_of(handle: WorkflowHandle[Any, Any]) -> list[timedelta]:
    """Return how long the run has slept each time, or wanted to."""
    return [
        event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta()
        async for event in handle.fetch_history_events()
        if event.HasField("timer_started_event_attributes")
    ]
