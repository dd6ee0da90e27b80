import logging

import pytest
from prometheus_client import CollectorRegistry

from clients.resources import Json
from plattr.objects import Kind
from tests.watcher.bodies import BodyFleet, custom_object, deployment, orphan
from watcher.deployment_tracker import DOUBT_SECONDS
from watcher.metrics import WatcherMetrics
from watcher.reconcile_queue import ReconcileRequest
from watcher.time_to_running import TimeToRunning


class Stage:
    def __init__(self) -> None:
        self.now = 100.0
        self.requests: list[ReconcileRequest] = []
        self.registry = CollectorRegistry()
        waiting = TimeToRunning(WatcherMetrics(self.registry), clock=lambda: self.now)
        self.tracker = BodyFleet(self.requests.append, waiting, clock=lambda: self.now)

    def settle(self) -> None:
        self.now += DOUBT_SECONDS
        self.tracker.confirm()

    @property
    def signals(self) -> list[str]:
        return [request.signal for request in self.requests]


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_whole_run_of_status_and_finalizer_writes_is_one_request(stage: Stage) -> None:
    stage.tracker.change(Kind.APPLICATION, "ADDED", custom_object(finalizer=False))
    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object())
    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(phase="Provisioning"))
    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(phase="Running"))

    assert stage.signals == ["changed"]


def test_the_way_of_an_object_to_running_is_measured_once_for_each_of_its_lives(stage: Stage) -> None:
    for uid in ("u1", "u2"):
        stage.tracker.change(Kind.APPLICATION, "ADDED", custom_object(uid=uid))
        stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(uid=uid, phase="Running"))
        stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(uid=uid, phase="Running"))
        stage.tracker.change(Kind.APPLICATION, "DELETED", custom_object(uid=uid, finalizer=False, deleting=True))

    labels = {"kind": "Application", "environment": "production", "change": "created"}
    assert stage.registry.get_sample_value("plattr_time_to_running_seconds_count", labels) == 2


def test_deletion_requests_the_cleanup_and_its_end_requests_nothing(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.tracker.change(Kind.APPLICATION, "ADDED", custom_object(phase="Running"))
    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(generation=2, deleting=True, phase="Running"))
    stage.tracker.change(Kind.APPLICATION, "DELETED", custom_object(generation=2, deleting=True, finalizer=False))

    assert [request.is_deleting for request in stage.requests] == [True]
    assert len(stage.tracker) == 0
    assert not caplog.records


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("finalizer", [True, False], ids=["by-force", "never-claimed"])
def test_an_object_that_went_without_a_deletion_is_told_to_its_run(
    stage: Stage, caplog: pytest.LogCaptureFixture, kind: Kind, finalizer: bool
) -> None:
    # A preview's run sleeps until its end, up to 30 days; a refused one has no finalizer and sleeps all the same.
    stage.tracker.change(kind, "ADDED", custom_object(finalizer=finalizer, phase="Running"))
    stage.requests.clear()

    with caplog.at_level(logging.WARNING):
        stage.tracker.change(kind, "DELETED", custom_object(finalizer=False))

    [request] = stage.requests
    # Not the cleanup: nobody has asked for one, and what is left may be wanted.
    assert (request.reference.kind, request.signal, request.is_deleting) == (kind, "changed", False)
    assert len(caplog.records) == finalizer


def test_a_settled_object_that_fails_later_is_not_requested_by_its_own_status(stage: Stage) -> None:
    stage.tracker.replace(Kind.APPLICATION, [custom_object(phase="Running")])

    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(phase="Provisioning"))
    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(phase="Failed"))

    assert stage.signals == []


def test_an_object_created_again_is_requested_again(stage: Stage) -> None:
    stage.tracker.change(Kind.APPLICATION, "ADDED", custom_object())
    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(deleting=True))
    stage.tracker.change(Kind.APPLICATION, "DELETED", custom_object(finalizer=False, deleting=True))
    stage.tracker.change(Kind.APPLICATION, "ADDED", custom_object(uid="u2"))

    assert stage.signals == ["changed"] * 3


