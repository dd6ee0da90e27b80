"""What the meter counts of an attempt."""

import asyncio
from typing import Any

import pytest
from prometheus_client import REGISTRY
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities.metering import AttemptMeter
from plattr.backends import Backend, of_backend
from plattr.errors import BackendUnavailable, InvalidSpec, RolloutFailed, Superseded
from plattr.steps import StepResult

STEP = "unknown"  # what ActivityEnvironment calls every activity


class Attempt(ActivityInboundInterceptor):
    """Stands for the activity itself."""

    def __init__(self, end: object) -> None:
        self._end = end

    async def execute_activity(self, input: ExecuteActivityInput) -> object:
        if isinstance(self._end, BaseException):
            raise self._end
        return self._end


async def measured(end: object) -> object:
    request = ExecuteActivityInput(fn=measured, args=[], executor=None, headers={})
    meter = AttemptMeter().intercept_activity(Attempt(end))
    return await ActivityEnvironment().run(meter.execute_activity, request)


def value(name: str, **labels: Any) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


AWAY = of_backend(Backend.S3, BackendUnavailable("cannot reach S3"))


@pytest.mark.parametrize(
    ("end", "outcome", "reason"),
    [
        (StepResult(), "done", "Succeeded"),
        ("another result", "done", "Succeeded"),
        (StepResult(is_done=False), "waiting", "NotDone"),
        (AWAY, "failed", "BackendUnavailable"),
        (RolloutFailed("bad image", cause="ImagePullBackOff"), "failed", "ImagePullBackOff"),
        (KeyError("password"), "failed", "Unexpected"),
        (Superseded("newer"), "preempted", "Superseded"),
        (asyncio.CancelledError(), "preempted", "Cancelled"),
    ],
    ids=["done", "other-result", "waiting", "backend", "rollout", "defect", "superseded", "cut-off"],
)
async def test_every_end_of_an_attempt_is_counted_once(end: object, outcome: str, reason: str) -> None:
    def counts() -> tuple[float, float]:
        attempts = value("plattr_step_attempts_total", step=STEP, reason=reason)
        return attempts, value("plattr_step_duration_seconds_count", step=STEP, outcome=outcome)

    before = counts()
    try:
        result = await measured(end)
    except BaseException as error:  # noqa: BLE001  the end itself
        result = error

    assert result is end
    assert counts() == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize(("end", "more"), [(AWAY, 1), (InvalidSpec("spec.domain", "bad"), 0)], ids=["away", "refusal"])
async def test_only_a_backends_own_failures_are_counted_as_its_errors(end: Exception, more: int) -> None:
    def errors() -> float:
        return sum(
            sample.value
            for metric in REGISTRY.collect()
            if metric.name == "plattr_backend_errors"
            for sample in metric.samples
            if sample.name.endswith("_total")
        )

    before = errors()
    with pytest.raises(type(end)):
        await measured(end)

    assert errors() == before + more
    assert value("plattr_backend_errors_total", backend="s3", reason="BackendUnavailable") >= more
