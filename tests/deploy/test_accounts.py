"""Worker and watcher as processes, with no rights in the cluster but those that the chart gives their accounts."""

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from stack.platform import Platform
from tests.deploy.helm import CHART, LEAST, PROCESSES, ROOT, Helm, Json, only
from tests.deploy.kubectl import Kubectl

RELEASE = "accounts"


@dataclass(frozen=True)
class Installed:
    """A release whose processes run beside the cluster: its pods are simulated."""

    kubectl: Kubectl
    logs: dict[str, Path]
    worker_environment: dict[str, str]

    def wait(self, kind: str, name: str, *arguments: str) -> None:
        done = self.kubectl.run("wait", f"{kind}/{name}", "-n", "default", *arguments, "--timeout=60s")
        said = {process: path.read_text()[-3000:] for process, path in self.logs.items()}
        assert done.returncode == 0, (done.stderr, said)


def account_kubeconfig(kubectl: Kubectl, process: str, folder: Path) -> Path:
    """Write a kubeconfig whose only credential is a token of the chart's account."""
    token = kubectl.call("create", "token", f"{RELEASE}-plattr-{process}", "-n", RELEASE, "--duration=1h").strip()
    document = yaml.safe_load(kubectl.platform.endpoints.kubeconfig_admin.read_text())
    for user in document["users"]:
        user["user"] = {"token": token}
    path = folder / f"{process}.kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def installed(
    platform: Platform, control_plane: Platform, cluster_helm: Helm, documented_namespace: str, tmp_path: Path
) -> Iterator[Installed]:
    kubectl = Kubectl(control_plane)
    # The control plane has them from the local platform.
    cluster_helm.call("install", RELEASE, CHART, "-n", RELEASE, "--create-namespace", "--skip-crds", values=LEAST)
    logs = {process: tmp_path / f"{process}.log" for process in PROCESSES}
    running = []
    environments = {
        process: {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            **platform.environment(process),
            "KUBECONFIG": str(account_kubeconfig(kubectl, process, tmp_path)),
            # The chart gives the Lease rights in its own namespace only.
            "LEASE_NAMESPACE": RELEASE,
            "LEADER_ELECTION": "true" if process == "watcher" else "",
            "TEMPORAL_NAMESPACE": documented_namespace,
            "METRICS_HOST": "127.0.0.1",
            "METRICS_PORT": "0",
        }
        for process in PROCESSES
    }
    for process, environment in environments.items():
        with logs[process].open("w") as log:
            command = [sys.executable, "-m", process]
            running.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))

    yield Installed(kubectl, logs, environments["worker"])

    for popen in running:
        popen.terminate()
    for popen in running:
        popen.wait(40)
    cluster_helm.call("uninstall", RELEASE, "-n", RELEASE)


def objects(name: str) -> tuple[Json, Json]:
    """Return an Application with everything, and a preview of it."""
    example = (ROOT / "deploy" / "examples" / "my-app.yaml").read_text()
    application = only(list(yaml.safe_load_all(example)), "Application")
    application["metadata"] = {"name": name, "namespace": "default"}
    preview = {
        "apiVersion": application["apiVersion"],
        "kind": "PreviewEnvironment",
        "metadata": {"name": f"{name}-pr", "namespace": "default"},
        "spec": {"applicationRef": name, "pullRequest": 7, "branch": "topic"},
    }
    return application, preview


def test_the_charts_accounts_suffice_from_birth_to_death(installed: Installed) -> None:
    name = f"acc{secrets.token_hex(3)}"
    running = "--for=jsonpath={.status.phase}=Running"
    installed.kubectl.apply(*objects(name))

    installed.wait("application", name, running)
    installed.wait("previewenvironment", f"{name}-pr", running)
    installed.kubectl.call("delete", "--wait=false", f"previewenvironment/{name}-pr", f"application/{name}")
    installed.wait("previewenvironment", f"{name}-pr", "--for=delete")
    installed.wait("application", name, "--for=delete")

    said = "".join(path.read_text() for path in installed.logs.values())
    assert not re.findall(r".*(?:forbidden|BackendRefused|cannot (?:list|get|watch|create|patch) resource).*", said)
    # Nobody holds a name any more; what is left is the election's.
    leases = {item["metadata"]["name"] for item in installed.kubectl.get("leases", "-n", RELEASE)["items"]}
    assert leases == {"plattr-watcher"}


def test_the_audit_needs_no_more_than_the_workers_pod_has(installed: Installed) -> None:
    name = f"aud{secrets.token_hex(3)}"
    application, _ = objects(name)
    installed.kubectl.apply(application)
    installed.wait("application", name, "--for=jsonpath={.status.phase}=Running")

    # As `kubectl exec deployment/plattr-worker -- plattr audit` does, which the simulated pods cannot.
    command = [Path(sys.executable).with_name("plattr"), "audit"]
    environment = installed.worker_environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    installed.kubectl.call("delete", "--wait=false", f"application/{name}")
    installed.wait("application", name, "--for=delete")

    # 1: other clusters' tests use the same backends, and what is theirs has no owner here. 2 would be a refusal.
    assert done.returncode in (0, 1), done.stderr
    assert "1 of 1 objects judged" in done.stdout
    assert not [line for line in done.stdout.splitlines() if f"default/{name}" in line]
