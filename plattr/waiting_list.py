"""Who waits for a name that another has: kept on the name's claim, and woken when it is given back."""

import json
from collections.abc import Sequence

from plattr.objects import ObjectReference, parse_key

# 5 of a namespace: who has hundreds of objects refused for one name must not push the others out of the list.
MOST_OF_A_NAMESPACE = 5
# 200 keys of at most 145 bytes: an annotation's limit is 256 KiB for all of an object's.
MOST = 200


def read_waiting(text: str | None) -> tuple[ObjectReference, ...]:
    """Return who waits, the longest first."""
    keys = json.loads(text) if text else []
    return tuple(reference for key in keys if (reference := parse_key(key)) is not None)


def write_waiting(waiting: Sequence[ObjectReference]) -> str:
    """Return what `read_waiting` reads."""
    return json.dumps([reference.key for reference in waiting])


def with_waiting(waiting: Sequence[ObjectReference], newcomer: ObjectReference) -> tuple[ObjectReference, ...]:
    """Return the list with one more; the same when it has that one, or has no place for it.

    One that is not in it hears of the name at the next resync.
    """
    if newcomer in waiting or in_the_way(waiting, newcomer):
        return tuple(waiting)
    return (*waiting, newcomer)


def in_the_way(waiting: Sequence[ObjectReference], newcomer: ObjectReference) -> tuple[ObjectReference, ...]:
    """Return whose places a newcomer could have; empty while there is a free one."""
    if newcomer in waiting:
        return ()
    neighbours = tuple(reference for reference in waiting if reference.namespace == newcomer.namespace)
    if len(neighbours) >= MOST_OF_A_NAMESPACE:
        return neighbours
    return tuple(waiting) if len(waiting) >= MOST else ()
