"""Helm, and a control plane of its own for the tests that take the chart's CRDs through an uninstall."""

import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.platform import Platform
from stack.tools.resolve import resolve_tools
from tests.deploy.helm import ROOT, Helm
from tests.deploy.installing import block
from tests.deploy.kubectl import Kubectl


@pytest.fixture(scope="session")
def helm_binary() -> Path:
    (path,) = resolve_tools(["helm"], exclude=Path("/nowhere"), tell=print).values()
    return path


@pytest.fixture(scope="session")
def helm(helm_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm without a cluster: it renders."""
    home = tmp_path_factory.mktemp("helm")
    return Helm(helm_binary, home / "no-kubeconfig", home)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Platform]:
    """A Kubernetes of its own: an uninstall that took the CRDs along would take every other test's objects along."""
    path = Path(tempfile.mkdtemp(prefix="plattr-chart-", dir="/var/tmp"))
    platform = Platform(path)
    try:
        platform.start(services=("kubernetes",))
        # It lets only the local platform's worker take the finalizer off; here each release brings its own.
        Kubectl(platform).call("delete", "-f", str(ROOT / "deploy" / "admission"))
        yield platform
    finally:
        # Also when it did not come up: nobody else would stop what did.
        platform.stop()
        shutil.rmtree(path)


@pytest.fixture(scope="session")
def cluster_helm(helm: Helm, control_plane: Platform) -> Helm:
    """Helm as the administrator of that cluster."""
    return Helm(helm.binary, control_plane.endpoints.kubeconfig_admin, helm.home)


@pytest.fixture
def documented_namespace(platform: Platform) -> Iterator[str]:
    """A Temporal namespace made by the document's own commands."""
    namespace = f"doc-{secrets.token_hex(4)}"
    endpoints = platform.endpoints
    environment = {"HOME": "/nonexistent", "TEMPORAL_ADDRESS": endpoints.temporal_address}

    def call(script: str) -> None:
        environment["PATH"] = f"{endpoints.bin_dir}:{os.environ['PATH']}"
        done = subprocess.run(["sh", "-euc", script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    call(re.sub(r"--namespace plattr\b", f"--namespace {namespace}", block("sh", "search-attribute create")))

    yield namespace

    call(f"temporal operator namespace delete --namespace {namespace} --yes")
