"""The messages between the resync of the whole fleet and its activities: references, never objects."""

from datetime import timedelta
from typing import Literal

from pydantic import Field

from plattr.objects import FrozenModel, ObjectReference

# A Temporal Schedule and the runs that it starts. People type these ids on Temporal's command line.
SCHEDULE_ID = "plattr-resync-fleet"
RESYNC_ID = "resync-fleet"
RESTORE_ID = "restore-fleet"
REFERENCES_SCHEDULE_ID = "plattr-look-at-references"
REFERENCES_ID = "look-at-references"

# 0.8: the resync must end before the next period begins. Otherwise the overlap policy skips that period.
SPREAD_OF_INTERVAL = 0.8
# A tenth: several platforms that share a Keycloak or a database must not begin in the same second.
JITTER_OF_INTERVAL = 0.1


class Member(FrozenModel):
    """One object of the fleet."""

    reference: ObjectReference
    is_deleting: bool = False


class FleetRun(FrozenModel):
    """The argument of ResyncFleet: request a reconcile of every object, evenly spread over a time."""

    spread: timedelta = timedelta(0)
    purpose: Literal["resync", "restore"] = "resync"
    """resync: every step of every object. restore: start the runs that Temporal has lost. These are the runs of
    previews, which hold their timers, and of objects that have not settled."""
    after: str = ""
    """The key of the last object whose reconcile was requested; continue-as-new carries it."""
    pause: timedelta | None = None
    """Between two objects; computed on the first page and kept, so that the period keeps its length."""
    requested: int = 0
    refused: int = 0
    """Objects whose reconcile request Temporal refused; they are skipped."""


class FleetQuery(FrozenModel):
    """Ask for the next page of the fleet, in the order of the keys."""

    purpose: Literal["resync", "restore"]
    after: str = ""
    limit: int


class FleetPage(FrozenModel):
    """One page, and how many objects are left from this page on."""

    members: tuple[Member, ...]
    remaining: int
    """Objects of this page and of all that follow."""


class FleetBatch(FrozenModel):
    """Request a reconcile of these objects one after the other, with a pause before each but the first."""

    members: tuple[Member, ...]
    purpose: Literal["resync", "restore"]
    pause: timedelta


class FleetProgress(FrozenModel):
    """How many objects of a batch were handled: fewer than it holds when the worker stops."""

    requested: int
    refused: tuple[Member, ...] = ()
    """Those among them whose reconcile request Temporal refused."""


class ReferencesQuery(FrozenModel):
    """Find the objects, in the order of their keys, whose pods refer to things that changed since their rollout."""

    after: str = ""
    limit: int = Field(ge=1)
    """How many objects are looked at, changed or not."""


class ChangedReferences(FrozenModel):
    """The objects to reconcile again, and where to continue."""

    members: tuple[Member, ...] = ()
    looked_at: int = 0
    after: str = ""
    """The key of the last object that was looked at; empty when there are no more."""


class FleetResult(FrozenModel):
    """How a period ended."""

    requested: int
    refused: int = 0


def pause_between(spread: timedelta, objects: int) -> timedelta:
    """Return the pause between two objects that spreads them evenly."""
    return spread / objects if objects else timedelta(0)


def batch_size(pause: timedelta, longest: timedelta, limit: int) -> int:
    """Return how many objects one activity handles, so that it ends within `longest`; at least one."""
    if pause <= timedelta(0):
        return limit
    return max(1, min(limit, longest // pause))
