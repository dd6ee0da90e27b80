"""What the workflows and the activities tell each other: one input and one result a message.

Nothing here may hold a secret, and no spec travels through it: a variable's value may be one.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, Self

from pydantic import Field

from plattr.claims import Claim
from plattr.features import ClaimKind, ConditionType, Step
from plattr.marks import Estate
from plattr.objects import FrozenModel, Kind, ObjectReference
from plattr.status import ConditionUpdate, Phase

# Signals and the query, as people type them on Temporal's command line.
CHANGED_SIGNAL = "changed"
RESYNC_SIGNAL = "resync"
REPAIR_SIGNAL = "repair"
CASCADE_SIGNAL = "cascade"
PURGE_SIGNAL = "purge"
PROGRESS_QUERY = "progress"

TASK_QUEUE = "plattr"


class Remedy(StrEnum):
    """What mends an error; decides what the workflow does next."""

    RETRY = "retry"
    """Tried again by the seed's table, then slowly."""
    WAIT = "wait"
    """Something outside has to happen first: tried again slowly, or at the next change."""
    CHANGE = "change"
    """Only a change of the object, or of what somebody else owns, helps: the run fails."""
    REREAD = "reread"
    """The object moved on: read it again and start again."""


class Problem(FrozenModel):
    """An activity's error as it crosses into the workflow; the failure's only detail."""

    reason: str
    message: str
    remedy: Remedy
    condition: ConditionType | None = None
    """Set when the error knows its condition better than the step does (a claim held elsewhere)."""
    again_at: datetime | None = None
    """When trying again can help, where that is known."""


class ClaimInput(FrozenModel):
    """Read the object and make it ours."""

    reference: ObjectReference
    every_step: bool = False
    """Run all steps even when the generation is settled: resync, repair."""
    take_over: bool = False
    """Build a preview from its parent as it is now, not as it was: resync."""


class ClaimResult(FrozenModel):
    """What the object asks for now, as far as the workflow has to know it."""

    verdict: Literal["proceed", "settled", "deleting", "gone", "paused"]
    uid: str = ""
    generation: int = 0
    environment: str = ""
    steps: tuple[Step, ...] = ()
    """The provisioning steps to run, in order, without claim, rollout and status."""
    kept: tuple[ConditionUpdate, ...] = ()
    """True conditions of features that are disabled now and whose data is kept."""


class StepInput(FrozenModel):
    """Run one step for exactly this spec of this object."""

    reference: ObjectReference
    uid: str
    generation: int


class RolloutInput(StepInput):
    """Wait for the rollout of exactly this spec."""

    said: ConditionUpdate | None = None
    """What the status says of it so far; None: nothing yet."""


class StepResult(FrozenModel):
    """A step that is done, and the conditions that became true by it."""

    updates: tuple[ConditionUpdate, ...] = ()
    is_done: bool = True
    """False when the step used up its time and wants to be called again: rollout, storage cleanup."""
    waiting_for: str = ""
    left: str = ""
    """Of a cleanup: what bears the object's names and stays, since nothing says that it is the object's."""
    look_again_at: datetime | None = None
    """Of a cleanup: a call that was never answered may come true until then, and what it makes has to go as well."""


class StatusInput(FrozenModel):
    """Write what is known into the object's status."""

    reference: ObjectReference
    uid: str = ""
    """Empty when the object was refused before its UID was known."""
    generation: int = 0
    updates: tuple[ConditionUpdate, ...] = ()
    unreached: tuple[ConditionType, ...] = ()
    """Conditions of steps this run did not come to: what the status says of them stays, or Unknown/Waiting."""
    retries_exhausted: bool = False
    """The retries of what is False are used up: phase Failed."""
    is_refused: bool = False
    """No retry can mend it: the condition Stalled says why."""
    removed: tuple[ConditionUpdate, ...] = ()
    """Of a cleanup: conditions of what it has removed already; one that the status does not have is left out."""
    is_underway: bool = False
    """The run goes on and tells what it has seen so far of the rollout."""


class StatusResult(FrozenModel):
    """What the status says now."""

    phase: Phase
    is_written: bool


class CleanupInput(FrozenModel):
    """Begin a cleanup: find out what it is for."""

    reference: ObjectReference
    delete_object: bool = False
    """Delete the object first if it is still there: a cleanup started by hand, an expired preview."""
    uid: str = ""
    """Which incarnation to delete: one that took the name since somebody looked must live; empty: any."""
    purge: bool = False
    """What was to be retained goes as well, as long as no object has the name."""


class CleanupPlan(FrozenModel):
    """What a cleanup has to do."""

    verdict: Literal["proceed", "recreated"]
    """recreated: another, living object has the name now; it adopts what is left."""
    steps: tuple[Step, ...] = ()
    """The steps to run, in order; none for an object that is recreated."""
    uid: str = ""
    namespace_uid: str | None = None
    """Of which namespace; None: it is gone, or a person asked for all that is left."""
    retain: bool = False
    purge: bool = False
    """No object has the name, and a person asked for all that is left: every later round has to know that."""
    outliving: tuple[Claim, ...] = ()
    """What an earlier incarnation retained and this one did not adopt."""


