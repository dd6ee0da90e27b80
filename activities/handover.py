"""A host that an object has left, and that another waits for, goes to the other even if the object's new one is taken.

Two applications that swap their hosts would wait for each other for ever. What nobody waits for stays: a domain that is
refused changes nothing.
"""

from activities.clients.kube import KubeClient
from activities.clients.ledger import Ledger
from activities.clients.resources import INGRESSES, Json
from activities.ownership import belongs_to
from plattr.claims import Holding, claims_of
from plattr.errors import StillDeleting
from plattr.marks import estate_of
from plattr.target import Target


async def hand_over_left_hosts(kube: KubeClient, ledger: Ledger, target: Target) -> None:
    """Give back the hosts that the target does not ask for any more and others do, after their Ingresses.

    Raises:
        StillDeleting: an Ingress is held, as by the finalizer of a load balancer's controller.
        Conflict: a claim or an Ingress changed under our hands.
    """
    needed, estate = claims_of(target), estate_of(target.owner)
    held = await ledger.held_by(estate, Holding.HOST)
    left = [each.claim for each in held if each.is_sought and each.claim not in needed]
    if not left:
        return
    names, hosts = target.names, {claim.name for claim in left}
    for name in (names.stem, names.api_ingress):
        body = await kube.get(INGRESSES, name, names.namespace)
        if body is None or not belongs_to(body, estate) or not hosts & _hosts_of(body):
            continue
        await kube.delete(INGRESSES, name, names.namespace, uid=body["metadata"]["uid"])
        found = await kube.get(INGRESSES, name, names.namespace)
        if found is not None and found["metadata"]["uid"] == body["metadata"]["uid"]:
            raise StillDeleting(f"cannot give back host {', '.join(sorted(hosts))!r}: Ingress {name!r} is still there")
    await ledger.release(estate, left)


def _hosts_of(ingress: Json) -> set[str]:
    return {rule.get("host", "") for rule in ingress.get("spec", {}).get("rules") or []}
