"""Worker and watcher as processes, with no rights in the cluster but those that the chart gives their accounts."""

import base64
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
import yaml

from stack.platform import Platform
from tests.deploy.helm import CHART, LEAST, PROCESSES, ROOT, Helm, Json, only
from tests.deploy.kubectl import Kubectl
from tests.e2e.view import s3_of

RELEASE = "accounts"


@dataclass
class Installed:
    """A release whose processes run beside the cluster: its pods are simulated."""

    kubectl: Kubectl
    helm: Helm
    folder: Path
    temporal_namespace: str
    backends: Platform
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def install(self) -> None:
        # The control plane has the CRDs from the local platform.
        arguments = ("-n", RELEASE, "--create-namespace", "--skip-crds")
        self.helm.call("install", RELEASE, CHART, *arguments, values=LEAST)
        for process in PROCESSES:
            # New tokens: the accounts of an earlier installation are gone.
            environment = self.environments[process] = self._environment(process)
            with self._log(process).open("a") as log:
                command = [sys.executable, "-m", process]
                self._running.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))

    def uninstall(self) -> None:
        for popen in self._running:
            popen.terminate()
        for popen in self._running:
            popen.wait(40)
        self._running.clear()
        self.helm.call("uninstall", RELEASE, "-n", RELEASE, "--wait")

    def wait(self, kind: str, name: str, *arguments: str) -> None:
        done = self.kubectl.run("wait", f"{kind}/{name}", "-n", "default", *arguments, "--timeout=60s")
        assert done.returncode == 0, (done.stderr, self.said()[-6000:])

    def said(self) -> str:
        return "".join(self._log(process).read_text() for process in PROCESSES)

    def holders(self) -> set[str]:
        return {item["metadata"]["name"] for item in self.kubectl.get("leases", "-n", RELEASE)["items"]}

    def _environment(self, process: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            **self.backends.environment(process),
            "KUBECONFIG": str(account_kubeconfig(self.kubectl, process, self.folder)),
            # The chart gives the Lease rights in its own namespace only.
            "LEASE_NAMESPACE": RELEASE,
            "LEADER_ELECTION": "true" if process == "watcher" else "",
            "TEMPORAL_NAMESPACE": self.temporal_namespace,
            "METRICS_HOST": "127.0.0.1",
            "METRICS_PORT": "0",
        }

    def _log(self, process: str) -> Path:
        return self.folder / f"{process}.log"


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
    installed = Installed(Kubectl(control_plane), cluster_helm, tmp_path, documented_namespace, platform)
    installed.install()

    yield installed

    installed.uninstall()


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


RUNNING = "--for=jsonpath={.status.phase}=Running"


def test_the_charts_accounts_suffice_from_birth_to_death(installed: Installed) -> None:
    name = f"acc{secrets.token_hex(3)}"
    installed.kubectl.apply(*objects(name))

    installed.wait("application", name, RUNNING)
    installed.wait("previewenvironment", f"{name}-pr", RUNNING)
    installed.kubectl.call("delete", "--wait=false", f"previewenvironment/{name}-pr", f"application/{name}")
    installed.wait("previewenvironment", f"{name}-pr", "--for=delete")
    installed.wait("application", name, "--for=delete")

    refusals = r".*(?:forbidden|BackendRefused|cannot (?:list|get|watch|create|patch) resource).*"
    assert not re.findall(refusals, installed.said())
    # Nobody holds a name any more; what is left is the election's.
    # The election and the heartbeat, which are the installation's own.
    assert installed.holders() == {"plattr-installation", "plattr-watcher"}


def test_the_audit_needs_no_more_than_the_workers_pod_has(installed: Installed) -> None:
    name = f"aud{secrets.token_hex(3)}"
    application, _ = objects(name)
    installed.kubectl.apply(application)
    installed.wait("application", name, RUNNING)

    # As `kubectl exec deployment/plattr-worker -- plattr audit` does, which the simulated pods cannot.
    command = [str(Path(sys.executable).with_name("plattr")), "audit"]
    environment = installed.environments["worker"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    installed.kubectl.call("delete", "--wait=false", f"application/{name}")
    installed.wait("application", name, "--for=delete")

    # 1: other clusters' tests use the same backends, and what is theirs has no owner here. 2 would be a refusal.
    assert done.returncode in (0, 1), done.stderr
    assert "1 of 1 objects judged" in done.stdout
    assert not [line for line in done.stdout.splitlines() if f"default/{name}" in line]


def test_a_reinstall_keeps_the_data_and_goes_on_with_it(installed: Installed) -> None:
    name = f"kept{secrets.token_hex(3)}"
    application, _ = objects(name)
    installed.kubectl.apply(application)
    installed.wait("application", name, RUNNING)
    before = Data.of(installed, name)
    before.write()

    installed.uninstall()
    after_uninstall = Data.of(installed, name)
    kept = after_uninstall.read()
    installed.install()
    application["spec"]["imageRef"] = "registry.example.test/my-app:2"
    installed.kubectl.apply(application)
    installed.wait("application", name, "--for=jsonpath={.status.observedGeneration}=2")
    installed.wait("application", name, RUNNING)
    after_install = Data.of(installed, name)

    assert after_uninstall == after_install == before
    assert kept == after_install.read() == ("precious", b"precious")
    installed.kubectl.call("delete", "--wait=false", f"application/{name}")
    installed.wait("application", name, "--for=delete")
    # The election and the heartbeat, which are the installation's own.
    assert installed.holders() == {"plattr-installation", "plattr-watcher"}


@dataclass(frozen=True)
class Data:
    """What an application has, reached with nothing but its Secret and its object."""

    uid: str
    database_url: str
    bucket: str
    server: Platform

    @classmethod
    def of(cls, installed: Installed, name: str) -> "Data":
        body = installed.kubectl.get("application", name, "-n", "default")
        secret = installed.kubectl.get("secret", f"{name}-db", "-n", "default")["data"]
        bucket = f"plattr-prod-{name}-{body['spec']['storage']['buckets'][0]['name']}"
        url = base64.b64decode(secret["DATABASE_URL"]).decode()
        return cls(body["metadata"]["uid"], url, bucket, installed.backends)

    def write(self) -> None:
        with psycopg.connect(self.database_url) as connection:
            connection.execute("create table kept (what text)")
            connection.execute("insert into kept values ('precious')")
        s3_of(self.server).put_object(Bucket=self.bucket, Key="kept", Body=b"precious")

    def read(self) -> tuple[str, bytes]:
        with psycopg.connect(self.database_url) as connection:
            (row,) = connection.execute("select what from kept").fetchall()
        return row[0], s3_of(self.server).get_object(Bucket=self.bucket, Key="kept")["Body"].read()
