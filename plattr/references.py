"""What the pods refer to and Plattr did not make: Secrets and ConfigMaps that change without the Application."""

import json
from collections.abc import Mapping
from typing import Any

from plattr.target import Target

Json = dict[str, Any]

# By kind and name, in the namespace of the workload.
Reference = tuple[str, str]

SECRET = "Secret"  # noqa: S105  a kind
CONFIG_MAP = "ConfigMap"


def references_of(target: Target) -> tuple[Reference, ...]:
    """Return the user's own Secrets and ConfigMaps that the pods read at their start, whether they exist or not."""
    names = target.names
    variables = [variable.secret_key_ref.name for variable in target.spec.env_vars if variable.secret_key_ref]
    found = {(CONFIG_MAP, names.user_env), (SECRET, names.user_env), *((SECRET, name) for name in variables)}
    return tuple(sorted(found))


def version_of(body: Json | None) -> str:
    """Return which version of an object this is; empty for an object that does not exist."""
    return "" if body is None else f"{body['metadata']['uid']}/{body['metadata']['resourceVersion']}"


def as_record(versions: Mapping[Reference, str]) -> str:
    """Return the text that records what the last run saw."""
    return json.dumps({f"{kind}/{name}": version for (kind, name), version in sorted(versions.items())})


def from_record(text: str) -> dict[Reference, str]:
    """Return what a text of `as_record` records."""
    return {(kind, name): version for (kind, _, name), version in _parts(text)}


def _parts(text: str) -> list[tuple[tuple[str, str, str], str]]:
    return [(place.partition("/"), version) for place, version in json.loads(text).items()]
