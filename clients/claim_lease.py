"""The Lease of a claim: how it is written, and how it is read."""

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
# The Lease's own name has hyphens where the claimed name may have underscores.
CLAIMED_NAME_ANNOTATION = f"{GROUP}/claimed-name"
# Kept here because a person may remove the object by force, and its spec is gone with it.
RETAINED_ANNOTATION = f"{GROUP}/retained"
# The resource itself may not tell: a bucket cannot be created with its tags, and of a realm that an account has
# lost its rights in Keycloak shows no attributes.
MADE_ANNOTATION = f"{GROUP}/made"
# Here, where no tenant can write: whoever names a thousand Secrets on a Deployment must not have them read.
REFERENCES_ANNOTATION = f"{GROUP}/references"


def build_lease(claim: Claim, owner: Owner, namespace: str, *, is_retained: bool) -> Json:
    """Return the Lease that stands for an owner's claim."""
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
    """Return the operations that fail a patch of a claim that is not the owner's."""
    parts = [
        ("/spec/holderIdentity", estate.reference.key),
        (annotation_path(OWNER_CLUSTER_ANNOTATION), estate.cluster),
        (annotation_path(OWNER_NAMESPACE_UID_ANNOTATION), estate.namespace_uid),
    ]
    return [{"op": "test", "path": path, "value": value} for path, value in parts if value is not None]


def holder_mark(lease: Json) -> Mark:
    """Return whose a claim is: creating decided the holder, so it counts before what an annotation says."""
    key = str(lease.get("spec", {}).get("holderIdentity", ""))
    annotated = annotated_mark({OWNER_ANNOTATION: key, **lease["metadata"].get("annotations", {})})
    return annotated.model_copy(update={"key": key}) if annotated else Mark(key=key)


def read_claim(lease: Json, reference: ObjectReference) -> HeldClaim:
    """Return the claim that a Lease of this object's stands for."""
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
