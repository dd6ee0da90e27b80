"""A release's life on a real API server: installed, upgraded, rolled back, uninstalled, installed again."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml

from stack.platform import Platform
from tests.deploy.helm import CHART, LEAST, PROCESSES, ROOT, Helm, Json, merged, only
from tests.deploy.kubectl import Kubectl

RELEASE = "fleet"
CRDS = ("applications.platform.internal", "previewenvironments.platform.internal")
# Whatever a chart can make; what is not asked for here cannot be seen left behind.
KINDS = (
    *("deployments", "replicasets", "pods", "services", "serviceaccounts", "configmaps", "poddisruptionbudgets"),
    *("networkpolicies", "roles", "rolebindings", "clusterroles", "clusterrolebindings"),
    *("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
)


def log_levels(kubectl: Kubectl) -> dict[str, str | None]:
    """Return each process' LOG_LEVEL, as its pods are told it."""
    found = {}
    for process in PROCESSES:
        template = kubectl.get("deployment", f"{RELEASE}-plattr-{process}", "-n", RELEASE)["spec"]["template"]
        variables = {each["name"]: each.get("value") for each in template["spec"]["containers"][0]["env"]}
        found[process] = variables.get("LOG_LEVEL")
    return found


def of_release(kubectl: Kubectl) -> set[str]:
    """Return everything that carries the release's label, but the Secrets in which Helm keeps its books."""
    selector = f"app.kubernetes.io/instance={RELEASE}"
    items = kubectl.get(",".join(KINDS), "--all-namespaces", "-l", selector)["items"]
    return {f"{item['kind']}/{item['metadata']['name']}" for item in items}


@pytest.fixture(scope="module")
def kubectl(control_plane: Platform) -> Iterator[Kubectl]:
    """Leads to a cluster where Plattr never was: the local platform's own CRDs are taken away."""
    kubectl = Kubectl(control_plane)
    kubectl.call("delete", "-f", str(ROOT / "deploy" / "crds"))
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASE, "labels": restricted}})

    yield kubectl

    kubectl.call("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "deploy" / "crds"))


@dataclass
class Life:
    """What was seen at each station."""

    installed: set[str]
    crds_after_install: set[str]
    ready: dict[str, int]
    levels: list[dict[str, str | None]]
    after_uninstall: set[str]
    crds_after_uninstall: set[str]
    object_before: Json
    object_after_uninstall: Json
    object_after_reinstall: Json
    claim_after_reinstall: Json
    reinstalled: set[str]


@pytest.fixture(scope="module")
def life(kubectl: Kubectl, cluster_helm: Helm) -> Iterator[Life]:
    wait = ("--namespace", RELEASE, "--wait", "--timeout", "60s")
    chatty = merged(LEAST, {"settings": {"LOG_LEVEL": "DEBUG"}})

    def crds() -> set[str]:
        return {item["metadata"]["name"] for item in kubectl.get("customresourcedefinitions")["items"]} & set(CRDS)

    cluster_helm.call("install", RELEASE, CHART, *wait, values=LEAST)
    installed, crds_after_install, levels = of_release(kubectl), crds(), [log_levels(kubectl)]
    deployments = kubectl.get("deployments", "-n", RELEASE)["items"]
    ready = {item["metadata"]["name"]: item["status"]["readyReplicas"] for item in deployments}

    example = (ROOT / "deploy" / "examples" / "minimal.yaml").read_text()
    application = only(list(yaml.safe_load_all(example)), "Application")
    application["metadata"] |= {"namespace": "default", "finalizers": ["platform.internal/cleanup"]}
    claim = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "kept", "namespace": RELEASE},
    }
    kubectl.apply(application, claim)
    named = ("application", application["metadata"]["name"], "-n", "default")
    before = kubectl.get(*named)

    cluster_helm.call("upgrade", RELEASE, CHART, *wait, values=chatty)
    levels.append(log_levels(kubectl))
    cluster_helm.call("rollback", RELEASE, "1", *wait)
    levels.append(log_levels(kubectl))

    cluster_helm.call("uninstall", RELEASE, *wait)
    after_uninstall, crds_after_uninstall, kept = of_release(kubectl), crds(), kubectl.get(*named)
    cluster_helm.call("install", RELEASE, CHART, *wait, values=LEAST)

    yield Life(
        installed=installed,
        crds_after_install=crds_after_install,
        ready=ready,
        levels=levels,
        after_uninstall=after_uninstall,
        crds_after_uninstall=crds_after_uninstall,
        object_before=before,
        object_after_uninstall=kept,
        object_after_reinstall=kubectl.get(*named),
        claim_after_reinstall=kubectl.get("lease", "kept", "-n", RELEASE),
        reinstalled=of_release(kubectl),
    )

    cluster_helm.call("uninstall", RELEASE, *wait)


def test_one_command_installs_crds_and_both_processes(life: Life) -> None:
    assert life.crds_after_install == set(CRDS)
    # Made under Pod Security `restricted`, and made ready by the simulated node.
    assert life.ready == {"fleet-plattr-worker": 2, "fleet-plattr-watcher": 2}


def test_an_upgrade_is_rolled_back(life: Life) -> None:
    plain, chatty = dict.fromkeys(PROCESSES, None), dict.fromkeys(PROCESSES, "DEBUG")

    assert life.levels == [plain, chatty, plain]


