from typing import Any

import pytest

from plattr.objects import Kind
from tests.watcher.bodies import custom_object
from watcher.predicates import signal_for_availability, signal_for_change
from watcher.snapshots import ObjectSnapshot, take_snapshot

RUNNING = {"phase": "Running"}
BEHIND = {"generation": 2, "observed": 1, "phase": "Running"}
FAILED = {"phase": "Failed"}


def application(**fields: Any) -> ObjectSnapshot:
    return take_snapshot(Kind.APPLICATION, custom_object(**fields))


def preview(**fields: Any) -> ObjectSnapshot:
    return take_snapshot(Kind.PREVIEW, custom_object(**fields))


# What was seen before and was asked to reconcile for, what is seen now, whether a list said so, the signal.
CASES = {
    "new object": (None, application(), False, "changed"),
    "settled object seen first by a list": (None, application(**RUNNING), True, None),
    "settled object seen first by a watch": (None, application(**RUNNING), False, None),
    "status behind the generation, on a list": (None, application(**BEHIND), True, "changed"),
    "failed object on a list": (application(**FAILED), application(**FAILED), True, "changed"),
    "provisioning object on a list": (None, application(phase="Provisioning"), True, "changed"),
    "new generation": (application(**RUNNING), application(**BEHIND), False, "changed"),
    "new generation, settled already": (application(**RUNNING), application(generation=2, **RUNNING), False, None),
    "status write: Provisioning": (application(), application(phase="Provisioning", version="2"), False, None),
    "status write: Running": (application(phase="Provisioning"), application(**RUNNING), False, None),
    "status write: Failed": (application(phase="Provisioning"), application(**FAILED), False, None),
    "finalizer write": (application(finalizer=False), application(finalizer=True), False, None),
    "deletion": (application(**RUNNING), application(deleting=True, **BEHIND), False, "changed"),
    "deletion, same generation": (application(**RUNNING), application(deleting=True, **RUNNING), False, "changed"),
    "status write of a cleanup": (application(deleting=True), application(deleting=True, **FAILED), False, None),
    "deleting object on a list": (application(deleting=True), application(deleting=True), True, "changed"),
    "deletion of a paused one": (application(paused=True), application(paused=True, deleting=True), False, "changed"),
    "re-created with the same generation": (application(**RUNNING), application(uid="u2"), False, "changed"),
    "re-created while its predecessor was paused": (application(paused=True), application(uid="u2"), False, "changed"),
    "new object that is paused": (None, application(paused=True), False, None),
    "paused object on a list": (application(paused=True), application(paused=True), True, None),
    "change of a paused object": (application(paused=True), application(paused=True, generation=2), False, None),
    "settled object paused": (application(**RUNNING), application(paused=True, **RUNNING), False, None),
    "failing object paused": (application(**FAILED), application(paused=True, **FAILED), False, "changed"),
    "settled object resumed": (application(paused=True, **RUNNING), application(**RUNNING), False, "repair"),
    "failed object resumed": (application(paused=True, **FAILED), application(**FAILED), False, "repair"),
    "settled preview seen first by a list": (None, preview(**RUNNING), True, "changed"),
    "settled preview seen first by a watch": (None, preview(**RUNNING), False, "changed"),
    "settled preview on a later list": (preview(**RUNNING), preview(**RUNNING), True, "changed"),
    "preview's status write": (preview(phase="Provisioning"), preview(**RUNNING), False, None),
    "preview's new ttl": (preview(**RUNNING), preview(**BEHIND), False, "changed"),
    "settled preview resumed": (preview(paused=True, **RUNNING), preview(**RUNNING), False, "repair"),
    "settled preview paused": (preview(**RUNNING), preview(paused=True, **RUNNING), False, "changed"),
    "paused preview on a list": (preview(paused=True), preview(paused=True), True, None),
}  # fmt: skip


@pytest.mark.parametrize(("before", "seen", "is_from_list", "signal"), CASES.values(), ids=CASES.keys())
def test_object(before: ObjectSnapshot | None, seen: ObjectSnapshot, is_from_list: bool, signal: str) -> None:
    handled = before.revision if before is not None and not before.is_paused else None

    assert signal_for_change(seen, before, handled, is_from_list=is_from_list) == signal


def test_a_request_that_was_for_an_earlier_generation_does_not_count() -> None:
    before = application(generation=2, phase="Failed")

    assert signal_for_change(before, before, application(generation=1).revision) == "changed"


AVAILABILITY = {
    "running and unavailable": (application(**RUNNING), False, "repair"),
    "running and available": (application(**RUNNING), True, None),
    "failed by the deployment, now available": (application(deployment_ready="False", **FAILED), True, "repair"),
    "failed by the deployment, still unavailable": (application(deployment_ready="False", **FAILED), False, None),
    "failed by something else": (application(deployment_ready="True", **FAILED), True, None),
    "during a run": (application(phase="Provisioning", deployment_ready="False"), False, None),
    "a new spec not begun yet": (application(**BEHIND), False, None),
    "being deleted": (application(deleting=True, **RUNNING), False, None),
    "paused": (application(paused=True, **RUNNING), False, None),
    "a preview": (preview(**RUNNING), False, "repair"),
    "owner not known": (None, False, None),
}


@pytest.mark.parametrize(("owner", "is_available", "signal"), AVAILABILITY.values(), ids=AVAILABILITY.keys())
def test_deployment(owner: ObjectSnapshot | None, is_available: bool, signal: str) -> None:
    assert signal_for_availability(owner, is_available=is_available) == signal
