"""Every place that a feature needs beside its line in `FEATURES`, in the order of docs/adding-a-reconciler.md."""

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import activities
from cli.auditing.features import AUDITED, AuditedFeature
from plattr.features import FEATURES, Feature, Step
from plattr.objects import Kind
from plattr.settings import Settings
from plattr.spec import ApplicationSpec
from tests.domain.crds import properties
from tests.manifests.targets import application
from worker.registry import Clients, adoption_finders, build_activities
from workflows.steps import STEP_ACTIVITIES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding-a-reconciler.md"

# Nobody switches these on: every object has a workload, and every preview a namespace.
WITHOUT_SWITCH = frozenset({Step.NAMESPACE, Step.WORKLOAD})

SETTINGS = Settings.from_mapping(
    {
        "DB_ADMIN_URL": "postgresql://db/plattr",
        "DB_HOST": "db",
        "BASE_DOMAIN": "platform.example.com",
        "KEYCLOAK_URL": "http://keycloak",
        "KEYCLOAK_CLIENT_ID": "plattr",
        "KEYCLOAK_CLIENT_SECRET": "secret",
    }
)


@dataclass(frozen=True)
class Place:
    """A file that a new feature needs a change in, or a new file."""

    path: str
    """As the page has it, for a feature called `queue`."""
    lacks: Callable[[Feature, type[Settings]], Iterable[str]] | None
    """Return what is not there for a feature. None: mypy holds it, since another place uses it."""


def defined_activities() -> set[str]:
    """Return the name of every activity that a module of the package defines."""
    modules = [
        importlib.import_module(f"activities.{module.name}") for module in pkgutil.iter_modules(activities.__path__)
    ]
    classes = [each for module in modules for each in vars(module).values() if isinstance(each, type)]
    return {name for each in classes for method in vars(each).values() if (name := _activity_name(method))}


def registered_activities() -> set[str]:
    """Return the name of every activity that the worker offers."""
    nothing: Any = None
    return {_activity_name(method) for method in build_activities(SETTINGS, _clients(), nothing)}


def _clients() -> Clients:
    nothing: Any = None
    return Clients(kube=nothing, postgres=nothing, s3=nothing, keycloak=nothing)


def _activity_name(member: object) -> str:
    definition: Any = getattr(member, "__temporal_activity_definition", None)
    return str(definition.name) if definition is not None else ""


def _has_switch(feature: Feature) -> bool:
    return feature.step not in WITHOUT_SWITCH


def _needed_activities(feature: Feature) -> set[str]:
    return {f"reconcile_{feature.step}", f"delete_{feature.step}"}


def _of_features(feature: Feature, _: type[Settings]) -> Iterator[str]:
    if feature not in FEATURES:
        yield "FEATURES has no such feature"


def _of_spec(feature: Feature, _: type[Settings]) -> Iterator[str]:
    if not _has_switch(feature):
        return
    if feature.step not in ApplicationSpec.model_fields:
        yield f"ApplicationSpec has no field {feature.step}"
        return
    for is_enabled in (True, False):
        if feature.is_enabled(application(**{feature.step: {"enabled": is_enabled}}).spec) is not is_enabled:
            yield f"{feature.step}.enabled: {is_enabled} does not decide"


def _of_names(feature: Feature, _: type[Settings]) -> Iterator[str]:
    target = application()
    try:
        list(feature.claims(target.names, target.spec))
        if feature.secret is not None:
            feature.secret.name(target.names)
    except AttributeError as error:
        yield str(error)


def _of_crd(kind: Kind) -> Callable[[Feature, type[Settings]], Iterator[str]]:
    def lacks(feature: Feature, _: type[Settings]) -> Iterator[str]:
        parts = properties(kind)
        if kind is Kind.APPLICATION and _has_switch(feature) and feature.step not in parts["spec"]["properties"]:
            yield f"spec has no field {feature.step}"
        conditions = parts["status"]["properties"]["conditions"]["items"]["properties"]["type"]["enum"]
        if feature.condition not in conditions:
            yield f"no condition {feature.condition}"

    return lacks


def _of_activities(feature: Feature, _: type[Settings]) -> Iterator[str]:
    yield from sorted(_needed_activities(feature) - defined_activities())


