"""Real helm on the chart: what it renders, refuses and installs."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "chart"
EXAMPLES = sorted((ROOT / "deploy" / "examples").glob("values-*.yaml"))
PROCESSES = ("worker", "watcher")

Json = dict[str, Any]

# The least that can be installed.
LEAST: Json = {
    "image": {"repository": "registry.test/plattr"},
    "settings": {
        "BASE_DOMAIN": "platform.example.test",
        "TEMPORAL_ADDRESS": "temporal:7233",
        "DB_HOST": "db",
        "KEYCLOAK_URL": "http://keycloak:8080",
        "KEYCLOAK_CLIENT_ID": "plattr",
    },
    "secrets": {
        "DB_ADMIN_URL": {"name": "database", "key": "url"},
        "KEYCLOAK_CLIENT_SECRET": {"name": "keycloak", "key": "secret"},
    },
}


def merged(base: Json, changes: Json) -> Json:
    """Return values with others laid over them, as helm does; None takes a key away."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


@dataclass(frozen=True)
class Helm:
    """One helm binary against one cluster."""

    binary: Path
    kubeconfig: Path
    home: Path
    _rendered: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str | Path, values: Json | None = None) -> subprocess.CompletedProcess[str]:
        """Run helm; values go in by standard input."""
        given = () if values is None else ("--values", "-")
        return subprocess.run(
            [self.binary, *arguments, *given],
            # As Helm keeps its caches in the home, this one is the test's.
            env={"HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig), "PATH": os.environ["PATH"]},
            input=json.dumps(values),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def call(self, *arguments: str | Path, values: Json | None = None) -> str:
        """Run helm and return what it prints."""
        done = self.run(*arguments, values=values)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def render(
        self, changes: Json | None = None, *, release: str = "plattr", namespace: str = "plattr-system"
    ) -> list[Json]:
        """Return the objects that the least values and the changes give."""
        values = merged(LEAST, changes or {})
        key = json.dumps([release, namespace, values])
        if key not in self._rendered:
            self._rendered[key] = self.call("template", release, CHART, "-n", namespace, values=values)
        return [document for document in yaml.safe_load_all(self._rendered[key]) if document]

    def refusal(self, changes: Json) -> str:
        """Return helm's words against these values."""
        done = self.run("template", "plattr", CHART, values=merged(LEAST, changes))
        assert done.returncode != 0, "helm took the values"
        return done.stderr


def only(objects: list[Json], kind: str, name: str = "") -> Json:
    """Return the one object of a kind, whose name ends so."""
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(name)]
    return found


def container_of(objects: list[Json], process: str) -> Json:
    """Return a process' only container."""
    (container,) = only(objects, "Deployment", process)["spec"]["template"]["spec"]["containers"]
    return dict(container)


def environment_of(objects: list[Json], process: str) -> dict[str, Json]:
    """Return a process' variables, by name."""
    return {variable["name"]: variable for variable in container_of(objects, process)["env"]}
