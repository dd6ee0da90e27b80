"""A Kubernetes control plane: etcd, API server, controllers, scheduler, and kwok, which simulates the nodes."""

import contextlib
import ssl
from importlib import resources
from typing import Any

import httpx

from stack.processes import Command
from stack.services.base import Service, Site
from stack.services.cluster import Cluster
from stack.services.pki import make_keys

# Without node-lifecycle, horizontal-pod-autoscaler and volumes: the simulated node needs none of them.
CONTROLLERS = (
    *("namespace", "garbage-collector", "serviceaccount", "serviceaccount-token", "root-ca-certificate-publisher"),
    *("clusterrole-aggregation", "deployment", "replicaset", "statefulset", "job", "cronjob", "endpointslice"),
    *("disruption", "resourcequota"),
)
# No leader election and no port. The default limit of 20 requests a second makes large tests slow.
QUIET = ("--leader-elect=false", "--secure-port=0", "--profiling=false", "--kube-api-qps=500", "--kube-api-burst=1000")


class ControlPlaneService(Service):
    """What the five services share: one folder, one set of keys, the admin's kubeconfig."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.cluster = Cluster(site)

    def prepare(self) -> None:
        """Write the admin's kubeconfig."""
        super().prepare()
        self.cluster.write_admin_kubeconfig()

    def key(self, name: str) -> str:
        """Return the path of a key or certificate."""
        return str(self.cluster.keys / name)

    def binary(self, *arguments: str) -> Command:
        """Return a command that starts the service's own binary in its folder."""
        return Command(arguments=(self.site.tool(self.name), *arguments), folder=self.folder)


class Etcd(ControlPlaneService):
    """etcd over mutual TLS, without fsync: safe against kill -9, but not against power loss."""

    name = "etcd"
    ports = ("etcd",)

    @property
    def address(self) -> str:
        """The address for clients."""
        return f"https://127.0.0.1:{self.site.port('etcd')}"

    def prepare(self) -> None:
        """Create the keys, because etcd is the first of the five to start."""
        make_keys(self.cluster.keys, self.site.credential("kubernetes-admin"))
        super().prepare()

    def command(self) -> Command:
        """Start one member. Its peer port is any free port, because there are no peers."""
        peer = "https://127.0.0.1:0"
        authority, certificate, key = self.key("ca.crt"), self.key("etcd.crt"), self.key("etcd.key")
        return self.binary(
            *("--name=local", "--data-dir=data", "--log-level=warn", "--unsafe-no-fsync"),
            *(f"--listen-client-urls={self.address}", f"--advertise-client-urls={self.address}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=local={peer}"),
            *(f"--cert-file={certificate}", f"--key-file={key}", f"--trusted-ca-file={authority}"),
            *(f"--peer-cert-file={certificate}", f"--peer-key-file={key}", f"--peer-trusted-ca-file={authority}"),
            *("--client-cert-auth", "--peer-client-cert-auth"),
            *("--auto-compaction-mode=periodic", "--auto-compaction-retention=30m", "--quota-backend-bytes=2147483648"),
        )

    def is_healthy(self) -> bool:
        """Tell whether its health page answers over mutual TLS."""
        context = ssl.create_default_context(cafile=self.key("ca.crt"))
        context.load_cert_chain(self.key("etcd.crt"), self.key("etcd.key"))
        try:
            return httpx.get(f"{self.address}/health", verify=context, timeout=2, trust_env=False).is_success
        except httpx.HTTPError:
            return False


class ApiServer(ControlPlaneService):
    """The API server. It gets Plattr's namespace, CRDs and roles before any other process watches it."""

    name = "kube-apiserver"
    ports = ("kubernetes",)
    requires = ("etcd",)

    @property
    def address(self) -> str:
        """The address of the API."""
        return self.cluster.server

    def command(self) -> Command:
        """Start the API server with RBAC and without anonymous requests."""
        return self.binary(
            *(f"--etcd-servers=https://127.0.0.1:{self.site.port('etcd')}", f"--etcd-cafile={self.key('ca.crt')}"),
            *(f"--etcd-certfile={self.key('etcd.crt')}", f"--etcd-keyfile={self.key('etcd.key')}"),
            *("--bind-address=127.0.0.1", f"--secure-port={self.site.port('kubernetes')}"),
            *(f"--tls-cert-file={self.key('apiserver.crt')}", f"--tls-private-key-file={self.key('apiserver.key')}"),
            *(f"--token-auth-file={self.key('tokens.csv')}", "--anonymous-auth=false", "--authorization-mode=RBAC"),
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.key('sa.pub')}",
            f"--service-account-signing-key-file={self.key('sa.key')}",
            "--service-cluster-ip-range=10.96.0.0/16",
            # A loopback address is not a valid endpoint of the Service `kubernetes`.
            "--endpoint-reconciler-type=none",
            # Otherwise a new node keeps a not-ready taint, which only the node-lifecycle controller removes.
            "--disable-admission-plugins=TaintNodesByCondition",
            *("--enable-priority-and-fairness=false", "--profiling=false", "--event-ttl=1h"),
        )

    def is_healthy(self) -> bool:
        """Tell whether it is ready, asked as the admin."""
        with contextlib.suppress(httpx.HTTPError), self.cluster.client() as http:
            return http.get("/readyz").is_success
        return False

    def set_up(self) -> None:
        """Create the namespace, the node, the CRDs and roles, and the kubeconfigs of worker and watcher."""
        self.cluster.set_up()


class ControllerManager(ControlPlaneService):
    """The controllers. They start after the CRDs exist, because they look for new kinds only every 30 s."""

    name = "kube-controller-manager"
    requires = ("kube-apiserver",)

    def command(self) -> Command:
        """Run as the admin."""
        return self.binary(
            *(f"--kubeconfig={self.cluster.admin_kubeconfig}", *QUIET),
            *(f"--service-account-private-key-file={self.key('sa.key')}", f"--root-ca-file={self.key('ca.crt')}"),
            f"--controllers={','.join(f'{name}-controller' for name in CONTROLLERS)}",
        )

    def is_healthy(self) -> bool:
        """Tell whether it has created the default ServiceAccount of Plattr's namespace."""
        return self.cluster.find("/api/v1/namespaces/plattr-system/serviceaccounts/default") is not None


class Scheduler(ControlPlaneService):
    """The scheduler, with which pods really wait for resources."""

    name = "kube-scheduler"
    requires = ("kube-apiserver",)

    def command(self) -> Command:
        """Run as the admin."""
        return self.binary(f"--kubeconfig={self.cluster.admin_kubeconfig}", *QUIET)

    def is_healthy(self) -> bool:
        """Return True: it listens on nothing, and the supervisor notices its exit."""
        return True


class Kwok(ControlPlaneService):
    """The simulated kubelets. Pods become ready, or fail as their annotation sim/outcome says."""

    name = "kwok"
    requires = ("kube-apiserver",)

    def command(self) -> Command:
        """Run the stages of stack/kube/stages.yaml, without leases, so that an idle platform writes nothing."""
        stages = resources.files("stack") / "kube" / "stages.yaml"
        return self.binary(
            *(f"--kubeconfig={self.cluster.admin_kubeconfig}", f"--config={stages}", "--manage-all-nodes=true"),
            *("--node-lease-duration-seconds=0", "--cidr=10.244.0.0/16", "--server-address=", "-v=WARN"),
        )

    def is_healthy(self) -> bool:
        """Tell whether it has made the node ready."""
        node: dict[str, Any] = self.cluster.find("/api/v1/nodes/sim-0") or {}
        conditions = node.get("status", {}).get("conditions", [])
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
