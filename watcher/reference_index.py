"""An index of objects by something that they have in common."""

from collections.abc import Collection
from typing import Generic, TypeVar

from plattr.objects import ObjectReference

Key = TypeVar("Key")


class ReferenceIndex(Generic[Key]):
    """References by a key. A key without references takes no memory."""

    def __init__(self) -> None:
        self._members: dict[Key, set[ObjectReference]] = {}

    def __getitem__(self, key: Key) -> Collection[ObjectReference]:
        return self._members.get(key, ())

    def move(self, reference: ObjectReference, old: Key | None, new: Key | None) -> None:
        """Move a reference from one key to another; None stands for no key."""
        if old is not None and old in self._members:
            self._members[old].discard(reference)
            if not self._members[old]:
                del self._members[old]
        if new is not None:
            self._members.setdefault(new, set()).add(reference)
