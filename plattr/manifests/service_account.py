"""The ServiceAccount that the pods run as."""

from typing import Any

from plattr.manifests.metadata import build_metadata
from plattr.naming import role_arn
from plattr.target import Target

# https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html
IRSA_ANNOTATION = "eks.amazonaws.com/role-arn"


def build_service_account(target: Target, *, role_template: str | None) -> dict[str, Any]:
    """Return the ServiceAccount; with a role template, its pods get AWS credentials of a role of their own."""
    annotations = {IRSA_ANNOTATION: role_arn(role_template, target.names)} if role_template else {}
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": build_metadata(target, target.names.stem, annotations=annotations),
        # An application does not talk to the API server. IRSA projects a separate token.
        "automountServiceAccountToken": False,
    }
