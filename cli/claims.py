"""The claims of an object, for people who may read them."""

from cli.connection import Session
from clients.claim_store import ClaimStore
from plattr.claims import HeldClaim
from plattr.errors import BackendRefused
from plattr.objects import ObjectReference


async def held_claims(session: Session, reference: ObjectReference) -> list[HeldClaim]:
    """Return the claims of an owner. The list is empty for a person without the right to read the platform's claims."""
    try:
        return await readable_claims(session, reference)
    except BackendRefused:
        return []


async def readable_claims(session: Session, reference: ObjectReference) -> list[HeldClaim]:
    """Return the claims of an owner.

    Raises:
        BackendRefused: the person may not read them.
    """
    return await ClaimStore(session.kube, session.lease_namespace).held_under(reference)


def claim_words(claims: list[HeldClaim]) -> str:
    """Return the names in one line: bucket plattr-prod-shop-files, schema prod_shop."""
    return ", ".join(sorted(f"{held.claim.kind} {held.claim.name}" for held in claims))
