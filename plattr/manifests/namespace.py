"""The namespace that a preview has for itself."""

from collections.abc import Mapping
from typing import Any

from plattr.objects import GROUP
from plattr.target import Target

TYPE_LABEL = f"{GROUP}/type"
APPLICATION_LABEL = f"{GROUP}/app"
PULL_REQUEST_LABEL = f"{GROUP}/pr"
# https://kubernetes.io/docs/concepts/security/pod-security-admission/
POD_SECURITY_LABEL = "pod-security.kubernetes.io/enforce"


def build_namespace(
    target: Target, *, labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the preview's namespace; the API server admits only `restricted` pods there.

    Args:
        target: the preview.
        labels: the installation's own, for example for a mesh; Plattr's own win.
        annotations: likewise.

    Raises:
        ValueError: the target is not a preview; an Application lives in its object's namespace.
    """
    if not target.is_preview:
        raise ValueError(f"cannot build a namespace for {target.owner.reference}: only previews have their own")
    own = {
        TYPE_LABEL: "preview",
        APPLICATION_LABEL: target.parent,
        PULL_REQUEST_LABEL: str(target.pull_request),
        POD_SECURITY_LABEL: "restricted",
    }
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": target.names.namespace,
            "labels": dict(labels or {}) | target.labels | own,
            "annotations": dict(annotations or {}) | target.annotations,
        },
    }
