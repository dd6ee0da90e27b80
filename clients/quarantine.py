"""Names in quarantine: a call about the name, made for a deleted object, may still take effect."""

from datetime import UTC, datetime, timedelta

from clients.resources import Json
from plattr.claims import Claim
from plattr.errors import NameQuarantined
from plattr.objects import GROUP, Owner
from plattr.target import OWNER_UID_ANNOTATION

UNANSWERED_ANNOTATION = f"{GROUP}/unanswered-since"
QUARANTINE_LABEL = f"{GROUP}/quarantined"
QUARANTINE_ANNOTATION = f"{GROUP}/quarantined-until"

# 5 min: Keycloak ends a transaction after this time, and with it a call whose caller is gone. After the death of a
# worker, a realm was seen to appear a minute later. https://www.keycloak.org/server/all-config
LATE_CALL = timedelta(minutes=5)


def ensure_out_of_quarantine(claim: Claim, lease: Json, owner: Owner) -> None:
    """Return if no call made for an earlier object can still take effect on this name; raise otherwise."""
    end = end_of_late_call(lease)
    is_anothers = lease["metadata"].get("annotations", {}).get(OWNER_UID_ANNOTATION) != owner.uid
    if end is not None and end > datetime.now(UTC) and (is_anothers or quarantine_end(lease) is not None):
        raise quarantined(claim, owner, end)


def quarantined(claim: Claim, owner: Owner, end: datetime) -> NameQuarantined:
    """Return the error that refuses a name in quarantine."""
    error = NameQuarantined(
        f"cannot claim {claim.kind} {claim.name!r} for {owner.reference}: it was another object's, and a call about"
        f" it that was never answered may come true until {end:%H:%M:%S} UTC; it is tried again then",
        end,
    )
    error.condition = claim.kind.condition
    return error


def end_of_late_call(lease: Json) -> datetime | None:
    """Return until when an unanswered call about the name may take effect; None: there is no such call."""
    since = moment(lease["metadata"].get("annotations", {}).get(UNANSWERED_ANNOTATION))
    return since + LATE_CALL if since is not None else None


def quarantine_end(lease: Json) -> datetime | None:
    """Return when a name's quarantine ends; None: the name is not in quarantine."""
    return moment(lease["metadata"].get("annotations", {}).get(QUARANTINE_ANNOTATION))


def moment(text: str | None) -> datetime | None:
    """Return the time that an annotation holds; None: it holds none."""
    return datetime.fromisoformat(text) if text else None
