"""What the chart makes for the Prometheus operator, KEDA and Traefik is what their CRDs take."""

import copy

import pytest
import yaml

from stack.platform import Platform
from tests.deploy.foreign.fetch import FOLDER
from tests.deploy.helm import Helm, Json, only
from tests.deploy.kubectl import Kubectl

NAMESPACE = "default"
EVERYTHING: Json = {
    "settings": {"INGRESS_PROFILE": "traefik", "TEMPORAL_TLS_SERVER_NAME": "temporal.example.test"},
    "secrets": {
        "TEMPORAL_API_KEY": {"name": "temporal", "key": "api-key"},
        "TEMPORAL_TLS_CLIENT_CERT_DATA": {"name": "temporal", "key": "tls.crt"},
        "TEMPORAL_TLS_CLIENT_KEY_DATA": {"name": "temporal", "key": "tls.key"},
    },
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "keda": {"enabled": True},
}
CRDS: list[Json] = [yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))]
KINDS = sorted(crd["spec"]["names"]["kind"] for crd in CRDS)
# Kubernetes' own and Plattr's: tests/deploy/test_life.py has them.
OTHERS = (
    *("v1", "apps/v1", "policy/v1", "networking.k8s.io/v1"),
    *("rbac.authorization.k8s.io/v1", "admissionregistration.k8s.io/v1"),
)


@pytest.fixture(scope="module")
def kubectl(control_plane: Platform) -> Kubectl:
    kubectl = Kubectl(control_plane)
    kubectl.apply(*CRDS)
    names = [f"customresourcedefinition/{crd['metadata']['name']}" for crd in CRDS]
    kubectl.call("wait", "--for=condition=Established", *names, "--timeout=30s")
    return kubectl


@pytest.fixture(scope="module")
def objects(helm: Helm) -> list[Json]:
    made = helm.render(EVERYTHING, namespace=NAMESPACE)
    return [each for each in made if each["apiVersion"] not in OTHERS]


def dry_run(kubectl: Kubectl, *objects: Json) -> tuple[int, str]:
    # Strict: an unknown or doubled field is an error.
    arguments = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    done = kubectl.run(*arguments, stdin=yaml.safe_dump_all(objects))
    return done.returncode, done.stderr


def test_every_foreign_kind_of_the_chart_is_looked_at(objects: list[Json]) -> None:
    assert sorted({each["kind"] for each in objects}) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_the_foreign_crd_takes_it(kubectl: Kubectl, objects: list[Json], kind: str) -> None:
    assert dry_run(kubectl, *(each for each in objects if each["kind"] == kind)) == (0, "")


def test_a_field_that_the_crd_does_not_know_is_refused(kubectl: Kubectl, objects: list[Json]) -> None:
    for kind in KINDS:
        wrong = copy.deepcopy(next(each for each in objects if each["kind"] == kind))
        wrong["spec"]["plattrs"] = "own"

        code, said = dry_run(kubectl, wrong)

        assert code != 0
        assert "plattrs" in said, kind


def test_a_value_that_the_crd_does_not_take_is_refused(kubectl: Kubectl, objects: list[Json]) -> None:
    monitor = copy.deepcopy(only(objects, "ServiceMonitor", "worker"))
    monitor["spec"]["endpoints"][0]["interval"] = "soon"

    code, said = dry_run(kubectl, monitor)

    assert code != 0
    assert "interval" in said
