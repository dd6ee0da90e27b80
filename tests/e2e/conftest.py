"""Worker and watcher as real processes under the shipped roles, and a person's view of the platform."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from clients.kube import KubeClient
from clients.resources import NAMESPACES
from stack.platform import ALL, Platform
from stack.registry import ON_DEMAND
from tests.e2e.view import View


@pytest.fixture(scope="package")
def system(platform: Platform) -> Iterator[Platform]:
    """The platform with worker and watcher, which only these tests want: they act on every object they see."""
    # With those that start on demand, so that no application waits for them; tests/stack has that.
    platform.start(services=(*ALL, *ON_DEMAND), apps=("worker", "watcher"))

    yield platform

    for app in ("watcher", "worker"):
        platform.stop_service(app)


@pytest.fixture(scope="session")
async def admin(platform: Platform) -> AsyncIterator[KubeClient]:
    client = await KubeClient.connect(str(platform.endpoints.kubeconfig_admin))
    yield client
    await client.close()


@pytest.fixture(scope="session")
async def temporal(platform: Platform) -> Client:
    return await Client.connect(platform.endpoints.temporal_address, data_converter=pydantic_data_converter)


@asynccontextmanager
async def open_view(platform: Platform, admin: KubeClient, temporal: Client) -> AsyncIterator[View]:
    """A namespace of its own; whatever it holds is deleted and cleaned up at the end."""
    namespace = f"e2e-{uuid.uuid4().hex[:8]}"
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    await admin.create(NAMESPACES, body)
    view = View(platform, admin, temporal, namespace)
    try:
        yield view
    finally:
        await view.remove_everything()
        await admin.delete(NAMESPACES, namespace)


@pytest.fixture
async def view(system: Platform, admin: KubeClient, temporal: Client) -> AsyncIterator[View]:
    async with open_view(system, admin, temporal) as view:
        yield view
