"""Fetch the CRDs of others' objects that the chart makes; run by hand when a newer version is wanted.

    uv run python -m tests.deploy.foreign.fetch

They come out of the projects' Go modules, by the ordinary `go mod download`. Kept without their descriptions, which are
four fifths of them and check nothing.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Source:
    """One project at one version."""

    module: str
    version: str
    licence: str
    folder: str
    files: tuple[str, ...]


SOURCES = (
    Source(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "Apache-2.0",
        "example/prometheus-operator-crd",
        ("monitoring.coreos.com_servicemonitors.yaml", "monitoring.coreos.com_prometheusrules.yaml"),
    ),
    Source(
        "github.com/kedacore/keda/v2",
        "v2.21.0",
        "Apache-2.0",
        "config/crd/bases",
        ("keda.sh_scaledobjects.yaml", "keda.sh_triggerauthentications.yaml"),
    ),
    Source(
        "github.com/traefik/traefik/v3",
        "v3.7.13",
        "MIT",
        "docs/content/reference/dynamic-configuration",
        ("traefik.io_middlewares.yaml",),
    ),
)


def without_descriptions(node: Any, *, names_fields: bool = False) -> Any:
    """Return a schema without its descriptions; below `properties` a description is a field of that name."""
    if isinstance(node, list):
        return [without_descriptions(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: without_descriptions(value, names_fields=key == "properties" and not names_fields)
        for key, value in node.items()
        if names_fields or key != "description" or not isinstance(value, str)
    }


def fetch(source: Source) -> None:
    """Write a source's CRDs."""
    with tempfile.TemporaryDirectory() as nowhere:
        command = ["go", "mod", "download", "-json", f"{source.module}@{source.version}"]
        done = subprocess.run(command, cwd=nowhere, capture_output=True, text=True, check=True)
    folder = Path(json.loads(done.stdout)["Dir"]) / source.folder
    for name in source.files:
        crd = without_descriptions(yaml.safe_load((folder / name).read_text()))
        head = f"# {source.module} {source.version}, {source.licence}; changed: without descriptions (fetch.py).\n"
        (FOLDER / name).write_text(head + yaml.safe_dump(crd, sort_keys=False, width=119))
        sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    for each in SOURCES:
        fetch(each)
