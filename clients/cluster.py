"""The id of this cluster, as the owner marks of all resources name it."""

from clients.kube import KubeClient
from clients.resources import NAMESPACES
from plattr.errors import BackendUnavailable
from plattr.settings import Settings

# This namespace is as old as its cluster, and cannot be removed.
_OLDEST_NAMESPACE = "kube-system"


async def cluster_id(kube: KubeClient, settings: Settings) -> str:
    """Return the cluster's id from the settings, or else the UID of namespace kube-system.

    Raises:
        BackendUnavailable: the API server cannot be reached.
        BackendRefused: the API server does not let the worker read the namespace.
    """
    if settings.cluster_id is not None:
        return settings.cluster_id
    namespace = await kube.get(NAMESPACES, _OLDEST_NAMESPACE)
    if namespace is None:
        raise BackendUnavailable(f"cannot tell which cluster this is: namespace {_OLDEST_NAMESPACE!r} is not there yet")
    uid: str = namespace["metadata"]["uid"]
    return uid
