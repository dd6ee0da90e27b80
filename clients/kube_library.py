"""The Kubernetes library's asynchronous client, without what its packages import beside it.

`kubernetes/__init__.py` imports the synchronous client, with requests, oauthlib and websocket, and
`kubernetes/aio/__init__.py` the dynamic client and more: a third of a second of CPU and 9 MB, none of which is used
here. Both packages are therefore entered without their `__init__`; a submodule is imported as ever.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def _enter(package: str, path: Sequence[str] | None) -> Sequence[str]:
    """Put a package in place without running its `__init__`, unless it was imported already; return its folders."""
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
