"""The ground of the fault tests; nobody but their own workers is at work there."""

from collections.abc import AsyncIterator

import pytest

from stack.platform import Platform
from tests.faults.ground import ground
from tests.faults.scenarios import Actor


@pytest.fixture(scope="module")
async def actor(platform: Platform) -> AsyncIterator[Actor]:
    """What a person does in a namespace of the module's own; workers and reconcile requests are the test's affair."""
    async with ground(platform) as (view, temporal):
        yield Actor(view, temporal)
