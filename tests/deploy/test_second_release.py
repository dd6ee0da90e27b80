"""Two releases in one cluster, and one that follows another: on a real API server."""

from collections.abc import Iterator

import pytest

from stack.platform import Platform
from tests.deploy.helm import CHART, LEAST, Helm, Json, merged
from tests.deploy.kubectl import Kubectl

NAMESPACE = "followed"
TRAEFIK = merged(LEAST, {"settings": {"INGRESS_PROFILE": "traefik"}})
# As much of Traefik's as makes the API server take a Middleware.
MIDDLEWARES: Json = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "middlewares.traefik.io"},
    "spec": {
        "group": "traefik.io",
        "names": {
            "kind": "Middleware",
            "listKind": "MiddlewareList",
            "plural": "middlewares",
            "singular": "middleware",
        },
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@pytest.fixture
def kubectl(control_plane: Platform, cluster_helm: Helm) -> Iterator[Kubectl]:
    """Leads to a cluster with a release `first`."""
    kubectl = Kubectl(control_plane)
    kubectl.apply(MIDDLEWARES)
    kubectl.call("wait", "--for=condition=Established", "crd/middlewares.traefik.io", "--timeout=30s")
    install(cluster_helm, "first", "--create-namespace")

    yield kubectl

    for release in cluster_helm.call("list", "--short", "-n", NAMESPACE).split():
        cluster_helm.call("uninstall", release, "-n", NAMESPACE)
    kubectl.call("delete", "crd", "middlewares.traefik.io")


def install(helm: Helm, release: str, *flags: str) -> None:
    # The control plane has the CRDs from the local platform.
    helm.call("install", release, CHART, "-n", NAMESPACE, "--skip-crds", *flags, values=TRAEFIK)


@pytest.mark.parametrize("namespace", [NAMESPACE, "default"], ids=["beside", "elsewhere"])
def test_a_second_release_is_refused(kubectl: Kubectl, cluster_helm: Helm, namespace: str) -> None:
    refused = cluster_helm.run("install", "second", CHART, "-n", namespace, "--skip-crds", values=LEAST)

    assert refused.returncode != 0
    assert f"is of release first in namespace {NAMESPACE}" in refused.stderr
    assert cluster_helm.call("list", "--short", "--all-namespaces").split() == ["first"]


def test_a_release_of_the_same_name_goes_on(kubectl: Kubectl, cluster_helm: Helm) -> None:
    cluster_helm.call("uninstall", "first", "-n", NAMESPACE)

    install(cluster_helm, "first")

    assert kubectl.get("middlewares.traefik.io", "plattr-strip-api-rest", "-n", NAMESPACE)


def test_a_release_of_another_name_takes_the_kept_middleware_over(kubectl: Kubectl, cluster_helm: Helm) -> None:
    cluster_helm.call("uninstall", "first", "-n", NAMESPACE)

    refused = cluster_helm.run("install", "second", CHART, "-n", NAMESPACE, "--skip-crds", values=TRAEFIK)
    install(cluster_helm, "second", "--take-ownership")

    assert refused.returncode != 0
    assert "plattr-strip-api-rest" in refused.stderr
    kept = kubectl.get("middlewares.traefik.io", "plattr-strip-api-rest", "-n", NAMESPACE)
    assert kept["metadata"]["annotations"]["meta.helm.sh/release-name"] == "second"
