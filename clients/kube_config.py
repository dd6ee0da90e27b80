"""Load the configuration for the API server from a kubeconfig, or from the pod's own service account."""

import asyncio
import os
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import yaml

from clients.kube_library import (
    ConfigException,
    Configuration,
    load_incluster_config,
    load_kube_config,
    refresh_token,
)
from plattr.errors import MissingSetting

# 16: an open TLS connection takes a third of a megabyte. One CPU of Python sends no more calls than 16 connections
# answer; 64 made a worker 23 MB larger and no faster. Further calls wait for a connection.
POOL_SIZE = 16


async def load_configuration(kubeconfig: str | None) -> tuple[Configuration, asyncio.Task[None] | None]:
    """Return the configuration, and the task that keeps short-lived credentials fresh.

    Args:
        kubeconfig: a file's path; without it KUBECONFIG, the pod's own service account, or ~/.kube/config.

    Raises:
        MissingSetting: there is no usable configuration.
    """
    configuration = Configuration()
    # Temporal retries; a hidden retry here would only make an attempt outlive its deadline.
    configuration.retries = None
    configuration.connection_pool_maxsize = POOL_SIZE
    # With trust_env, aiohttp looks for ~/.netrc and for proxies in the environment at each request. Each look runs in
    # a thread, which costs two thread switches a call. The code below looks for a proxy once.
    configuration.client_session_kwargs = {"trust_env": False}
    path = kubeconfig or os.environ.get("KUBECONFIG")
    in_pod = path is None and "KUBERNETES_SERVICE_HOST" in os.environ
    path = path or "~/.kube/config"
    source = "the pod's service account" if in_pod else f"kubeconfig {path!r}"
    refresher = None
    try:
        if in_pod:
            load_incluster_config(configuration)  # type: ignore[no-untyped-call]  # the library is untyped here
        else:
            loader = await load_kube_config(  # type: ignore[no-untyped-call]  # as above
                path, client_configuration=configuration, persist_config=False
            )
            # Credentials of an exec plugin (EKS, GKE) live only for minutes. For other credentials the task ends at
            # once.
            refreshing = refresh_token(loader, configuration)  # type: ignore[no-untyped-call]  # as above
            refresher = asyncio.create_task(refreshing)
    except yaml.YAMLError:
        # The parser quotes the line, which may hold the token.
        raise MissingSetting(f"cannot connect to Kubernetes: {source} is not YAML") from None
    except (ConfigException, OSError) as error:
        raise MissingSetting(f"cannot connect to Kubernetes: {source} cannot be used: {error}") from None
    configuration.proxy = configuration.proxy or _proxy_from_environment(configuration.host)
    return configuration, refresher


def _proxy_from_environment(url: str) -> str | None:
    """Return the API server's proxy by HTTPS_PROXY and NO_PROXY, as every client of Kubernetes does."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
