"""Helm, and a control plane of its own for the tests that take the chart's CRDs through an uninstall."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.platform import Platform
from stack.tools.resolve import resolve_tools
from tests.deploy.helm import Helm


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
    platform.start(services=("kubernetes",))

    yield platform

    platform.stop()
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def cluster_helm(helm: Helm, control_plane: Platform) -> Helm:
    """Helm as the administrator of that cluster."""
    return Helm(helm.binary, control_plane.endpoints.kubeconfig_admin, helm.home)
