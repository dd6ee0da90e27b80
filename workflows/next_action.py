"""What a run does after a round."""

from dataclasses import dataclass, field
from datetime import datetime

from plattr.steps import Problem, RunResult, RunState


@dataclass(frozen=True)
class Again:
    """Begin the next round at once."""


@dataclass(frozen=True)
class Pause:
    """Begin the next round after the slow retry's pause, or at `until` if that is earlier."""

    until: datetime | None = None


@dataclass(frozen=True)
class Done:
    """Close the run."""

    result: RunResult


@dataclass(frozen=True)
class Fail:
    """Fail the run: only a change of the object helps."""

    problem: Problem | None


@dataclass(frozen=True)
class Become:
    """Continue as another workflow type for the same object, under the same id."""

    workflow_type: str
    state: RunState = field(default_factory=RunState)


NextAction = Again | Pause | Done | Fail | Become
