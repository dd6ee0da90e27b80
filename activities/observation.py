"""Check the conditions of the workload once more before they are written to the status."""

from collections.abc import Sequence

from activities.certificates import certificate_update
from activities.ownership import belongs_to, list_owned, namespaces_of
from clients.concurrency import all_of
from clients.kube import KubeClient
from clients.resources import DEPLOYMENTS, INGRESSES, Json
from plattr.features import ConditionType
from plattr.marks import Estate, estate_of
from plattr.objects import ObjectReference
from plattr.status import ConditionUpdate
from plattr.target import Target


async def observed(kube: KubeClient, target: Target, updates: Sequence[ConditionUpdate]) -> tuple[ConditionUpdate, ...]:
    """Return the updates as they are true now.

    The rollout lies between a step and the status, and may take minutes. Only updates that say True are checked again.
    A failure keeps the message of the step that failed.
    """
    return tuple(await all_of(_now(kube, target, update) for update in updates))


async def gone_workload(kube: KubeClient, reference: ObjectReference) -> tuple[ConditionUpdate, ...]:
    """Return the conditions for the Deployment and the Ingresses of an object in deletion, if these are gone."""
    estate = Estate(reference=reference, cluster=kube.cluster, namespace_uid=None)
    namespaces = await namespaces_of(kube, estate)
    kinds = {ConditionType.DEPLOYMENT: DEPLOYMENTS, ConditionType.INGRESS: INGRESSES}
    gone = []
    for kind, resource in kinds.items():
        found = await all_of(list_owned(kube, resource, estate, namespace) for namespace in namespaces)
        if not any(found):
            gone.append(_false(kind, "Removed", "it is removed with the object"))
    return tuple(gone)


async def _now(kube: KubeClient, target: Target, update: ConditionUpdate) -> ConditionUpdate:
    if update.status == "True" and update.type is ConditionType.DEPLOYMENT:
        return await _deployment(kube, target) or update
    if update.status == "True" and update.type is ConditionType.INGRESS:
        return await _ingress(kube, target) or update
    return update


async def _deployment(kube: KubeClient, target: Target) -> ConditionUpdate | None:
    names = target.names
    body = await kube.get(DEPLOYMENTS, names.stem, names.namespace)
    what = f"Deployment {names.stem!r} in namespace {names.namespace!r}"
    if body is None or not belongs_to(body, estate_of(target.owner)):
        return _false(ConditionType.DEPLOYMENT, "DeploymentMissing", f"{what} is not there any more")
    status = body.get("status", {})
    available = next((each for each in status.get("conditions", []) if each["type"] == "Available"), None)
    if available is not None and available["status"] == "False":
        return _false(
            ConditionType.DEPLOYMENT,
            available.get("reason") or "Unavailable",
            available.get("message") or f"{what} is not available any more",
        )
    if available is None or status.get("observedGeneration", 0) < body["metadata"]["generation"]:
        return ConditionUpdate(
            type=ConditionType.DEPLOYMENT,
            status="Unknown",
            reason="RolloutInProgress",
            message=f"{what} has changed since it was available",
        )
    return None


async def _ingress(kube: KubeClient, target: Target) -> ConditionUpdate | None:
    names = target.names
    wanted = [names.stem] + ([names.api_ingress] if target.spec.database.enabled else [])
    bodies = await all_of(kube.get(INGRESSES, name, names.namespace) for name in wanted)
    for name, body in zip(wanted, bodies, strict=True):
        what = f"Ingress {name!r} in namespace {names.namespace!r}"
        if body is None or not belongs_to(body, estate_of(target.owner)):
            return _false(ConditionType.INGRESS, "IngressMissing", f"{what} is not there any more")
        if names.host not in _hosts(body):
            return _false(ConditionType.INGRESS, "HostMissing", f"{what} does not lead {names.host!r} anywhere")
    main = bodies[0]
    return await certificate_update(kube, main, names.host) if main is not None else None


def _hosts(ingress: Json) -> set[str]:
    return {rule.get("host", "") for rule in ingress.get("spec", {}).get("rules", [])}


def _false(kind: ConditionType, reason: str, message: str) -> ConditionUpdate:
    return ConditionUpdate(type=kind, status="False", reason=reason, message=message)
