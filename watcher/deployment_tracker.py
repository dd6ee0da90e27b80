"""Track the Deployments, and find those that contradict the status of their owner."""

import time
from collections.abc import Callable, Iterable, Mapping

from plattr.objects import ObjectReference
from watcher.predicates import signal_for_availability
from watcher.reconcile_queue import ReconcileRequest
from watcher.reference_index import ReferenceIndex
from watcher.snapshots import Deployment, ObjectSnapshot, Place

# 2 s: an object and its Deployment arrive over two connections, some milliseconds apart. Only a contradiction that
# lasts longer is a real change of the Deployment.
DOUBT_SECONDS = 2.0


class DeploymentTracker:
    """Request a reconcile when a Deployment contradicts its owner's status for longer than `DOUBT_SECONDS`."""

    def __init__(
        self,
        objects: Mapping[ObjectReference, ObjectSnapshot],
        put: Callable[[ReconcileRequest], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects = objects
        self._put = put
        self._clock = clock
        # By namespace and name, because anybody can write an owner's labels on any Deployment. The labels count only on
        # the Deployment with the namespace and name that the owner's spec gives.
        self._deployments: dict[Place, Deployment] = {}
        self._owners: ReferenceIndex[Place] = ReferenceIndex()
        # Since when each owner's status contradicts its Deployment, and the availability that was last requested for.
        self._doubted: dict[ObjectReference, float] = {}
        self._told: dict[ObjectReference, bool] = {}
        # Until the first list of Deployments, an owner without a Deployment is no contradiction.
        self._is_listed = False

    def replace(self, deployments: Iterable[Deployment]) -> None:
        """Take a list of all Deployments that Plattr made."""
        self._deployments = {each.place: each for each in deployments if each.owner is not None}
        self._is_listed = True
        # A Deployment may have vanished or changed while no watch was open.
        for reference in self._objects:
            self._compare(reference)

    def change(self, event: str, deployment: Deployment) -> None:
        """Handle one event of the Deployments' watch. A deleted Deployment counts as unavailable."""
        if event == "DELETED" or deployment.owner is None:
            self._deployments.pop(deployment.place, None)
        else:
            self._deployments[deployment.place] = deployment
        for reference in self._owners[deployment.place]:
            self._compare(reference)

    def expect(self, before: ObjectSnapshot | None, seen: ObjectSnapshot) -> None:
        """Note where the object's own Deployment is."""
        self._owners.move(seen.reference, before.place if before is not None else None, seen.place)

    def look(self, seen: ObjectSnapshot) -> None:
        """Compare an object with its Deployment, which may have changed while a run was open."""
        if self._is_listed or seen.place in self._deployments:
            self._compare(seen.reference)

    def forget(self, reference: ObjectReference, lost: ObjectSnapshot | None) -> None:
        """Drop what is known for an object that is gone."""
        if lost is not None:
            self._owners.move(reference, lost.place, None)
        self._told.pop(reference, None)
        self._doubted.pop(reference, None)

    def confirm(self) -> None:
        """Request a reconcile for each contradiction that has lasted. Call this every second."""
        due = self._clock() - DOUBT_SECONDS
        for reference in [doubted for doubted, since in self._doubted.items() if since <= due]:
            del self._doubted[reference]
            is_available = self.is_available(reference)
            signal = signal_for_availability(self._objects.get(reference), is_available=is_available)
            if signal is not None:
                self._told[reference] = is_available
                self._put(ReconcileRequest(reference=reference, is_deleting=False, signal=signal))

    def is_available(self, reference: ObjectReference) -> bool:
        """Tell whether the object's own Deployment is there and available."""
        seen = self._objects.get(reference)
        deployment = self._deployments.get(seen.place) if seen is not None and seen.place is not None else None
        return deployment is not None and deployment.owner == reference and deployment.is_available

    def _compare(self, reference: ObjectReference) -> None:
        is_available = self.is_available(reference)
        signal = signal_for_availability(self._objects.get(reference), is_available=is_available)
        if signal is None:
            self._told.pop(reference, None)
            self._doubted.pop(reference, None)
        elif self._told.get(reference) is not is_available:
            self._doubted.setdefault(reference, self._clock())