def test_an_uninstall_keeps_the_crds_and_every_object(life: Life) -> None:
    assert life.crds_after_uninstall == set(CRDS)
    assert life.object_after_uninstall == life.object_before
    assert "deletionTimestamp" not in life.object_after_uninstall["metadata"]


def test_an_uninstall_leaves_nothing_else(life: Life) -> None:
    assert len(life.installed) > 10
    # ReplicaSets and pods are collected after their Deployment is gone.
    assert {name for name in life.after_uninstall if not name.startswith(("ReplicaSet/", "Pod/"))} == set()


def test_a_second_install_finds_objects_and_claims(life: Life) -> None:
    assert life.object_after_reinstall == life.object_before
    assert life.claim_after_reinstall["metadata"]["name"] == "kept"
    names = {name for name in life.installed if not name.startswith(("ReplicaSet/", "Pod/"))}
    assert names <= life.reinstalled


def test_a_crd_that_is_too_old_stops_the_upgrade(life: Life, kubectl: Kubectl, cluster_helm: Helm) -> None:
    source = yaml.safe_load((ROOT / "deploy" / "crds" / "application.yaml").read_text())
    older = yaml.safe_load((ROOT / "deploy" / "crds" / "application.yaml").read_text())
    fields = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del fields["healthCheck"]
    kubectl.call("replace", "-f", "-", stdin=json.dumps(older))

    refused = cluster_helm.run("upgrade", RELEASE, CHART, "--namespace", RELEASE, values=LEAST)
    kubectl.call("replace", "-f", "-", stdin=json.dumps(source))
    accepted = cluster_helm.run("upgrade", RELEASE, CHART, "--namespace", RELEASE, values=LEAST)

    assert refused.returncode != 0
    assert "applications.platform.internal" in refused.stderr
    assert ".spec.healthCheck" in refused.stderr
    assert accepted.returncode == 0, accepted.stderr


def test_a_crd_that_is_gone_stops_the_upgrade(life: Life, kubectl: Kubectl, cluster_helm: Helm) -> None:
    # Of the two the one that has no object here.
    path = ROOT / "deploy" / "crds" / "previewenvironment.yaml"
    kubectl.call("delete", "-f", str(path))

    refused = cluster_helm.run("upgrade", RELEASE, CHART, "--namespace", RELEASE, values=LEAST)
    unchecked = merged(LEAST, {"checkCrds": False})
    accepted = cluster_helm.run("upgrade", RELEASE, CHART, "--namespace", RELEASE, "--dry-run=server", values=unchecked)
    kubectl.call("apply", "--server-side", "--force-conflicts", "-f", str(path))

    assert refused.returncode != 0
    assert "previewenvironments.platform.internal is not in the cluster" in refused.stderr
    assert accepted.returncode == 0, accepted.stderr


def test_the_api_server_accepts_every_object(life: Life, kubectl: Kubectl, helm: Helm) -> None:
    egress = {"worker": [{"ports": [{"port": 443}]}], "watcher": [{"ports": [{"port": 443}]}]}
    objects = helm.render(
        {"networkPolicy": {"egress": egress}, "metrics": {"dashboard": {"enabled": True}}},
        release="dry",
        namespace=RELEASE,
    )

    # Strict: an unknown or doubled field is an error.
    arguments = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    done = kubectl.run(*arguments, stdin=yaml.safe_dump_all(objects))

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(objects)


@pytest.mark.parametrize("place", [RELEASE, "default"], ids=["in-its-own-namespace", "elsewhere"])
@pytest.mark.parametrize("process", PROCESSES)
def test_an_account_has_the_rights_under_which_all_is_tested(
    life: Life, kubectl: Kubectl, process: str, place: str
) -> None:
    # The local platform applied deploy/rbac, and every test of the activities runs under its accounts.
    tested = f"system:serviceaccount:plattr-system:plattr-{process}"
    installed = f"system:serviceaccount:{RELEASE}:{RELEASE}-plattr-{process}"
    tested_place = "plattr-system" if place == RELEASE else place

    expected = kubectl.call("auth", "can-i", "--list", f"--as={tested}", "-n", tested_place)
    actual = kubectl.call("auth", "can-i", "--list", f"--as={installed}", "-n", place)

    assert sorted(actual.splitlines()) == sorted(expected.splitlines())
    assert "platform.internal" in actual


@pytest.mark.parametrize(
    ("role", "verb", "answer"),
    [
        pytest.param("edit", "create", "yes", id="an-editor-applies"),
        pytest.param("edit", "delete", "yes", id="an-editor-deletes"),
        pytest.param("edit", "list", "yes", id="an-editor-reads"),
        pytest.param("view", "watch", "yes", id="a-viewer-reads"),
        pytest.param("view", "create", "no", id="a-viewer-applies-nothing"),
    ],
)
@pytest.mark.parametrize("kind", CRDS)
def test_the_clusters_own_roles_reach_our_kinds(
    life: Life, kubectl: Kubectl, kind: str, role: str, verb: str, answer: str
) -> None:
    subject = {"kind": "User", "name": f"a-{role}or", "apiGroup": "rbac.authorization.k8s.io"}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"people-{role}", "namespace": "default"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }
    kubectl.apply(binding)

    here = kubectl.run("auth", "can-i", verb, kind, f"--as={subject['name']}", "-n", "default")
    status = kubectl.run("auth", "can-i", "patch", kind, "--subresource=status", f"--as={subject['name']}")

    assert here.stdout.strip() == answer, here.stderr
    assert status.stdout.strip() == "no", status.stderr
