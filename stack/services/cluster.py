"""The contents of the local cluster: namespace, node, CRDs, roles, and a kubeconfig for each user."""

import base64
import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import yaml

from stack.errors import PlatformError
from stack.folders import DEPLOY, write_private
from stack.processes import Command, run
from stack.services.base import Site

NAMESPACE = "plattr-system"
# The ServiceAccounts that deploy/rbac creates, by role.
ACCOUNTS = {"worker": "plattr-worker", "watcher": "plattr-watcher"}
# The folders of deploy/ that the local platform applies unchanged.
APPLIED = ("crds", "rbac", "admission")
TOKEN_SECONDS = 8760 * 3600
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": "sim-0",
        "labels": {"kubernetes.io/hostname": "sim-0"},
        "annotations": {"kwok.x-k8s.io/node": "fake"},
    },
}


class Cluster:
    """The cluster, as its admin sees it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.server = f"https://127.0.0.1:{site.port('kubernetes')}"
        self.keys = site.folders.service("kubernetes-keys")
        self.admin_kubeconfig = kubeconfig_path(site.folders.state, "admin")
        self._mark = site.folders.run / "manifests"

    def client(self) -> httpx.Client:
        """Return an HTTP client for the admin. The caller closes it."""
        return httpx.Client(
            base_url=self.server,
            headers={"Authorization": f"Bearer {self.site.credential('kubernetes-admin')}"},
            verify=ssl.create_default_context(cafile=self.keys / "ca.crt"),
            timeout=10,
            trust_env=False,
        )

    def find(self, path: str) -> dict[str, Any] | None:
        """Return an object; None if the object does not exist or the API server is away."""
        try:
            with self.client() as http:
                response = http.get(path)
        except httpx.HTTPError:
            return None
        return response.json() if response.is_success else None

    def write_admin_kubeconfig(self) -> None:
        """Write the kubeconfig of group system:masters."""
        self._write_kubeconfig(self.admin_kubeconfig, "admin", self.site.credential("kubernetes-admin"))

    def set_up(self) -> None:
        """Create what is missing in the cluster. A second run changes only the tokens."""
        with self.client() as http:
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
            self._create(http, "/api/v1/namespaces", namespace)
            self._create(http, "/api/v1/nodes", NODE)
        self.apply_manifests()

    def has_changed_manifests(self) -> bool:
        """Tell whether a manifest of `APPLIED` changed since the last apply."""
        return not self._mark.exists() or self._mark.read_text() != fingerprint()

    def apply_manifests(self) -> bool:
        """Apply the manifests of `APPLIED` and write the kubeconfigs; return whether a CRD is new.

        Raises:
            PlatformError: the API server refuses a manifest.
        """
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        before, mark = self.find(path), fingerprint()
        for folder in (DEPLOY / part for part in APPLIED):
            if manifests(folder):
                kubectl = (self.site.tool("kubectl"), "--kubeconfig", str(self.admin_kubeconfig))
                arguments = ("apply", "--server-side", "--force-conflicts", "-f", str(folder))
                run(Command(arguments=(*kubectl, *arguments)))
        self._write_account_kubeconfigs()
        write_private(self._mark, mark)
        return _names(before) != _names(self.find(path))

    def _write_account_kubeconfigs(self) -> None:
        with self.client() as http:
            for role, account in ACCOUNTS.items():
                request = {"spec": {"expirationSeconds": TOKEN_SECONDS}}
                path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}"
                response = http.post(f"{path}/token", json=request)
                if not response.is_success:
                    raise PlatformError(
                        f"cannot issue a token for ServiceAccount {NAMESPACE}/{account}: the API server answered "
                        f"{response.status_code}; deploy/rbac has to define it"
                    )
                token = response.json()["status"]["token"]
                self._write_kubeconfig(kubeconfig_path(self.site.folders.state, role), account, token)

    def _create(self, http: httpx.Client, path: str, body: dict[str, Any]) -> None:
        response = http.post(path, json=body)
        if not response.is_success and response.status_code != 409:
            name = body["metadata"]["name"]
            raise PlatformError(f"cannot create {body['kind']} {name}: the API server answered {response.text}")

    def _write_kubeconfig(self, path: Path, user: str, token: str) -> None:
        authority = base64.b64encode((self.keys / "ca.crt").read_bytes()).decode()
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "plattr-local",
            "contexts": [{"name": "plattr-local", "context": {"cluster": "plattr-local", "user": user}}],
            "clusters": [
                {"name": "plattr-local", "cluster": {"server": self.server, "certificate-authority-data": authority}}
            ],
            "users": [{"name": user, "user": {"token": token}}],
        }
        text = yaml.safe_dump(document, sort_keys=False)
        if not path.exists() or path.read_text() != text:
            write_private(path, text)


def kubeconfig_path(state: Path, role: str) -> Path:
    """Return the kubeconfig of `admin`, `worker` or `watcher`."""
    return state / ("kubeconfig" if role == "admin" else f"kubeconfig-{role}")


def manifests(folder: Path) -> list[Path]:
    """Return a folder's manifests, if there are any."""
    return sorted(folder.glob("*.yaml"))


def fingerprint() -> str:
    """Return a text that changes whenever a manifest of `APPLIED` changes."""
    files = [path for part in APPLIED for path in manifests(DEPLOY / part)]
    return json.dumps([[str(path), path.stat().st_mtime_ns, path.stat().st_size] for path in files])


def _names(crds: dict[str, Any] | None) -> set[str]:
    return {item["metadata"]["name"] for item in (crds or {}).get("items", [])}
