"""What the watcher's parts are made of in the tests."""

import pytest
from prometheus_client import CollectorRegistry

from clients.kube import KubeClient
from watcher.metrics import WatcherMetrics


@pytest.fixture
def metrics() -> WatcherMetrics:
    return WatcherMetrics(CollectorRegistry())


@pytest.fixture
def kube(admin_kube: KubeClient) -> KubeClient:
    return admin_kube
