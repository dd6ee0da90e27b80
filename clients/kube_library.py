"""The Kubernetes library's asynchronous client, without the other modules that its packages import.

`kubernetes/__init__.py` imports the synchronous client with requests, oauthlib and websocket.
`kubernetes/aio/__init__.py` imports the dynamic client and more. Together they cost a third of a second of CPU and
9 MB, and Plattr uses none of these modules. So this module enters both packages without their `__init__`, and imports
submodules as usual.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def _enter(package: str, path: Sequence[str] | None) -> Sequence[str]:
    """Register a package without running its `__init__`, unless it is imported already; return its folders."""
    if package not in sys.modules:
        spec = PathFinder.find_spec(package, path)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        sys.modules[package] = module_from_spec(spec)
        parent, _, name = package.rpartition(".")
        if parent:
            setattr(sys.modules[parent], name, sys.modules[package])
    return list(sys.modules[package].__path__)


_enter("kubernetes.aio", _enter("kubernetes", None))

from kubernetes.aio.client import ApiClient, Configuration  # noqa: E402  the packages come first
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config  # noqa: E402  as above
from kubernetes.aio.config.kube_config import refresh_token  # noqa: E402  as above

__all__ = [
    "ApiClient",
    "ConfigException",
    "Configuration",
    "load_incluster_config",
    "load_kube_config",
    "refresh_token",
]