def _of_workflows(feature: Feature, _: type[Settings]) -> Iterator[str]:
    methods = STEP_ACTIVITIES.get(feature.step)
    if methods is None:
        yield f"STEP_ACTIVITIES has no {feature.step}"
    elif {_activity_name(method) for method in methods} != _needed_activities(feature):
        yield f"STEP_ACTIVITIES has {methods}"


def _of_worker(feature: Feature, _: type[Settings]) -> Iterator[str]:
    yield from sorted(_needed_activities(feature) - registered_activities())
    if feature.keeps_data and feature.step not in adoption_finders(_clients()):
        yield f"adoption_finders has no {feature.step}"


def _audited(feature: Feature) -> AuditedFeature | None:
    return next((each for each in AUDITED if each.name == feature.step), None)


def _of_audited_kinds(feature: Feature, _: type[Settings]) -> Iterator[str]:
    audited = _audited(feature)
    if _has_switch(feature) and (audited is None or not audited.patterns):
        yield "the auditor knows no kind of thing of it"


def _of_auditor(feature: Feature, _: type[Settings]) -> Iterator[str]:
    if not _has_switch(feature):
        return
    audited = _audited(feature)
    if audited is None:
        yield "AUDITED has no such feature"
        return
    target = application(storage={"enabled": True, "buckets": [{"name": "a"}]})
    names, spec = target.names, target.spec
    facts: dict[str, tuple[object, object]] = {
        "claims": (sorted(feature.claims(names, spec)), sorted(audited.claims(names, spec))),
        "data": (set(feature.claim_kinds) if feature.keeps_data else set(), set(audited.data)),
        "ConfigMap": (feature.has_config_map, audited.has_config_map),
        "Secret": (feature.secret and feature.secret.name(names), audited.secret and audited.secret(names)),
    }
    yield from (f"{fact}: {own} is audited as {other}" for fact, (own, other) in facts.items() if own != other)


def _settings_of(feature: Feature, settings: type[Settings]) -> set[str]:
    return {name.upper() for name in settings.model_fields if name.startswith(f"{feature.step}_")}


def _of_chart(feature: Feature, settings: type[Settings]) -> Iterator[str]:
    schema = json.loads((ROOT / "deploy" / "chart" / "values.schema.json").read_text())["properties"]
    given = {name for part in ("settings", "secrets") for name in schema[part]["properties"]}
    yield from sorted(_settings_of(feature, settings) - given)


def _of_settings_page(feature: Feature, settings: type[Settings]) -> Iterator[str]:
    documented = re.findall(r"^\| `([A-Z0-9_]+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    yield from sorted(_settings_of(feature, settings) - set(documented))


def _of_api_page(feature: Feature, _: type[Settings]) -> Iterator[str]:
    text = (ROOT / "docs" / "api.md").read_text()
    if _has_switch(feature) and f"| `{feature.step}.enabled` |" not in text:
        yield f"no row for {feature.step}.enabled"
    if f"| `{feature.condition}` |" not in text:
        yield f"no row for {feature.condition}"


def _of_tests(feature: Feature, _: type[Settings]) -> Iterator[str]:
    if not (ROOT / "tests" / "activities" / f"test_{feature.step}.py").exists():
        yield "no test of the activities"


PLACES = (
    Place("plattr/spec.py", _of_spec),
    Place("plattr/naming.py", _of_names),
    Place("plattr/features.py", _of_features),
    Place("deploy/crds/application.yaml", _of_crd(Kind.APPLICATION)),
    Place("deploy/crds/previewenvironment.yaml", _of_crd(Kind.PREVIEW)),
    Place("plattr/backends.py", None),
    Place("clients/queue.py", None),
    Place("activities/queue.py", _of_activities),
    Place("workflows/steps.py", _of_workflows),
    Place("worker/registry.py", _of_worker),
    Place("cli/auditing/inventory.py", _of_audited_kinds),
    Place("cli/auditing/queue.py", None),
    Place("cli/auditing/features.py", _of_auditor),
    Place("docs/api.md", _of_api_page),
    Place("tests/activities/test_queue.py", _of_tests),
    Place("plattr/settings.py", None),
    Place("deploy/chart/values.schema.json", _of_chart),
    Place("docs/settings.md", _of_settings_page),
)
