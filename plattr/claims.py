"""Claims: who holds a name that can exist only once on the platform; the first claim wins.

Each claim is a Lease in Plattr's own namespace, created before the resource it stands for. Creating a Lease is atomic.
So two objects can never both believe that they own a schema, bucket, realm or host. A cleanup takes the claims of an
owner as its inventory, even when the object is long gone.
"""

from collections.abc import Collection
from datetime import datetime

from plattr.features import ClaimKind, features_of, is_data_kind
from plattr.naming import preview_families
from plattr.objects import FrozenModel, Owner
from plattr.target import Target


class Claim(FrozenModel):
    """One name that an owner needs for itself; `name` is the name in its backend."""

    kind: ClaimKind
    name: str

    @property
    def lease_name(self) -> str:
        """Return the Lease's name; injective, since SQL names hold no hyphen and the others no underscore.

        The kind stands last: a schema's name may end in an underscore, but a Lease's name must not end in a hyphen.
        """
        return f"{self.name.replace('_', '-')}-{self.kind}"


class HeldClaim(FrozenModel):
    """A claim as it stands in the claim store."""

    claim: Claim
    owner: Owner
    is_retained: bool = False
    """The owner's deletionPolicy was Retain when it last claimed the name: the named resource outlives the object."""
    is_made: bool = False
    """Nothing had the name when the owner set out to make it. A resource of this name is the owner's, marked or not."""
    unanswered_until: datetime | None = None
    """Until when an unanswered call about the name may still take effect. The note outlives that moment."""
    references: str = ""
    """Only for the workload's own name: which of the user's objects its last run saw; see plattr/references.py."""
    quarantined_until: datetime | None = None
    """The owner is gone and has released the name. No object gets the name while that call may still take effect."""

    @property
    def may_be_made(self) -> bool:
        """Tell whether the owner may have made what has the name: a call without an answer may have made it."""
        return self.is_made or self.unanswered_until is not None


def is_data(claim: Claim) -> bool:
    """Tell whether what has the name can outlive its object."""
    return is_data_kind(claim.kind)


def goes_with_object(held: HeldClaim) -> bool:
    """Tell whether the object's end releases the name: true except for retained data and names in quarantine."""
    return held.quarantined_until is None and not (held.is_retained and is_data(held.claim))


def outliving(held: Collection[HeldClaim], uid: str) -> tuple[Claim, ...]:
    """Return what earlier objects of this name retained and this one has not adopted; its cleanup must spare that.

    What this object adopted has its uid, and follows its own deletionPolicy.
    """
    others = [each for each in held if each.owner.uid != uid]
    # If a feature was disabled before, its claim still tells the policy of that time.
    retaining = {each.owner.uid for each in others if each.is_retained}
    kept = {each.claim for each in others if each.owner.uid in retaining and is_data(each.claim)}
    # Roles own the tables in their environment's schemas, whatever the names of these schemas.
    environments = {_environment(claim) for claim in kept if claim.kind is ClaimKind.SCHEMA}
    kept |= {
        each.claim for each in held if each.claim.kind is ClaimKind.ROLES and _environment(each.claim) in environments
    }
    return tuple(sorted(kept, key=lambda claim: claim.lease_name))


def _environment(claim: Claim) -> str:
    # An Application's names in PostgreSQL begin with its environment. Previews retain nothing.
    return claim.name.partition("_")[0]


def claims_of(target: Target) -> tuple[Claim, ...]:
    """Return every name the target needs for itself, in a stable order."""
    of_features = [pair for feature in features_of(target) for pair in feature.claims(target.names, target.spec)]
    return (
        host_claim(target),
        workload_claim(target),
        *(Claim(kind=kind, name=name) for kind, name in of_features),
    )


def host_claim(target: Target) -> Claim:
    """Return the claim of the host that an object is served at; each object asks for one."""
    return Claim(kind=ClaimKind.HOST, name=target.names.host)


def workload_claim(target: Target) -> Claim:
    """Return the claim of the workload's own name; each object has exactly one."""
    return Claim(kind=ClaimKind.INGRESS, name=f"{target.names.namespace}.{target.names.stem}")


def previews_claim(application: str) -> Claim:
    """Return the claim of the names that previews of an application of this name have, in any namespace."""
    return Claim(kind=ClaimKind.PREVIEWS, name=application)


def other_families(target: Target) -> tuple[str, ...]:
    """Return the other applications whose previews could have one of the target's names."""
    own = target.parent if target.is_preview else target.owner.reference.name
    return tuple(sorted(preview_families(target.names, target.spec) - {own}))
