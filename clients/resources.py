"""The Kubernetes resources that Plattr touches, as the API server's paths name them."""

from dataclasses import dataclass
from typing import Any

from plattr.objects import GROUP, VERSION, Kind

Json = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """One resource type; an empty group is the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Return what manifests call `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version


SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
SERVICES = Resource("", "v1", "services", "Service")
PODS = Resource("", "v1", "pods", "Pod")
EVENTS = Resource("", "v1", "events", "Event")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
RESOURCE_QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
LIMIT_RANGES = Resource("", "v1", "limitranges", "LimitRange")
AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
# Its name is empty: the path of a group's version alone answers what it serves, and 404 where it is not installed.
CERT_MANAGER = Resource("cert-manager.io", "v1", "", "APIResourceList", namespaced=False)
CERTIFICATES = Resource("cert-manager.io", "v1", "certificates", "Certificate")
APPLICATIONS = Resource(GROUP, VERSION, Kind.APPLICATION.plural, Kind.APPLICATION)
PREVIEWS = Resource(GROUP, VERSION, Kind.PREVIEW.plural, Kind.PREVIEW)


def custom_resource(kind: Kind) -> Resource:
    """Return the resource of one of Plattr's own kinds."""
    return APPLICATIONS if kind is Kind.APPLICATION else PREVIEWS


def is_deleting(body: Json) -> bool:
    """Tell whether the API server has been asked to delete this Kubernetes object."""
    return "deletionTimestamp" in body["metadata"]
