"""The messages between the workflows and the activities: one input and one result for each activity.

No message may hold a secret. No message carries a spec, because a variable's value may be a secret.
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

# The signals and the query, as people type them on Temporal's command line.
CHANGED_SIGNAL = "changed"
RESYNC_SIGNAL = "resync"
REPAIR_SIGNAL = "repair"
CASCADE_SIGNAL = "cascade"
PURGE_SIGNAL = "purge"
PROGRESS_QUERY = "progress"

TASK_QUEUE = "plattr"


class Remedy(StrEnum):
    """What helps against an error; decides what the workflow does next."""

    RETRY = "retry"
    """Retried by the seed's table, then slowly."""
    WAIT = "wait"
    """Something outside has to happen first: retried slowly, or at the next change."""
    CHANGE = "change"
    """Only a change of the object helps, or of what somebody else owns: the run fails."""
    REREAD = "reread"
    """The object has changed: read it and start again."""


class Problem(FrozenModel):
    """An activity's error, as the workflow receives it; the failure's only detail."""

    reason: str
    message: str
    remedy: Remedy
    condition: ConditionType | None = None
    """Set when the error knows its condition better than the step does, as for a claim that another object holds."""
    again_at: datetime | None = None
    """When a retry can help, if that is known."""


class ClaimInput(FrozenModel):
    """Read the object, add the finalizer and claim the names."""

    reference: ObjectReference
    every_step: bool = False
    """Run all steps even when the generation is settled, as for a resync or a repair."""
    take_over: bool = False
    """Build a preview from its parent's current spec, not from the copy in its status, as for a resync."""


class ClaimResult(FrozenModel):
    """What the object asks for now, as far as the workflow needs it."""

    verdict: Literal["proceed", "settled", "deleting", "gone", "paused"]
    uid: str = ""
    generation: int = 0
    environment: str = ""
    steps: tuple[Step, ...] = ()
    """The provisioning steps to run, in order, without claim, rollout and status."""
    kept: tuple[ConditionUpdate, ...] = ()
    """True conditions of features that are now disabled and whose data is kept."""


class StepInput(FrozenModel):
    """Run one step for exactly this spec of this object."""

    reference: ObjectReference
    uid: str
    generation: int


class RolloutInput(StepInput):
    """Wait for the rollout of exactly this spec."""

    said: ConditionUpdate | None = None
    """What the status says of the rollout so far; None: nothing yet."""


class StepResult(FrozenModel):
    """A finished step, and the conditions that it made true."""

    updates: tuple[ConditionUpdate, ...] = ()
    is_done: bool = True
    """False when the step used up its time and must be called again: rollout, storage cleanup."""
    waiting_for: str = ""
    left: str = ""
    """For a cleanup: what has the object's names and stays, because nothing says that it belongs to the object."""
    look_again_at: datetime | None = None
    """For a cleanup: until when a call without an answer may still take effect. Its result must be removed too."""


class StatusInput(FrozenModel):
    """Write the known facts into the object's status."""

    reference: ObjectReference
    uid: str = ""
    """Empty when the object was refused before its UID was known."""
    generation: int = 0
    updates: tuple[ConditionUpdate, ...] = ()
    unreached: tuple[ConditionType, ...] = ()
    """Conditions of steps that this run did not reach. They keep their status, or become Unknown/Waiting."""
    retries_exhausted: bool = False
    """The retries of the False conditions are used up: phase Failed."""
    is_refused: bool = False
    """No retry can help: the condition Stalled says why."""
    removed: tuple[ConditionUpdate, ...] = ()
    """For a cleanup: conditions of what it has already removed. Conditions that the status does not have are
    omitted."""
    is_underway: bool = False
    """The run continues, and reports what it has seen of the rollout so far."""


class StatusResult(FrozenModel):
    """What the status says now."""

    phase: Phase
    is_written: bool


class CleanupInput(FrozenModel):
    """Begin a cleanup: find out what it has to remove."""

    reference: ObjectReference
    delete_object: bool = False
    """Delete the object first if it still exists: a cleanup by hand, or an expired preview."""
    uid: str = ""
    """The uid of the object to delete. An object that took the name since somebody looked must live. Empty: any uid."""
    purge: bool = False
    """Remove what should be retained as well, as long as no object has the name."""


