"""Which cluster this is, as every resource's mark names it."""

from clients.kube import KubeClient
from clients.resources import NAMESPACES
from plattr.errors import BackendUnavailable
from plattr.settings import Settings

# It is as old as its cluster, and nobody can remove it.
_OLDEST_NAMESPACE = "kube-system"


async def cluster_id(kube: KubeClient, settings: Settings) -> str:
    """Return the cluster's name from the settings, else the UID of namespace kube-system.

    Raises:
        BackendUnavailable: the API server cannot be reached.
        BackendRefused: it does not let the worker read the namespace.
    """
    if settings.cluster_id is not None:
        return settings.cluster_id
    namespace = await kube.get(NAMESPACES, _OLDEST_NAMESPACE)
    if namespace is None:
        raise BackendUnavailable(f"cannot tell which cluster this is: namespace {_OLDEST_NAMESPACE!r} is not there yet")
    uid: str = namespace["metadata"]["uid"]
    return uid
