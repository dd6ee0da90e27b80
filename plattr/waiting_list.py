"""The objects that wait for a name that another object has; its claim keeps the list, and its release wakes them."""

import json
from collections.abc import Sequence

from plattr.objects import ObjectReference, parse_key

# 5 of a namespace: a user with hundreds of objects refused for one name must not fill the list.
MOST_OF_A_NAMESPACE = 5
# 200 keys of at most 145 bytes each: an object's annotations may have 256 KiB together.
MOST = 200


def read_waiting(text: str | None) -> tuple[ObjectReference, ...]:
    """Return the objects that wait, the longest wait first."""
    keys = json.loads(text) if text else []
    return tuple(reference for key in keys if (reference := parse_key(key)) is not None)


def write_waiting(waiting: Sequence[ObjectReference]) -> str:
    """Return the text that `read_waiting` reads."""
    return json.dumps([reference.key for reference in waiting])


def with_waiting(waiting: Sequence[ObjectReference], newcomer: ObjectReference) -> tuple[ObjectReference, ...]:
    """Return the list with one more object; unchanged when the object is already there, or has no place.

    An object that is not in the list learns of the name at the next resync.
    """
    if newcomer in waiting or in_the_way(waiting, newcomer):
        return tuple(waiting)
    return (*waiting, newcomer)


def in_the_way(waiting: Sequence[ObjectReference], newcomer: ObjectReference) -> tuple[ObjectReference, ...]:
    """Return the objects that hold the places a newcomer needs; empty while a place is free."""
    if newcomer in waiting:
        return ()
    neighbours = tuple(reference for reference in waiting if reference.namespace == newcomer.namespace)
    if len(neighbours) >= MOST_OF_A_NAMESPACE:
        return neighbours
    return tuple(waiting) if len(waiting) >= MOST else ()