class CleanupStepInput(FrozenModel):
    """Remove what this owner has in one backend."""

    reference: ObjectReference
    uid: str = ""
    """The incarnation that is being removed; empty when the object is gone. A resource of the same owner
    under another UID goes too, unless that UID is alive."""
    namespace_uid: str | None = None
    """Of which namespace; None: of any that has borne the name."""
    retain: bool = False
    outliving: tuple[Claim, ...] = ()
    """Names whose resources are retained although the rest goes."""
    cascade: bool = False
    """An operator lets what others made of the owner's data go with it: `plattr cleanup --cascade`."""

    def estate(self, cluster: str) -> Estate:
        """Return whose things go; never those of another cluster."""
        return Estate(reference=self.reference, cluster=cluster, namespace_uid=self.namespace_uid)

    def retains(self, kind: ClaimKind, name: str) -> bool:
        """Tell whether what bears the name stays, closed to everybody, until its owner is created again."""
        return self.retain or Claim(kind=kind, name=name) in self.outliving


class Lifetime(FrozenModel):
    """Until when a preview lives, and what its status says of that."""

    uid: str
    expires_at: datetime
    warn_at: datetime
    warning: Literal["none", "current", "stale"] = "none"
    """The condition Expiring: it does not stand, it names this end, or one that has moved since."""


class PreviewLifetime(FrozenModel):
    """A preview's end, read from the object; the run's clock follows it."""

    verdict: Literal["alive", "paused", "deleting", "gone"]
    lifetime: Lifetime | None = None
    """Set while the preview is alive."""


class ExpiryInput(FrozenModel):
    """Warn of a preview's end, take the warning back, or delete the object: exactly this incarnation with this end."""

    reference: ObjectReference
    uid: str
    expires_at: datetime
    is_due: bool = True
    """Whether the warning is to stand. The run's clock decides: a worker's own may go behind the server's."""


class PendingRequest(FrozenModel):
    """How much the next round does, even if the spec is settled."""

    every_step: bool = False
    take_over: bool = False

    def __or__(self, other: Self) -> "PendingRequest":
        return PendingRequest(
            every_step=self.every_step or other.every_step, take_over=self.take_over or other.take_over
        )


class RunState(FrozenModel):
    """What a run has to remember. Continue-as-new carries it whole; everything else is read from the object again."""

    round: int = 1
    """How often the slow retry has started again; the length of the next pause follows from it."""
    request: PendingRequest = PendingRequest()
    """What no round has served yet."""
    cascade: bool = False
    """What others made of the object's data goes with it, in this run or the cleanup that it becomes."""
    delete_object: bool = False
    """The cleanup has still to delete the object."""
    uid: str = ""
    """Which incarnation the cleanup deletes; empty: whichever has the name."""
    purge: bool = False
    """The cleanup removes retained data as well."""
    left: tuple[str, ...] = ()
    """What the cleanup could not remove, since nothing says whose it is."""


class RunInput(FrozenModel):
    """The argument of every workflow, typed by people too: {"namespace": ..., "name": ...}."""

    namespace: str = Field(min_length=1)
    name: str = Field(min_length=1)
    every_step: bool = False
    take_over: bool = False
    by_hand: bool = True
    """False when the watcher or another run started it. A cleanup by hand also deletes a living object."""
    uid: str = ""
    """Which incarnation a cleanup by hand deletes; empty: whichever has the name."""
    purge: bool = False
    """A cleanup removes what was to be retained as well, and deletes no object: `plattr cleanup --orphan`."""
    cascade: bool = False
    """What others made of the object's data goes with it, in this run or the cleanup that it becomes:
    `plattr cleanup --cascade`."""
    state: RunState | None = None
    """What the run carries over from an earlier history, in place of the fields above; nobody types it."""

    def initial_state(self) -> RunState:
        """Return what the run remembers when it begins."""
        if self.state is not None:
            return self.state
        return RunState(
            request=PendingRequest(every_step=self.every_step, take_over=self.take_over),
            cascade=self.cascade,
            delete_object=self.by_hand and not self.purge,
            uid=self.uid,
            purge=self.purge,
        )

    def reference(self, kind: Kind) -> ObjectReference:
        """Return which object the run is for."""
        return ObjectReference(kind=kind, namespace=self.namespace, name=self.name)


class RunResult(FrozenModel):
    """How a run ended."""

    phase: Phase | None
    generation: int = 0
    summary: str


class Progress(FrozenModel):
    """Where a run stands: the answer of the `progress` query."""

    step: Step | None = None
    attempt: int = 0
    """Attempts of the step that have begun, as far as the workflow knows; the server knows the running one."""
    round: int = 1
    """How often the slow retry has started again."""
    done: tuple[Step, ...] = ()
    took: dict[str, timedelta] = Field(default_factory=dict)
    """How long each finished step took, by its name."""
    last_error: Problem | None = None
    next_retry: datetime | None = None
    waiting_for: str = ""
    """What the step has seen that it waits for, and will be called again for."""
    phase: Phase = Phase.PENDING
