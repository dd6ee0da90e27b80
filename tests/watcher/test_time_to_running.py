from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from plattr.objects import Kind
from tests.watcher.bodies import custom_object
from watcher.metrics import WatcherMetrics
from watcher.snapshots import take_snapshot
from watcher.time_to_running import TimeToRunning

CREATED_AT = take_snapshot(Kind.APPLICATION, custom_object()).created_at


class Stage:
    def __init__(self) -> None:
        self.passed = 0.0
        self.age = 0.4
        self.registry = CollectorRegistry()
        self.waiting = TimeToRunning(
            WatcherMetrics(self.registry),
            clock=lambda: 1000 + self.passed,
            now=lambda: CREATED_AT + self.age + self.passed,
        )

    def see(self, *, after: float = 0.0, **body: Any) -> None:
        self.passed += after
        self.waiting.look(take_snapshot(Kind.APPLICATION, custom_object(**body)))

    def waited(self, change: str) -> tuple[float | None, ...]:
        labels = {"kind": "Application", "environment": "production", "change": change}
        return tuple(
            self.registry.get_sample_value(f"plattr_time_to_running_seconds_{part}", labels)
            for part in ("count", "sum")
        )


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_new_object_waits_from_its_first_sight_to_running(stage: Stage) -> None:
    stage.see()
    stage.see(after=1, phase="Provisioning", observed=0)
    stage.see(after=3, phase="Running")

    assert stage.waited("created") == (1, 4)
    assert stage.waited("changed") == (None, None)


def test_an_object_that_was_created_while_nobody_watched_waits_since_then(stage: Stage) -> None:
    stage.age = 90

    stage.see()
    stage.see(after=5, phase="Running")

    assert stage.waited("created") == (1, 95)


def test_a_change_waits_from_its_sight_and_the_newest_counts(stage: Stage) -> None:
    stage.see(phase="Running")
    stage.see(after=10, generation=2, phase="Running", observed=1)
    stage.see(after=2, generation=3, phase="Provisioning", observed=1)
    stage.see(after=4, generation=3, phase="Running")

    assert stage.waited("changed") == (1, 4)


def test_a_failure_on_the_way_is_part_of_the_wait(stage: Stage) -> None:
    stage.see()
    stage.see(after=10, phase="Failed")
    stage.see(after=30, phase="Running")

    assert stage.waited("created") == (1, 40)


@pytest.mark.parametrize(
    "sights",
    [
        [{"phase": "Running"}, {"phase": "Failed"}, {"phase": "Running"}],
        [{"phase": "Failed"}, {"phase": "Running"}],
        [{}, {"paused": True}, {}, {"phase": "Running"}],
        [{"deleting": True}, {"deleting": True, "phase": "Running"}],
    ],
    ids=["back-from-drift", "began-unseen", "paused", "deleted"],
)
def test_what_is_no_wait_for_a_spec_is_not_counted(stage: Stage, sights: list[dict[str, Any]]) -> None:
    for sight in sights:
        stage.see(after=1, **sight)

    assert stage.waited("created") == (None, None)
    assert stage.waited("changed") == (None, None)


def test_an_object_that_went_and_came_again_waits_anew(stage: Stage) -> None:
    stage.see()
    stage.waiting.forget(take_snapshot(Kind.APPLICATION, custom_object()).reference)
    stage.see(after=100, uid="u2")
    stage.see(after=2, uid="u2", phase="Running")

    assert stage.waited("created") == pytest.approx((1, 102.4))
