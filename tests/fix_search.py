"""The local platform's OpenSearch, for the tests that are about it."""

import pytest

from stack.platform import Platform


@pytest.fixture(scope="session")
def opensearch_platform(platform: Platform) -> Platform:
    platform.start(services=["opensearch"])
    return platform
