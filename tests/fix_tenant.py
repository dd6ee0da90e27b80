"""A tenant of the platform's Kubernetes: `edit` in one namespace, by impersonation."""

from collections.abc import AsyncIterator

import httpx
import pytest
import yaml

from clients.kube import KubeClient
from clients.resources import Json, Resource
from stack.platform import Platform

ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")


class Tenant:
    """Sends plain requests as one user; `groups` are added to his."""

    def __init__(self, platform: Platform, name: str) -> None:
        config = yaml.safe_load(platform.endpoints.kubeconfig_admin.read_text())
        self._headers = [
            ("Authorization", f"Bearer {config['users'][0]['user']['token']}"),
            ("Impersonate-User", name),
            ("Impersonate-Group", "system:authenticated"),
        ]
        # The platform's own authority is on the loopback.
        self._http = httpx.AsyncClient(base_url=platform.endpoints.kubernetes_url, verify=False, trust_env=False)  # noqa: S501

    async def send(
        self, method: str, path: str, body: object, *, patch: str = "", groups: tuple[str, ...] = ()
    ) -> Json:
        """Return the answer's object, or the Status that refuses."""
        kind = f"application/{patch}-patch+json" if patch else "application/json"
        headers = [*self._headers, ("Content-Type", kind), *(("Impersonate-Group", group) for group in groups)]
        answer = await self._http.request(method, path, json=body, headers=headers)
        found: Json = answer.json()
        return found

    async def close(self) -> None:
        await self._http.aclose()


@pytest.fixture
async def tenant(platform: Platform, admin_kube: KubeClient, namespace: str) -> AsyncIterator[Tenant]:
    name = f"tenant-of-{namespace}"
    body = {
        "apiVersion": ROLE_BINDINGS.api_version,
        "kind": ROLE_BINDINGS.kind,
        "metadata": {"name": "tenant", "namespace": namespace},
        "roleRef": {"apiGroup": ROLE_BINDINGS.group, "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "User", "name": name, "apiGroup": ROLE_BINDINGS.group}],
    }
    await admin_kube.create(ROLE_BINDINGS, body, namespace)
    tenant = Tenant(platform, name)
    yield tenant
    await tenant.close()
