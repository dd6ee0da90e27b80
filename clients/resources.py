"""The Kubernetes resources that Plattr touches, as the API server's paths name them."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

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
        """Return the value of `apiVersion` in manifests."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the API server's path of an object or of a list; without a namespace, the list covers all."""
        parts = [f"/apis/{self.group}" if self.group else "/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts += [part for part in (self.plural, quote(name, safe=""), subresource) if part]
        return "/".join(parts)

    def describe(self, name: str, namespace: str = "") -> str:
        """Return an object's kind, name and place, for a message."""
        place = f" in namespace {namespace!r}" if self.namespaced and namespace else ""
        return f"{self.kind} {name!r}{place}"


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
# The plural is empty: the path of a group's version alone lists the resources of the group, and answers 404 if the
# group is not installed.
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
