"""Adoption: taking over resources that have an object's names and another owner's mark, after a person's approval."""

import hashlib

from pydantic import Field

from plattr.marks import Mark
from plattr.objects import FrozenModel, ObjectReference


class Adoptable(FrozenModel):
    """One resource that an object could take over."""

    what: str
    holder: str
    """The owner that the mark names, in words that are safe to show."""
    fingerprint: str
    """Of its mark. An approved resource is taken over only while its mark is unchanged."""

    @classmethod
    def of(cls, what: str, mark: Mark | None, holder: str) -> "Adoptable":
        """Return the resource as it is marked now."""
        text = mark.model_dump_json() if mark is not None else ""
        return cls(what=what, holder=holder, fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16])


class AdoptionInput(FrozenModel):
    """Look for what an object could take over, and take over what a person has approved."""

    reference: ObjectReference
    approved: tuple[Adoptable, ...] = Field(default=())
    """Empty: look only."""


class Adoption(FrozenModel):
    """What there was to take over."""

    found: tuple[Adoptable, ...] = ()
    """What could be taken over, but has not been."""
    taken: tuple[Adoptable, ...] = ()
    """What was approved and now belongs to the object."""
    obstacles: tuple[str, ...] = ()
    """What has one of the object's names but cannot be taken over, and why."""
