"""The ServiceAccount that the pods run as."""

from typing import Any

from plattr.manifests.metadata import build_metadata
from plattr.target import Target

# https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html
IRSA_ANNOTATION = "eks.amazonaws.com/role-arn"


def build_service_account(target: Target, *, irsa_role_arn: str | None) -> dict[str, Any]:
    """Return the ServiceAccount; with a role, its pods get AWS credentials of that role."""
    annotations = {IRSA_ANNOTATION: irsa_role_arn} if irsa_role_arn else {}
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": build_metadata(target, target.names.stem, annotations=annotations),
        # An application does not talk to the API server; IRSA projects a token of its own.
        "automountServiceAccountToken": False,
    }