def test_a_list_requests_the_unsettled_and_every_preview(stage: Stage) -> None:
    settled, failed = custom_object("settled", phase="Running"), custom_object("failed", phase="Failed")
    stage.tracker.replace(Kind.APPLICATION, [settled, failed])
    stage.tracker.replace(Kind.PREVIEW, [settled, failed])

    requested = [(request.reference.kind, request.reference.name) for request in stage.requests]
    assert requested == [(Kind.APPLICATION, "failed"), (Kind.PREVIEW, "settled"), (Kind.PREVIEW, "failed")]


def test_an_object_missing_from_a_list_is_forgotten_aloud_and_the_other_kind_stays(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.tracker.replace(Kind.APPLICATION, [custom_object("kept"), custom_object("gone")])
    stage.tracker.replace(Kind.PREVIEW, [custom_object("gone")])

    with caplog.at_level(logging.WARNING):
        stage.tracker.replace(Kind.APPLICATION, [custom_object("kept")])

    assert stage.tracker.census() == {
        ("Application", "production", "Pending"): 1,
        ("PreviewEnvironment", "preview", "Pending"): 1,
    }
    assert [vars(record)["object"] for record in caplog.records] == ["gone"]  # fmt: skip


def test_an_outage_of_the_deployment_is_told_once(stage: Stage) -> None:
    stage.tracker.replace(Kind.APPLICATION, [custom_object(phase="Running")])
    stage.tracker.replace_deployments([deployment(available=True)])

    for _ in range(3):
        stage.tracker.change_deployment("MODIFIED", deployment(available=False))
        stage.settle()

    assert stage.signals == ["repair"]


def test_each_flip_is_told(stage: Stage) -> None:
    stage.tracker.replace(Kind.APPLICATION, [custom_object(phase="Running")])
    stage.tracker.change_deployment("MODIFIED", deployment(available=False))
    stage.settle()
    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(phase="Failed", deployment_ready="False"))
    stage.settle()
    stage.tracker.change_deployment("MODIFIED", deployment(available=True))
    stage.settle()

    assert stage.signals == ["repair", "repair"]


def test_news_that_crosses_on_two_connections_is_no_flip(stage: Stage) -> None:
    stage.tracker.replace(Kind.APPLICATION, [custom_object(phase="Provisioning")])
    stage.tracker.replace_deployments([deployment(available=False)])

    stage.requests.clear()
    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(phase="Running"))
    stage.tracker.confirm()
    stage.tracker.change_deployment("MODIFIED", deployment(available=True))
    stage.settle()

    assert stage.signals == []


def test_a_flip_during_a_run_is_told_when_the_run_ends_in_running(stage: Stage) -> None:
    stage.tracker.replace(Kind.APPLICATION, [custom_object(phase="Provisioning")])
    stage.tracker.change_deployment("MODIFIED", deployment(available=False))
    stage.requests.clear()

    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(phase="Running"))
    stage.settle()

    assert stage.signals == ["repair"]


def test_a_deployment_removed_by_hand_is_told(stage: Stage) -> None:
    stage.tracker.replace(Kind.APPLICATION, [custom_object(phase="Running")])
    stage.tracker.change_deployment("ADDED", deployment(available=True))

    stage.tracker.change_deployment("DELETED", deployment(available=True))
    stage.settle()

    assert stage.signals == ["repair"]


def test_a_deployment_missed_by_a_list_is_told(stage: Stage) -> None:
    stage.tracker.replace(Kind.APPLICATION, [custom_object(phase="Running")])
    stage.tracker.replace_deployments([deployment(available=True)])

    stage.tracker.replace_deployments([])
    stage.settle()

    assert stage.signals == ["repair"]


@pytest.mark.parametrize("deployments_first", [True, False], ids=["deployments-first", "objects-first"])
def test_a_deployment_that_vanished_while_nobody_looked_is_told_once(stage: Stage, deployments_first: bool) -> None:
    lists = [
        lambda: stage.tracker.replace(
            Kind.APPLICATION, [custom_object(phase="Running"), custom_object("whole", phase="Running")]
        ),
        lambda: stage.tracker.replace_deployments([deployment("whole", available=True)]),
    ]
    for take in lists[::-1] if deployments_first else lists:
        take()
        before = list(stage.requests)
    stage.settle()
    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(phase="Running", version="2"))
    stage.settle()

    assert before == []
    assert [(request.reference.name, request.signal) for request in stage.requests] == [("shop", "repair")]


