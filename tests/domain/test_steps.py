"""Messages between workflows and activities survive Temporal's JSON and cannot be changed."""

import inspect
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel, ValidationError

from plattr import steps
from plattr.claims import Claim
from plattr.features import ClaimKind, ConditionType, Step, cleanup_order, provision_order
from plattr.marks import Estate
from plattr.objects import Kind, ObjectReference
from plattr.status import ConditionUpdate, Phase
from plattr.steps import Problem, Progress, Remedy, RunInput

MODELS = sorted(
    (model for _, model in inspect.getmembers(steps, inspect.isclass) if issubclass(model, BaseModel)),
    key=lambda model: model.__name__,
)
REFERENCE = ObjectReference(kind=Kind.PREVIEW, namespace="team", name="my-app")
FINDING = ConditionUpdate(type=ConditionType.DATABASE, status="False", reason="Tested", message="why")
ESTATE = Estate(reference=REFERENCE, cluster="c", namespace_uid=None)
CLAIM = Claim(kind=ClaimKind.SCHEMA, name="prod_my_app")
NOW = datetime(2026, 1, 1, 12, 30, 0, 1, tzinfo=UTC)
PROBLEM = Problem(reason="Conflict", message="m", remedy=Remedy.RETRY, condition=ConditionType.DATABASE)
STATE = steps.RunState(round=3, request=steps.PendingRequest(every_step=True), cascade=True, left=("indices",))

MESSAGES = [
    PROBLEM,
    steps.ClaimInput(reference=REFERENCE, every_step=True, take_over=True),
    steps.ClaimResult(
        verdict="proceed",
        uid="u",
        generation=2,
        steps=provision_order(Kind.APPLICATION),
        kept=(FINDING,),
    ),
    steps.StepInput(reference=REFERENCE, uid="u", generation=2),
    steps.RolloutInput(reference=REFERENCE, uid="u", generation=2, said=FINDING),
    steps.StepResult(updates=(FINDING,), is_done=False, waiting_for="pods"),
    steps.StatusInput(reference=REFERENCE, updates=(FINDING,), unreached=(ConditionType.AUTH,), retries_exhausted=True),
    steps.StatusResult(phase=Phase.FAILED, is_written=True),
    steps.CleanupInput(reference=REFERENCE, delete_object=True, uid="u", purge=True),
    steps.CleanupPlan(verdict="proceed", steps=(Step.RELEASE,), uid="u", retain=True, purge=True, outliving=(CLAIM,)),
    steps.CleanupStepInput(reference=REFERENCE, uid="u", retain=True, outliving=(CLAIM,)),
    steps.PreviewLifetime(
        verdict="alive", lifetime=steps.Lifetime(uid="u", expires_at=NOW, warn_at=NOW, warning="stale")
    ),
    steps.ExpiryInput(reference=REFERENCE, uid="u", expires_at=NOW, is_due=False),
    RunInput(namespace="team", name="my-app", every_step=True, take_over=True, by_hand=False, state=STATE),
    STATE,
    STATE.request,
    steps.RunResult(phase=Phase.RUNNING, generation=2, summary="s"),
    Progress(
        step=Step.DATABASE, done=(Step.CLAIM,), took={"claim": timedelta(seconds=1.5)}, last_error=PROBLEM,
        next_retry=NOW,
    ),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_message_survives_json(message: BaseModel) -> None:
    model = type(message)

    by_name = model.model_validate_json(message.model_dump_json())
    by_alias = model.model_validate_json(message.model_dump_json(by_alias=True))

    assert by_name == message
    assert by_alias == message


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_message_is_frozen_and_tried(model: type[BaseModel]) -> None:
    messages = [message for message in [*MESSAGES, REFERENCE, FINDING, CLAIM, ESTATE] if type(message) is model]

    assert messages or model.__name__ in ("FrozenModel", "ObjectReference", "ConditionUpdate", "Lifetime")
    assert model.model_config.get("frozen") is True


def test_message_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        PROBLEM.reason = "Other"  # type: ignore[misc]


def test_run_is_started_by_hand_with_two_words() -> None:
    run = RunInput.model_validate_json('{"namespace": "team", "name": "my-app"}')

    assert run.by_hand
    assert run.reference(Kind.APPLICATION).key == "team/Application/my-app"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {"delete_object": True}),
        ({"uid": "u"}, {"delete_object": True, "uid": "u"}),
        ({"by_hand": False, "cascade": True}, {"cascade": True}),
        ({"purge": True}, {"purge": True}),
        ({"by_hand": False, "every_step": True}, {"request": steps.PendingRequest(every_step=True)}),
        ({"every_step": True, "state": STATE}, STATE.model_dump()),
    ],
    ids=["by-hand", "one-incarnation", "cascade", "purge", "every-step", "a-new-history"],
)
def test_a_run_begins_with_what_was_asked_or_with_what_it_carried(
    asked: dict[str, object], expected: dict[str, object]
) -> None:
    run = RunInput.model_validate({"namespace": "team", "name": "my-app"} | asked)

    assert run.initial_state() == steps.RunState.model_validate(expected)


@pytest.mark.parametrize("text", ['{"namespace": "team"}', '{"namespace": "", "name": "a"}', "{}"])
def test_run_without_an_object_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        RunInput.model_validate_json(text)


def test_steps_run_in_the_order_of_the_specification() -> None:
    provisioned, removed = provision_order(Kind.APPLICATION), cleanup_order(Kind.APPLICATION)

    assert [str(step) for step in provisioned] == ["database", "storage", "auth", "redis", "search", "workload"]
    assert [str(step) for step in removed] == ["workload", "search", "redis", "auth", "storage", "database"]


def test_a_previews_namespace_comes_first_and_goes_last() -> None:
    assert provision_order(Kind.PREVIEW) == (Step.NAMESPACE, *provision_order(Kind.APPLICATION))
    assert cleanup_order(Kind.PREVIEW) == (*cleanup_order(Kind.APPLICATION), Step.NAMESPACE)


@pytest.mark.parametrize(
    ("step", "condition"),
    [
        (Step.CLAIM, "Ready"),
        (Step.DATABASE, "DatabaseReady"),
        (Step.STORAGE, "StorageReady"),
        (Step.AUTH, "AuthReady"),
        (Step.REDIS, "RedisReady"),
        (Step.SEARCH, "SearchReady"),
        (Step.WORKLOAD, "DeploymentReady"),
        (Step.ROLLOUT, "DeploymentReady"),
        (Step.NAMESPACE, "DeploymentReady"),
    ],
)
def test_failed_step_makes_its_condition_false(step: Step, condition: str) -> None:
    assert step.condition == condition
