"""A step that is in the order of provisioning is everywhere else it has to be."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest

import activities
from plattr.features import Step, cleanup_order, provision_order
from plattr.objects import Kind
from plattr.settings import Settings
from plattr.spec import ApplicationSpec
from plattr.status import ConditionType
from tests.domain.crds import properties
from worker.registry import Clients, build_activities
from workflows.cleanup import DELETE
from workflows.provisioning import RECONCILE

# The workload is not a feature that is switched on: this field is how the spec shapes it.
SPEC_FIELDS = {Step.WORKLOAD: "scaling"}

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


def _defined_activities() -> set[str]:
    """Return the name of every activity that a module of the package defines."""
    modules = [
        importlib.import_module(f"activities.{module.name}") for module in pkgutil.iter_modules(activities.__path__)
    ]
    classes = [each for module in modules for each in vars(module).values() if isinstance(each, type)]
    return {_name(method) for each in classes for method in vars(each).values() if _is_activity(method)}


def _registered_activities() -> set[str]:
    """Return the name of every activity that the worker offers."""
    nothing: Any = None
    clients = Clients(kube=nothing, postgres=nothing, s3=nothing, keycloak=nothing)
    return {_name(method) for method in build_activities(SETTINGS, clients, nothing)}


def _is_activity(member: object) -> bool:
    return hasattr(member, "__temporal_activity_definition")


def _name(member: Callable[..., Any]) -> str:
    return str(member.__temporal_activity_definition.name)  # type: ignore[attr-defined]


@pytest.mark.parametrize("step", provision_order(Kind.APPLICATION))
def test_every_step_has_activity_condition_and_crd_field(step: Step) -> None:
    defined, registered = _defined_activities(), _registered_activities()
    spec, status = (properties(Kind.APPLICATION)[part]["properties"] for part in ("spec", "status"))
    field = SPEC_FIELDS.get(step, step.value)

    needed = {f"reconcile_{step}", f"delete_{step}"}

    assert needed - defined == set()
    assert needed - registered == set()
    assert _name(RECONCILE[step]) == f"reconcile_{step}"
    assert _name(DELETE[step]) == f"delete_{step}"
    assert step in cleanup_order(Kind.APPLICATION)
    assert step.condition is not ConditionType.READY
    assert step.condition in status["conditions"]["items"]["properties"]["type"]["enum"]
    assert field in spec
    assert field in ApplicationSpec.model_fields


def test_worker_offers_every_activity_there_is() -> None:
    assert _registered_activities() == _defined_activities()


def test_what_is_provisioned_is_cleaned_up() -> None:
    assert set(cleanup_order(Kind.PREVIEW)) == set(provision_order(Kind.PREVIEW))