def test_before_the_deployments_are_listed_nobody_is_told(stage: Stage) -> None:
    stage.tracker.replace(Kind.APPLICATION, [custom_object(phase="Running")])
    stage.settle()
    stage.settle()

    assert stage.signals == []


def test_an_owner_that_is_not_settled_needs_no_deployment(stage: Stage) -> None:
    stage.tracker.replace_deployments([])
    stage.tracker.replace(Kind.APPLICATION, [custom_object(phase="Failed", deployment_ready="False")])
    stage.requests.clear()
    stage.settle()

    assert stage.signals == []


def requests_of(stage: Stage, kind: Kind) -> list[str]:
    return [request.signal for request in stage.requests if request.reference.kind is kind]


def test_a_preview_is_told_when_the_parent_that_it_lacked_appears(stage: Stage) -> None:
    stage.tracker.change(Kind.PREVIEW, "ADDED", custom_object("shop-1"))
    stage.tracker.change(Kind.PREVIEW, "MODIFIED", orphan())
    stage.tracker.change(Kind.APPLICATION, "ADDED", custom_object("other"))
    before = requests_of(stage, Kind.PREVIEW)
    stage.tracker.change(Kind.APPLICATION, "ADDED", custom_object("shop", uid="u7"))
    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object("shop", uid="u7", phase="Running"))
    stage.tracker.change(Kind.PREVIEW, "MODIFIED", orphan(version="2"))

    assert before == ["changed"]
    assert requests_of(stage, Kind.PREVIEW) == ["changed", "changed"]


def test_a_parent_that_was_seen_before_its_preview_failed_is_told_as_well(stage: Stage) -> None:
    stage.tracker.change(Kind.PREVIEW, "ADDED", custom_object("shop-1"))
    stage.tracker.change(Kind.APPLICATION, "ADDED", custom_object("shop"))
    stage.tracker.change(Kind.PREVIEW, "MODIFIED", orphan())

    assert requests_of(stage, Kind.PREVIEW) == ["changed", "changed"]


def test_a_parent_created_anew_is_told_again_and_a_dying_one_never(stage: Stage) -> None:
    stage.tracker.change(Kind.PREVIEW, "ADDED", custom_object("shop-1"))
    stage.tracker.change(Kind.PREVIEW, "MODIFIED", orphan())
    stage.tracker.change(Kind.APPLICATION, "ADDED", custom_object("shop", deleting=True))
    dying = len(requests_of(stage, Kind.PREVIEW))
    stage.tracker.change(Kind.APPLICATION, "DELETED", custom_object("shop", deleting=True))
    stage.tracker.change(Kind.APPLICATION, "ADDED", custom_object("shop", uid="u8"))

    assert dying == 1
    assert len(requests_of(stage, Kind.PREVIEW)) == 2


@pytest.mark.parametrize("reason", ["InvalidSpec", "NameTooLong"])
def test_a_preview_that_was_refused_for_its_parents_spec_is_told_of_each_change_of_it(
    stage: Stage, reason: str
) -> None:
    stage.tracker.change(Kind.APPLICATION, "ADDED", custom_object("shop"))
    stage.tracker.change(Kind.PREVIEW, "ADDED", custom_object("shop-1"))
    stage.tracker.change(Kind.PREVIEW, "MODIFIED", orphan(reason=reason))
    stage.requests.clear()

    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object("shop", phase="Failed"))
    by_its_status = requests_of(stage, Kind.PREVIEW)
    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object("shop", generation=2, observed=1, phase="Failed"))
    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object("shop", generation=2, phase="Running"))

    assert by_its_status == []
    assert requests_of(stage, Kind.PREVIEW) == ["changed"]


def test_a_preview_that_was_refused_for_something_else_is_not_told_of_its_parent(stage: Stage) -> None:
    stage.tracker.change(Kind.PREVIEW, "ADDED", orphan(reason="OwnedElsewhere"))
    stage.requests.clear()

    stage.tracker.change(Kind.APPLICATION, "ADDED", custom_object("shop"))

    assert requests_of(stage, Kind.PREVIEW) == []


