"""Taking over what bears an object's names and is marked as somebody else's: what a person is asked, and answers."""

import hashlib

from pydantic import Field

from plattr.marks import Mark
from plattr.objects import FrozenModel, ObjectReference


class Adoptable(FrozenModel):
    """One resource that an object could take over."""

    what: str
    holder: str
    """Whose it is, in words that are safe to show."""
    fingerprint: str
    """Of its mark: what a person approved is taken over only while it is just so."""

    @classmethod
    def of(cls, what: str, mark: Mark | None, holder: str) -> "Adoptable":
        """Return the resource as it is marked now."""
        text = mark.model_dump_json() if mark is not None else ""
        return cls(what=what, holder=holder, fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16])


class AdoptionInput(FrozenModel):
    """Look for what an object could take over, and take over what a person approved of it."""

    reference: ObjectReference
    approved: tuple[Adoptable, ...] = Field(default=())
    """Empty: only look."""


class Adoption(FrozenModel):
    """What there was to take over."""

    found: tuple[Adoptable, ...] = ()
    """What could be taken over, and has not been."""
    taken: tuple[Adoptable, ...] = ()
    """What was approved and is another's no more."""
    obstacles: tuple[str, ...] = ()
    """What bears a name of the object's and cannot be taken over, and why."""