class CleanupPlan(FrozenModel):
    """What a cleanup has to do."""

    verdict: Literal["proceed", "recreated"]
    """recreated: another, living object has the name now. It adopts what is left."""
    steps: tuple[Step, ...] = ()
    """The steps to run, in order; none for an object that was created again."""
    uid: str = ""
    namespace_uid: str | None = None
    """The namespace's uid; None: the namespace is gone, or a person asked for all that is left."""
    retain: bool = False
    purge: bool = False
    """No object has the name, and a person asked for all that is left. Every later round must know that."""
    outliving: tuple[Claim, ...] = ()
    """What an earlier object of this name retained and this one did not adopt."""


class CleanupStepInput(FrozenModel):
    """Remove what this owner has in one backend."""

    reference: ObjectReference
    uid: str = ""
    """The uid of the object that is being removed; empty when the object is gone. Resources of the same owner under
    another uid go too, unless an object with that uid is alive."""
    namespace_uid: str | None = None
    """The namespace's uid; None: every namespace that has had the name."""
    retain: bool = False
    outliving: tuple[Claim, ...] = ()
    """Names whose resources are retained although the rest is removed."""
    cascade: bool = False
    """An operator allows the removal of what others made of the owner's data: `plattr cleanup --cascade`."""

    def estate(self, cluster: str) -> Estate:
        """Return whose things are removed; never those of another cluster."""
        return Estate(reference=self.reference, cluster=cluster, namespace_uid=self.namespace_uid)

    def retains(self, kind: ClaimKind, name: str) -> bool:
        """Tell whether what has the name stays, closed to everybody, until its owner is created again."""
        return self.retain or Claim(kind=kind, name=name) in self.outliving


class Lifetime(FrozenModel):
    """How long a preview lives, and what its status says of its end."""

    uid: str
    expires_at: datetime
    warn_at: datetime
    warning: Literal["none", "current", "stale"] = "none"
    """The condition Expiring: none: it is absent; current: it names this end; stale: it names an earlier end."""


class PreviewLifetime(FrozenModel):
    """A preview's end, as read from the object; the run's timer follows it."""

    verdict: Literal["alive", "paused", "deleting", "gone"]
    lifetime: Lifetime | None = None
    """Set while the preview is alive."""


class ExpiryInput(FrozenModel):
    """Warn of a preview's end, withdraw the warning, or delete the object, for exactly this uid and this end."""

    reference: ObjectReference
    uid: str
    expires_at: datetime
    is_due: bool = True
    """Whether the warning is to stand. The run's clock decides, because a worker's clock may be behind the server's."""


class PendingRequest(FrozenModel):
    """What the next round has to do, even if the spec is settled."""

    every_step: bool = False
    take_over: bool = False

    def __or__(self, other: Self) -> "PendingRequest":
        return PendingRequest(
            every_step=self.every_step or other.every_step, take_over=self.take_over or other.take_over
        )


class RunState(FrozenModel):
    """What a run has to remember; continue-as-new carries it, and the run reads everything else from the object."""

    round: int = 1
    """How often the slow retry has started again. It determines the length of the next pause."""
    request: PendingRequest = PendingRequest()
    """What no round has handled yet."""
    cascade: bool = False
    """Remove what others made of the object's data too, in this run or in the cleanup that it becomes."""
    delete_object: bool = False
    """The cleanup still has to delete the object."""
    uid: str = ""
    """The uid of the object that the cleanup deletes; empty: any object of the name."""
    purge: bool = False
    """The cleanup removes retained data as well."""
    left: tuple[str, ...] = ()
    """What the cleanup could not remove, because nothing says whose it is."""


class RunInput(FrozenModel):
    """The argument of every workflow, typed by people too: {"namespace": ..., "name": ...}."""

    namespace: str = Field(min_length=1)
    name: str = Field(min_length=1)
    every_step: bool = False
    take_over: bool = False
    by_hand: bool = True
    """False when the watcher or another run started it. A cleanup by hand also deletes a living object."""
    uid: str = ""
    """The uid of the object that a cleanup by hand deletes; empty: any object of the name."""
    purge: bool = False
    """A cleanup removes what should be retained as well, and deletes no object: `plattr cleanup --orphan`."""
    cascade: bool = False
    """Remove what others made of the object's data too, in this run or in the cleanup that it becomes:
    `plattr cleanup --cascade`."""
    state: RunState | None = None
    """What the run carries over from an earlier history, instead of the fields above; people never type it."""

    def initial_state(self) -> RunState:
        """Return what the run remembers at its start."""
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
