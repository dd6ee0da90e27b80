"""The CRDs as they are shipped, and both flavours of JSON schema brought to one form."""

from pathlib import Path
from typing import Any

import yaml

from plattr.objects import Kind

FOLDER = Path(__file__).parents[2] / "deploy" / "crds"

Schema = dict[str, Any]

# What both flavours say in the same words.
COMPARED = ("type", "default", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems")


def crd(kind: Kind) -> dict[str, Any]:
    """Return the CRD of a kind."""
    body: dict[str, Any] = yaml.safe_load((FOLDER / f"{kind.lower()}.yaml").read_text())
    return body


def version(kind: Kind) -> dict[str, Any]:
    """Return the only version of a kind's CRD."""
    versions: list[dict[str, Any]] = crd(kind)["spec"]["versions"]
    (only,) = versions
    return only


def properties(kind: Kind) -> Schema:
    """Return the top-level properties: spec, status."""
    found: Schema = version(kind)["schema"]["openAPIV3Schema"]["properties"]
    return found


def rules(schema: Schema, path: str, definitions: Schema | None = None) -> dict[str, dict[str, Any]]:
    """Return what a schema says of each field below it, by the field's path.

    Args:
        schema: a CRD's structural schema, or pydantic's with its references.
        path: the path of the schema itself.
        definitions: pydantic's `$defs`.
    """
    definitions = schema.get("$defs", definitions or {})
    schema = _resolved(schema, definitions)
    facts = {name: schema[name] for name in COMPARED if name in schema}
    if facts.get("default") is None:
        facts.pop("default", None)
    else:
        facts["default"] = _without_none(facts["default"])
    if "enum" in schema:
        facts["enum"] = set(schema["enum"])
    if "properties" in schema:
        facts["required"] = set(schema.get("required", ()))
    found = {path: facts}
    for name, child in schema.get("properties", {}).items():
        found |= rules(child, f"{path}.{name}", definitions)
    if "items" in schema:
        found |= rules(schema["items"], f"{path}[]", definitions)
    return found


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    """Follow references and take the `X or null` of an optional field for X, which is what a CRD calls it."""
    if "anyOf" in schema:
        (only,) = [option for option in schema["anyOf"] if option.get("type") != "null"]
        schema = {**_resolved(only, definitions), **{key: schema[key] for key in ("default",) if key in schema}}
    if "$ref" in schema:
        definition = definitions[schema["$ref"].removeprefix("#/$defs/")]
        schema = {**_resolved(definition, definitions), **{key: schema[key] for key in ("default",) if key in schema}}
    return schema


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(part) for name, part in value.items() if part is not None}
    return value
