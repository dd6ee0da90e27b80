"""kubectl as the administrator of the tests' own control plane."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

import yaml

from stack.platform import Platform
from tests.deploy.helm import Json


@dataclass(frozen=True)
class Kubectl:
    """One cluster."""

    platform: Platform

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        endpoints = self.platform.endpoints
        return subprocess.run(
            [endpoints.bin_dir / "kubectl", "--kubeconfig", endpoints.kubeconfig_admin, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def call(self, *arguments: str, stdin: str = "") -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *arguments: str) -> Any:
        return json.loads(self.call("get", *arguments, "-o", "json"))

    def apply(self, *objects: Json) -> None:
        self.call("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(objects))
