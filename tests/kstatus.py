"""What Flux, Helm --wait and Argo CD read from an object's status."""

from clients.resources import Json


def kstatus(body: Json | None) -> str:
    """Return what the library kstatus computes for a custom resource, rule by rule and in its order.

    https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/status/generic.go
    https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/status/status.go
    """
    if body is None:
        return "NotFound"
    metadata, status = body["metadata"], body.get("status", {})
    conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
    if "deletionTimestamp" in metadata:
        return "Terminating"
    if status.get("observedGeneration", metadata["generation"]) != metadata["generation"]:
        return "InProgress"
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    # An object that says nothing at all counts as done.
    return "Current" if conditions.get("Ready", "True") == "True" else "InProgress"
