"""The examples are good to the models as they stand, and so are those in the documents."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from plattr.objects import CustomObject, Kind
from plattr.target import Target, application_target, preview_target
from tests.domain.corpus import BASE_DOMAIN
from tests.domain.crds import properties, rules

ROOT = Path(__file__).parents[2]
# The others, values-*.yaml, are the chart's; tests/deploy looks after them.
FILES = sorted(path for path in (ROOT / "deploy" / "examples").glob("*.yaml") if not path.name.startswith("values-"))


def _objects(text: str) -> list[dict[str, Any]]:
    return [body for body in yaml.safe_load_all(text) if body and body["kind"] in list(Kind)]


def _target(body: dict[str, Any], parents: dict[str, Any]) -> Target:
    metadata = {**body["metadata"], "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    custom_object = CustomObject.from_api(Kind(body["kind"]), {"metadata": metadata, "spec": body["spec"]})
    if custom_object.kind is Kind.APPLICATION:
        return application_target(custom_object, base_domain=BASE_DOMAIN)
    return preview_target(custom_object, parents[custom_object.spec["applicationRef"]], base_domain=BASE_DOMAIN)


def _parents() -> dict[str, Any]:
    bodies = [body for file in FILES for body in _objects(file.read_text())]
    return {body["metadata"]["name"]: body["spec"] for body in bodies if body["kind"] == Kind.APPLICATION}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_example_is_accepted(file: Path) -> None:
    bodies = _objects(file.read_text())

    targets = [_target(body, _parents()) for body in bodies]

    assert targets


def test_my_app_asks_for_everything() -> None:
    (body,) = _objects((ROOT / "deploy" / "examples" / "my-app.yaml").read_text())

    spec = _target(body, {}).spec

    assert (body["metadata"]["namespace"], spec.environment) == ("demo", "production")
    assert [bucket.public for bucket in spec.storage.buckets] == [False, True]
    assert spec.auth.providers == ("google",)
    assert spec.database.enabled
    assert spec.redis.enabled
    assert spec.search.enabled


def test_objects_in_the_document_are_accepted() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE | re.DOTALL)
    bodies = [body for block in blocks if "kind:" in block for body in _objects(block)]

    targets = [_target(body, _parents()) for body in bodies]

    assert {Kind(body["kind"]) for body in bodies} == set(Kind)
    assert len(targets) == len(bodies)


def test_document_explains_every_reason() -> None:
    documented = set(re.findall(r"`([A-Z][A-Za-z]+)`", (ROOT / "docs" / "api.md").read_text()))
    # Never in a condition: the run reads the object again or has been overtaken; a watch starts again.
    silent = {"Error", "Superseded", "FencedOff", "Gone"}
    sources = [path for folder in ("activities", "workflows", "plattr") for path in (ROOT / folder).rglob("*.py")]

    used = {
        reason
        for path in sources
        for reason in re.findall(r"reason(?:: ClassVar\[str\])? ?= ?\"([A-Z][A-Za-z]+)\"", path.read_text())
    }

    assert used - silent - documented == set()


@pytest.mark.parametrize(("kind", "section"), [(Kind.APPLICATION, "### spec"), (Kind.PREVIEW, "## PreviewEnvironment")])
def test_document_lists_every_field(kind: Kind, section: str) -> None:
    text = (ROOT / "docs" / "api.md").read_text().split(section)[1].split("\n## ")[0]
    rows = " ".join(line.split("|")[1] + line.split("|")[2] for line in text.splitlines() if line.startswith("| `"))

    fields = [path.removeprefix("spec.") for path in rules(properties(kind)["spec"], "spec") if path != "spec"]

    missing = [field for field in fields if f"`{field}`" not in rows and not _is_told_by_its_block(field, rows)]
    assert missing == []


def _is_told_by_its_block(field: str, rows: str) -> bool:
    """Tell whether a field stands in its block's row, or is a block whose fields have rows of their own."""
    block, _, leaf = field.rpartition(".")
    return f"`{field}." in rows or f"`{field}[" in rows or (f"`{block}`" in rows and f"`{leaf}`" in rows)
