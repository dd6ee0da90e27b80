"""A namespace on the platform for one run of faults, with nobody else at work there."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from clients.kube import KubeClient
from clients.resources import NAMESPACES
from stack.platform import ALL, Platform
from stack.registry import ON_DEMAND
from tests.e2e.view import View
from tests.states import state_of_tests


@contextmanager
def own_platform(*apps: str) -> Iterator[Platform]:
    """The tests' platform with these apps, which end with the block; so does a platform that did not run before."""
    platform = Platform(state_of_tests())
    was_running = platform.is_running
    platform.start(apps=apps)
    try:
        yield platform
    finally:
        for app in reversed(apps):
            platform.stop_service(app)
        if not was_running:
            platform.stop()


@asynccontextmanager
async def ground(platform: Platform) -> AsyncIterator[tuple[View, Client]]:
    """Yield a view of a new namespace; what a failed run leaves there stays, to be looked at."""
    # The auditor asks all of them, and a first connection to one that starts on demand is closed.
    platform.start(services=(*ALL, *ON_DEMAND))
    kube = await KubeClient.connect(str(platform.endpoints.kubeconfig_admin))
    temporal = await Client.connect(platform.endpoints.temporal_address, data_converter=pydantic_data_converter)
    namespace = f"faults-{uuid.uuid4().hex[:6]}"
    try:
        await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        yield View(platform, kube, temporal, namespace), temporal
        await kube.delete(NAMESPACES, namespace)
    finally:
        await kube.close()
