"""Which settings a command goes by: the shell's, or those of the local platform."""

import os
from collections.abc import Mapping

from stack.platform import Platform


def settings(environment: Mapping[str, str] = os.environ) -> Mapping[str, str]:
    """Return the environment; without KUBECONFIG and TEMPORAL_ADDRESS that of the local platform, if it runs.

    Either of them turns the local platform off: nobody wants half of one cluster and half of another.
    """
    if "KUBECONFIG" in environment or "TEMPORAL_ADDRESS" in environment:
        return environment
    platform = Platform()
    return {**environment, **platform.environment("cli")} if platform.is_running else environment
