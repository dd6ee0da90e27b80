"""Histories of real runs replay: whoever reorders a workflow's commands learns it here, not from stuck runs."""

import base64
import re
import sys
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from tests.replay.record import HISTORIES as FOLDER
from tests.replay.record import main, readable, version
from worker.registry import WORKFLOWS

HISTORIES = sorted(FOLDER.glob("*.json"))
RELEASED = sorted((Path(__file__).parents[1] / "deploy" / "released").iterdir())


@pytest.fixture(scope="module")
def replayer() -> Replayer:
    return Replayer(workflows=WORKFLOWS, data_converter=pydantic_data_converter)


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(replayer: Replayer, path: Path) -> None:
    history = WorkflowHistory.from_json(path.stem, path.read_text())

    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)

    assert result.replay_failure is None, result.replay_failure


# A type of run and what it does when an upgrade meets it: of these a release leaves some behind, all over the place.
OPEN = {("PreviewLifecycle", "asleep"), ("ProvisionApplication", "retrying"), ("CleanupApplication", "retrying")}
STAGED = OPEN | {
    ("ProvisionApplication", "paused"),
    ("ProvisionApplication", "canceled"),
    ("PreviewLifecycle", "paused"),
    ("PreviewLifecycle", "canceled"),
}


def parts(path: Path) -> tuple[str, str, str]:
    """Return release, type of run and label; a pre-release has a dash of its own."""
    release, workflow_type, label, _ = path.stem.rsplit("-", 3)
    return release, workflow_type, label


@pytest.mark.parametrize("release", sorted(path.name for path in RELEASED))
def test_every_release_has_every_workflow_and_what_an_upgrade_meets(release: str) -> None:
    recorded = {parts(path)[1:] for path in HISTORIES if parts(path)[0] == release}

    assert {workflow.__name__ for workflow in WORKFLOWS} == {workflow_type for workflow_type, _ in recorded}
    assert recorded >= STAGED


def test_every_history_is_of_a_release() -> None:
    assert {parts(path)[0] for path in HISTORIES} == {path.name for path in RELEASED}


@pytest.mark.parametrize("path", [path for path in HISTORIES if parts(path)[1:] in OPEN], ids=lambda path: path.stem)
def test_an_open_history_ends_at_a_timer_and_nothing_else_is_under_way(path: Path) -> None:
    events = WorkflowHistory.from_json(path.stem, path.read_text()).events
    timers = {event.event_id for event in events if event.event_type == EventType.EVENT_TYPE_TIMER_STARTED}
    rung = {event.timer_fired_event_attributes.started_event_id for event in events}
    canceled = {event.timer_canceled_event_attributes.started_event_id for event in events}
    begun = {event.event_id for event in events if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED}
    ended = {
        attributes.scheduled_event_id
        for event in events
        for attributes in (
            event.activity_task_completed_event_attributes,
            event.activity_task_failed_event_attributes,
            event.activity_task_canceled_event_attributes,
        )
    }

    assert len(timers - rung - canceled) == 1
    assert begun - ended == set()
    if parts(path)[2] == "retrying":
        # The second time round, after a timer of the first.
        assert timers & rung


def test_each_staged_history_is_what_it_is_called() -> None:
    for path in HISTORIES:
        text = readable(path.read_text())
        assert ("EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED" in text) == (parts(path)[2] == "canceled"), path.name
        if parts(path)[2] == "paused":
            assert " is paused" in text, path.name


# What a password, a key or a URL with a login in it looks like; the recorder itself compares with the real ones.
SECRET = re.compile(
    r"://[^/\s:@\"]+:[^/\s@\"]+@|SCRAM-SHA-256|-----BEGIN|\beyJ[\w-]+\.|(?i:password|secret|token)\\*\"?\s*[:=]\s*\\*\"?\w"
)


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_no_history_holds_a_secret(path: Path) -> None:
    assert SECRET.findall(readable(path.read_text())) == []


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:word@db/plattr",
        '{"DB_PASSWORD":"word"}',
        "password=word",
        "SCRAM-SHA-256$4096:x",
        "-----BEGIN PRIVATE KEY-----",
        "Bearer eyJhbGciOi.eyJz",
    ],
)
def test_a_secret_in_a_payload_would_be_found(text: str) -> None:
    payload = base64.b64encode(text.encode()).decode()

    assert SECRET.search(readable(f'{{"data": "{payload}"}}'))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: release"),
        (["v9.9.9"], "pyproject.toml has version"),
        ([f"v{version()}"], "recorded once"),
    ],
    ids=["none", "another-version", "again"],
)
def test_a_record_that_cannot_be_made_says_so(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["record", *arguments])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "kind", ["ProvisionApplication-completed", "ProvisionApplication-retrying", "PreviewLifecycle-asleep"]
)
async def test_a_reordered_history_does_not_replay(replayer: Replayer, kind: str) -> None:
    path = next(path for path in HISTORIES if kind in path.stem)
    reordered = path.read_text().replace("claim_object", "reconcile_queue")

    result = await replayer.replay_workflow(
        WorkflowHistory.from_json(path.stem, reordered), raise_on_replay_failure=False
    )

    assert result.replay_failure is not None