def test_a_preview_that_has_found_its_parent_or_is_gone_is_not_told(stage: Stage) -> None:
    for name in ("shop-1", "shop-2"):
        stage.tracker.change(Kind.PREVIEW, "ADDED", orphan(name))
    stage.tracker.change(Kind.PREVIEW, "MODIFIED", custom_object("shop-1", phase="Running"))
    stage.tracker.change(Kind.PREVIEW, "DELETED", orphan("shop-2"))
    before = len(stage.requests)
    stage.tracker.change(Kind.APPLICATION, "ADDED", custom_object("shop", phase="Running"))

    assert len(stage.requests) == before


def labelled(owner: str, *, namespace: str, name: str, available: bool) -> Json:
    """A Deployment with an owner's labels, wherever it is."""
    body = deployment(owner, available=available)
    body["metadata"] |= {"namespace": namespace, "name": name}
    return body


@pytest.mark.attack
@pytest.mark.parametrize("place", [("evil", "shop"), ("team", "other")], ids=["his-namespace", "another-name"])
def test_a_strangers_deployment_with_anothers_labels_says_nothing(stage: Stage, place: tuple[str, str]) -> None:
    namespace, name = place
    stage.tracker.replace(Kind.APPLICATION, [custom_object(phase="Running")])
    stage.tracker.replace_deployments([deployment(available=True)])

    # Blind to it once it has gone again ...
    stage.tracker.change_deployment("ADDED", labelled("shop", namespace=namespace, name=name, available=True))
    stage.tracker.change_deployment("DELETED", labelled("shop", namespace=namespace, name=name, available=True))
    # ... and neither deaf nor alarmed while it stays.
    stage.tracker.change_deployment("ADDED", labelled("shop", namespace=namespace, name=name, available=False))
    stage.settle()
    assert stage.signals == []
    stage.tracker.change_deployment("ADDED", labelled("shop", namespace=namespace, name=name, available=True))
    stage.tracker.change_deployment("MODIFIED", deployment(available=False))
    stage.settle()

    assert stage.signals == ["repair"]


@pytest.mark.attack
def test_a_previews_deployment_counts_in_its_own_namespace_only(stage: Stage) -> None:
    preview = custom_object("shop-7", phase="Running")
    preview["spec"] = {"applicationRef": "shop", "pullRequest": 7}
    stage.tracker.replace(Kind.PREVIEW, [preview])
    stage.requests.clear()
    own = deployment("shop-7", available=True, kind=Kind.PREVIEW)
    own["metadata"] |= {"namespace": "preview-shop-pr-7", "name": "shop-pr7"}
    stage.tracker.replace_deployments([own])
    stage.settle()
    assert stage.signals == []

    stage.tracker.change_deployment("ADDED", deployment("shop-7", available=True, kind=Kind.PREVIEW))
    stage.tracker.change_deployment("DELETED", own)
    stage.settle()

    assert stage.signals == ["repair"]


@pytest.mark.attack
def test_the_own_deployment_whose_labels_name_another_is_lost(stage: Stage) -> None:
    stage.tracker.replace(Kind.APPLICATION, [custom_object(phase="Running"), custom_object("other")])
    stage.tracker.replace_deployments([deployment(available=True)])
    stage.requests.clear()

    stage.tracker.change_deployment("MODIFIED", labelled("other", namespace="team", name="shop", available=True))
    stage.settle()

    assert [(request.reference.name, request.signal) for request in stage.requests] == [("shop", "repair")]


@pytest.mark.attack
@pytest.mark.parametrize("phase", ["Running", "Failed"])
def test_a_living_object_that_lost_its_finalizer_is_claimed_again_at_once(stage: Stage, phase: str) -> None:
    stage.tracker.replace(Kind.APPLICATION, [custom_object(phase=phase)])
    stage.requests.clear()

    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(phase=phase, finalizer=False))
    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(phase=phase))

    assert stage.signals == ["changed"]


@pytest.mark.attack
def test_one_that_lost_it_while_nobody_looked_is_claimed_again_too(stage: Stage) -> None:
    stage.tracker.replace(Kind.APPLICATION, [custom_object(phase="Running", finalizer=False)])

    assert stage.signals == ["changed"]


def test_a_refused_object_which_never_had_one_is_left_alone(stage: Stage) -> None:
    stage.tracker.change(Kind.APPLICATION, "ADDED", custom_object(finalizer=False))
    stage.tracker.change(Kind.APPLICATION, "MODIFIED", custom_object(phase="Failed", finalizer=False))

    assert stage.signals == ["changed"]
