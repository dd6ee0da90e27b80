"""How long the workers of fault tests wait: as long as for real, or a quarter of that."""

from datetime import timedelta
from functools import partial

import temporalio.worker

import activities.interceptor
import clients.quarantine
import worker.__main__ as real_worker
import workflows.adoption
import workflows.options
import workflows.resync
import workflows.step_runner
from plattr.objects import FrozenModel
from plattr.retries import ROUND, STEP, Backoff


class Timing(FrozenModel):
    """How long a dead worker goes unnoticed, a call of its own may come true after it, and a retry waits."""

    heartbeat_timeout: timedelta
    fence_seconds: float
    sticky_timeout: timedelta
    late_call: timedelta
    longest_delay_seconds: float
    slow_retry: timedelta

    def install(self) -> None:
        """Make it this process's."""
        for module in (workflows.adoption, workflows.step_runner, workflows.resync):
            vars(module)["HEARTBEAT_TIMEOUT"] = self.heartbeat_timeout
        vars(workflows.options)["SLOW_RETRY"] = Backoff(self.slow_retry.total_seconds(), ROUND.longest)
        vars(activities.interceptor).update(
            FENCE_SECONDS=self.fence_seconds, STEP=Backoff(STEP.first, self.longest_delay_seconds)
        )
        vars(clients.quarantine)["LATE_CALL"] = self.late_call
        vars(real_worker)["Worker"] = partial(
            temporalio.worker.Worker, sticky_queue_schedule_to_start_timeout=self.sticky_timeout
        )


# As in workflows/options.py, activities/interceptor.py and the SDK. Only a cleanup that has to wait for a call which
# nobody answered waits for seconds instead of minutes: whoever made that call is stopped here for longer.
EARNEST = Timing(
    heartbeat_timeout=timedelta(seconds=15),
    fence_seconds=10,
    sticky_timeout=timedelta(seconds=10),
    late_call=timedelta(seconds=20),
    longest_delay_seconds=30,
    slow_retry=timedelta(seconds=30),
)
# A quarter of that, in the same order, so that a matrix takes minutes, not hours: the fence ends first.
QUICK = Timing(
    heartbeat_timeout=timedelta(seconds=4),
    fence_seconds=2.5,
    sticky_timeout=timedelta(seconds=1),
    late_call=timedelta(seconds=5),
    longest_delay_seconds=1,
    slow_retry=timedelta(seconds=7.5),
)
