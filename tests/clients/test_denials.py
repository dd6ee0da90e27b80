"""Denials of real policies, and of webhooks as the API server passes them on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from clients.kube import KubeClient
from clients.resources import CONFIG_MAPS, DEPLOYMENTS, SECRETS, Json, Resource
from plattr.errors import BackendRefused
from tests.clients.test_kube_client import served
from tests.fix_kubernetes import Cluster, config_map, random_name

pytestmark = pytest.mark.attack

GROUP = "admissionregistration.k8s.io"
POLICIES = Resource(group=GROUP, version="v1", plural="validatingadmissionpolicies", kind="ValidatingAdmissionPolicy")
BINDINGS = Resource(
    group=GROUP, version="v1", plural="validatingadmissionpolicybindings", kind="ValidatingAdmissionPolicyBinding"
)


@pytest.fixture
async def policy(cluster: Cluster, namespace: str) -> AsyncIterator[str]:
    """Have the platform ask for a label in one namespace, in words that quote what was written."""
    name = f"costs-{random_name()}"
    api_version = f"{GROUP}/v1"
    of_namespace = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    rule = {"apiGroups": ["", "apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"]}
    value = (
        "(has(object.stringData) ? object.stringData.key :"
        " has(object.data) ? object.data.key : object.spec.template.spec.containers[0].env[0].value)"
    )
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [{**rule, "resources": ["secrets", "configmaps", "deployments"]}],
            "namespaceSelector": of_namespace,
        },
        "validations": [
            {
                "expression": "has(object.metadata.labels) && 'cost-centre' in object.metadata.labels",
                "messageExpression": f"'label cost-centre is missing on what holds ' + string({value})",
            }
        ],
    }
    body = {"apiVersion": api_version, "kind": POLICIES.kind, "metadata": {"name": name}, "spec": spec}
    await cluster.admin.create(POLICIES, body)
    bound = {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": of_namespace}}
    await cluster.admin.create(
        BINDINGS, {"apiVersion": api_version, "kind": BINDINGS.kind, "metadata": {"name": name}, "spec": bound}
    )
    async with asyncio.timeout(30):
        while True:
            try:
                await cluster.admin.apply(CONFIG_MAPS, config_map("probe", {"key": "probe"}), namespace)
            except BackendRefused:
                break
            await asyncio.sleep(0.1)
    yield name
    await cluster.admin.delete(BINDINGS, name)
    await cluster.admin.delete(POLICIES, name)


def deployment() -> Json:
    container = {"name": "app", "image": "x", "env": [{"name": "A", "value": "canary-1234"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}},
        },
    }


async def test_the_words_of_a_policy_are_quoted_without_the_values_that_they_hold(
    cluster: Cluster, namespace: str, policy: str
) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop"}, "stringData": {"key": "canary-1234"}}
    bodies = [(DEPLOYMENTS, deployment()), (SECRETS, secret), (CONFIG_MAPS, config_map("shop", {"key": "canary-1234"}))]

    texts = []
    for resource, body in bodies:
        with pytest.raises(BackendRefused) as caught:
            await cluster.kube.apply(resource, body, namespace)
        texts.append(str(caught.value))

    for text in texts:
        assert f"ValidatingAdmissionPolicy '{policy}'" in text
        assert "label cost-centre is missing on what holds" in text
        assert "canary" not in text


CALLS: dict[str, Callable[[KubeClient], Awaitable[object]]] = {
    "apply": lambda client: client.apply(SECRETS, config_map("shop"), "team"),
    "patch": lambda client: client.json_patch(SECRETS, "shop", [], "team"),
    "delete": lambda client: client.delete(SECRETS, "shop", "team"),
}


@pytest.mark.parametrize("code", [400, 403, 404, 409, 410, 413, 422])
@pytest.mark.parametrize("verb", list(CALLS))
async def test_a_webhooks_denial_is_one_whatever_code_it_chooses(code: int, verb: str) -> None:
    message = 'admission webhook "v.example.test" denied the request: not on a Friday'
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(status, status=code)

    async with served(answer) as client:
        with pytest.raises(BackendRefused, match="not on a Friday"):
            await CALLS[verb](client)
