"""Write and read the Lease that stores a claim."""

from clients.claim_release import annotation_path
from clients.quarantine import end_of_late_call, quarantine_end
from clients.resources import LEASES, Json
from plattr.claims import Claim, HeldClaim
from plattr.features import ClaimKind
from plattr.marks import Estate, Mark
from plattr.objects import GROUP, ObjectReference, Owner
from plattr.target import (
    OWNER_ANNOTATION,
    OWNER_CLUSTER_ANNOTATION,
    OWNER_NAMESPACE_UID_ANNOTATION,
    OWNER_UID_ANNOTATION,
    annotated_mark,
    owner_annotations,
    owner_labels,
)

CLAIM_KIND_LABEL = f"{GROUP}/claim-kind"
# The Lease's own name is not enough: it has hyphens where the claimed name may have underscores.
CLAIMED_NAME_ANNOTATION = f"{GROUP}/claimed-name"
# Stored here because a person may remove the object by force, and then its spec is gone too.
RETAINED_ANNOTATION = f"{GROUP}/retained"
# The resource itself may not show it. A bucket cannot be created together with its tags. Keycloak shows no attributes
# of a realm in which the account has lost its rights.
MADE_ANNOTATION = f"{GROUP}/made"
# Stored here because no tenant can write here. On a Deployment, a tenant could name a thousand Secrets and have Plattr
# read them.
REFERENCES_ANNOTATION = f"{GROUP}/references"


def build_lease(claim: Claim, owner: Owner, namespace: str, *, is_retained: bool) -> Json:
    """Return the Lease that stores an owner's claim."""
    return {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {
            "name": claim.lease_name,
            "namespace": namespace,
            "labels": owner_labels(owner.reference) | {CLAIM_KIND_LABEL: str(claim.kind)},
            "annotations": owner_annotations(owner)
            | {CLAIMED_NAME_ANNOTATION: claim.name, RETAINED_ANNOTATION: str(is_retained).lower()},
        },
        "spec": {"holderIdentity": owner.reference.key},
    }


def tests_of_holder(estate: Estate) -> list[Json]:
    """Return the `test` operations by which a patch fails if another owner holds the claim."""
    parts = [
        ("/spec/holderIdentity", estate.reference.key),
        (annotation_path(OWNER_CLUSTER_ANNOTATION), estate.cluster),
        (annotation_path(OWNER_NAMESPACE_UID_ANNOTATION), estate.namespace_uid),
    ]
    return [{"op": "test", "path": path, "value": value} for path, value in parts if value is not None]


def holder_mark(lease: Json) -> Mark:
    """Return the owner of a claim. The creation set the holder, so the holder counts before the annotations."""
    key = str(lease.get("spec", {}).get("holderIdentity", ""))
    annotated = annotated_mark({OWNER_ANNOTATION: key, **lease["metadata"].get("annotations", {})})
    return annotated.model_copy(update={"key": key}) if annotated else Mark(key=key)


def read_claim(lease: Json, reference: ObjectReference) -> HeldClaim:
    """Return the claim that a Lease of this object stores."""
    metadata = lease["metadata"]
    annotations = metadata["annotations"]
    return HeldClaim(
        claim=Claim(kind=ClaimKind(metadata["labels"][CLAIM_KIND_LABEL]), name=annotations[CLAIMED_NAME_ANNOTATION]),
        owner=Owner(
            reference=reference,
            uid=annotations[OWNER_UID_ANNOTATION],
            cluster=annotations.get(OWNER_CLUSTER_ANNOTATION, ""),
            namespace_uid=annotations.get(OWNER_NAMESPACE_UID_ANNOTATION, ""),
        ),
        is_retained=annotations.get(RETAINED_ANNOTATION) == "true",
        is_made=annotations.get(MADE_ANNOTATION) == "true",
        unanswered_until=end_of_late_call(lease),
        references=annotations.get(REFERENCES_ANNOTATION, ""),
        quarantined_until=quarantine_end(lease),
    )
