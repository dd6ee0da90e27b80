from typing import Any

import pytest

from bench.timeline import EventTimeline
from clients.kube import KubeClient


@pytest.fixture
def sight() -> EventTimeline:
    # Nothing is asked: the events are handed to it.
    return EventTimeline(KubeClient.__new__(KubeClient), "team")


def application(phase: str, observed: int) -> dict[str, Any]:
    status = {"phase": phase, "observedGeneration": observed}
    return {"metadata": {"name": "shop"}, "status": status}


def pod(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}}


async def test_running_is_told_of_the_generation_that_the_status_speaks_of(sight: EventTimeline) -> None:
    sight._look("MODIFIED", application("Running", 1))
    sight._look("MODIFIED", application("Provisioning", 1))

    assert await sight.running("shop", 1) > 0
    with pytest.raises(SystemExit):
        await sight.running("shop", 2, seconds=0.01)


async def test_the_first_moment_of_a_fact_stays(sight: EventTimeline) -> None:
    sight._look("MODIFIED", application("Running", 1))
    first = await sight.running("shop")
    sight._look("MODIFIED", application("Running", 1))

    assert await sight.running("shop") == first
    assert sight.count("running") == 1


async def test_a_failure_is_kept_though_it_runs_later(sight: EventTimeline) -> None:
    sight._look("MODIFIED", application("Failed", 1))
    sight._look("MODIFIED", application("Running", 1))

    assert list(sight.failures) == ["shop"]


async def test_pods_are_gone_with_the_last_of_their_deployment(sight: EventTimeline) -> None:
    for name in ("shop-5d4f-aaaaa", "shop-5d4f-bbbbb", "shop-api-77-ccccc"):
        sight._look_at_pod("ADDED", pod(name))
    sight._look_at_pod("DELETED", pod("shop-5d4f-aaaaa"))
    assert sight.count("pods gone") == 0

    sight._look_at_pod("DELETED", pod("shop-5d4f-bbbbb"))

    assert sight.count("pods gone") == 1
