"""Owner marks: which owner a resource names, and whether this is a given object; one rule for every backend.

Two clusters may share a backend, and a namespace may be created again under its old name. So the object's key alone
does not say which cluster or namespace a resource belongs to. See docs/decisions/0027-whose-a-resource-is.md.
"""

import re

from plattr.errors import OwnedElsewhere
from plattr.objects import NO_OWNER, UNREADABLE_OWNER, FrozenModel, ObjectReference, Owner, parse_key

# It fits a UID and a name that people choose. It becomes the value of a tag, an annotation and a comment.
CLUSTER_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


class Mark(FrozenModel):
    """The owner that a resource names. Tenants can write some marks, so a message quotes no mark unchecked."""

    key: str
    cluster: str = ""
    namespace_uid: str = ""
    uid: str = ""

    @classmethod
    def of(cls, owner: Owner) -> "Mark":
        """Return the mark that an owner's resources carry."""
        return cls(key=owner.reference.key, cluster=owner.cluster, namespace_uid=owner.namespace_uid, uid=owner.uid)


class Estate(FrozenModel):
    """All that an object has, under any uid: what a cleanup may look for."""

    reference: ObjectReference
    cluster: str
    namespace_uid: str | None
    """None: every namespace that has had the name. A person asked for all that is left, or the namespace is gone."""

    def holds(self, mark: Mark | None) -> bool:
        """Tell whether a resource with this mark belongs to it."""
        return (
            mark is not None
            and (mark.key, mark.cluster) == (self.reference.key, self.cluster)
            and self.namespace_uid in (None, mark.namespace_uid)
        )


def estate_of(owner: Owner) -> Estate:
    """Return the estate of a living owner, in its own namespace alone."""
    return Estate(reference=owner.reference, cluster=owner.cluster, namespace_uid=owner.namespace_uid)


def ensure_own(what: str, mark: Mark | None, owner: Owner) -> None:
    """Refuse a resource that has one of the owner's names but is not the owner's.

    Raises:
        OwnedElsewhere: it belongs to another object, another cluster or an earlier namespace, or has no owner.
    """
    if not estate_of(owner).holds(mark):
        raise foreign(what, mark, owner)


def foreign(what: str, mark: Mark | None, owner: Owner) -> OwnedElsewhere:
    """Return the refusal of a resource whose mark is not the owner's."""
    return owned_elsewhere(what, owner, holder_words(mark, owner), _remedy(mark, owner))


def owned_elsewhere(
    what: str, owner: Owner, holder: str, remedy: str = "choose another name or remove it"
) -> OwnedElsewhere:
    """Return the refusal of a resource that belongs to another owner; no other function writes its text."""
    return OwnedElsewhere(f"cannot adopt {what} for {owner.reference}: it belongs to {holder}; {remedy}")


def holder_words(mark: Mark | None, owner: Owner) -> str:
    """Return the owner of a resource in words for another owner; quotes only what Plattr itself would write."""
    if mark is None or not mark.key:
        return NO_OWNER
    if parse_key(mark.key) is None:
        return UNREADABLE_OWNER
    if mark.cluster != owner.cluster:
        readable = re.fullmatch(CLUSTER_PATTERN, mark.cluster)
        return f"{mark.key} of {f'cluster {mark.cluster!r}' if readable else 'an unreadable cluster'}"
    if mark.key != owner.reference.key:
        return mark.key
    return f"{mark.key} of an earlier namespace of that name"


def _remedy(mark: Mark | None, owner: Owner) -> str:
    if mark is None or parse_key(mark.key) is None:
        return "choose another name or remove it"
    if mark.cluster == owner.cluster and mark.key != owner.reference.key:
        return "choose another name or remove it"
    return "choose another name, or take it over with `plattr adopt`"
