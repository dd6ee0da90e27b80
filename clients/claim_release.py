"""Release a name. Its Lease lists the objects that were refused the name, and the release wakes their runs."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress

from clients.concurrency import all_of
from clients.kube import KubeClient
from clients.resources import LEASES, Json, custom_resource, is_deleting
from plattr.errors import Conflict
from plattr.objects import GROUP, ObjectReference
from plattr.waiting_list import in_the_way, read_waiting, with_waiting, write_waiting

# The objects that were refused the name. Their runs are woken when the name is released.
WAITING_ANNOTATION = f"{GROUP}/waiting"
# On every Lease with the waiting annotation. An object that stops waiting finds these few Leases by the label.
SOUGHT_LABEL = f"{GROUP}/sought"
# The holder is about to release the name. An object that claims it now waits for a moment and is not refused.
GIVING_BACK_ANNOTATION = f"{GROUP}/giving-back"

# 10: a try fails only if another object began to wait for the name, or released it, within the same milliseconds.
TRIES = 10

Wake = Callable[[ObjectReference], Awaitable[None]]


async def wake_nobody(_: ObjectReference) -> None:
    """Wake nothing: the default for a caller that releases no names."""


class GivingBack:
    """The waiting list of each Lease; `wake` tells an object's run that a name it waits for may be free."""

    def __init__(self, kube: KubeClient, namespace: str, wake: Wake) -> None:
        self._kube = kube
        self._namespace = namespace
        self._wake = wake

    async def give_back(self, lease: Json) -> None:
        """Delete a Lease and wake the objects that wait for its name.

        The waiting objects are woken before the deletion, too. If this attempt dies after the deletion, their runs are
        already open and try again. Until the deletion, the giving-back annotation keeps them from being refused.

        Raises:
            Conflict: the Lease keeps changing.
        """
        for _ in range(TRIES):
            name, uid = lease["metadata"]["name"], lease["metadata"]["uid"]
            waiting = waiting_for(lease)
            if waiting:
                mark: Json = {"op": "add", "path": annotation_path(GIVING_BACK_ANNOTATION), "value": "true"}
                same = {"op": "test", "path": "/metadata/uid", "value": uid}
                marked = await self._kube.json_patch(LEASES, name, [same, mark], self._namespace)
                if marked is None:
                    return
                lease, waiting = marked, waiting_for(marked)
                await all_of(self._wake(each) for each in waiting)
            try:
                # The uid protects a claim that was released meanwhile and that another object now holds. The version
                # makes sure that an object which began to wait meanwhile is woken.
                version = lease["metadata"]["resourceVersion"]
                await self._kube.delete(LEASES, name, self._namespace, uid=uid, version=version)
            except Conflict:
                found = await self._kube.get(LEASES, name, self._namespace)
                if found is None or found["metadata"]["uid"] != uid:
                    return
                lease = found
            else:
                await all_of(self._wake(each) for each in waiting)
                return
        raise Conflict(f"cannot give back the claim {name!r}: it changes all the time")

    async def wait(self, lease: Json, reference: ObjectReference) -> bool:
        """Record that an object waits for the Lease's name; False: the Lease changed since it was read.

        If the list is full, the entries of objects that no longer exist are removed. An object that was removed by
        force has no cleanup to remove its entry.
        """
        waiting = waiting_for(lease)
        gone = await self._gone(in_the_way(waiting, reference))
        wanted = with_waiting([each for each in waiting if each not in gone], reference)
        return wanted == waiting or await self._write(lease, wanted)

    async def stop_waiting(self, reference: ObjectReference) -> None:
        """Remove an object from the waiting lists of all Leases; a second call writes nothing.

        Raises:
            Conflict: a Lease keeps changing.
        """
        async for page in self._kube.pages(LEASES, self._namespace, label_selector=SOUGHT_LABEL, metadata_only=True):
            await all_of(self._leave(lease, reference) for lease in page.items)

    async def _leave(self, lease: Json, reference: ObjectReference) -> None:
        name, present = lease["metadata"]["name"], lease
        for _ in range(TRIES):
            waiting = waiting_for(present)
            remaining = [each for each in waiting if each != reference]
            if len(remaining) == len(waiting) or await self._write(present, remaining):
                return
            found = await self._kube.get(LEASES, name, self._namespace)
            if found is None:
                return
            present = found
        raise Conflict(f"cannot take {reference} off those that wait for the claim {name!r}: it changes all the time")

    async def _write(self, lease: Json, waiting: Sequence[ObjectReference]) -> bool:
        """Write a Lease's waiting list; False: the Lease changed since it was read."""
        metadata = lease["metadata"]
        labels = {name: text for name, text in metadata.get("labels", {}).items() if name != SOUGHT_LABEL}
        annotations = {name: text for name, text in metadata["annotations"].items() if name != WAITING_ANNOTATION}
        if waiting:
            labels[SOUGHT_LABEL] = "true"
            annotations[WAITING_ANNOTATION] = write_waiting(waiting)
        operations: list[Json] = [
            {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
            {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
            {"op": "add", "path": "/metadata/labels", "value": labels},
            {"op": "add", "path": "/metadata/annotations", "value": annotations},
        ]
        with suppress(Conflict):
            return await self._kube.json_patch(LEASES, metadata["name"], operations, self._namespace) is not None
        return False

    async def _gone(self, references: Sequence[ObjectReference]) -> Collection[ObjectReference]:
        async def is_gone(reference: ObjectReference) -> bool:
            resource = custom_resource(reference.kind)
            return await self._kube.get(resource, reference.name, reference.namespace) is None

        verdicts = await all_of(is_gone(reference) for reference in references)
        return {reference for reference, verdict in zip(references, verdicts, strict=True) if verdict}

    async def is_going(self, lease: Json, holder: ObjectReference | None) -> bool:
        """Tell whether a Lease's holder is releasing the name now, or is being deleted."""
        if GIVING_BACK_ANNOTATION in lease["metadata"].get("annotations", {}):
            return True
        if holder is None:
            return False
        body = await self._kube.get(custom_resource(holder.kind), holder.name, holder.namespace)
        return body is not None and is_deleting(body)


def waiting_for(lease: Json) -> tuple[ObjectReference, ...]:
    """Return the objects that wait for a Lease's name."""
    return read_waiting(lease["metadata"].get("annotations", {}).get(WAITING_ANNOTATION))


def annotation_path(name: str) -> str:
    """Return an annotation's JSON pointer; RFC 6901 escapes the slash."""
    return f"/metadata/annotations/{name.replace('/', '~1')}"
