"""What Temporal knows of an object's run."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
)
from temporalio.service import RPCError, RPCStatusCode

from clients.temporal import translated
from plattr.denials import printable
from plattr.naming import workflow_id
from plattr.objects import ObjectReference
from plattr.steps import PROGRESS_QUERY, Progress

# 5 s: a worker answers the query. If it takes longer, there is no worker, or it is overloaded.
QUERY_TIMEOUT = timedelta(seconds=5)

WORKER_AWAY = "no worker answers; is one running?"


@dataclass(frozen=True)
class PendingActivity:
    """The activity that a run waits for."""

    activity: str
    number: int
    maximum: int
    is_running: bool
    last_failure: str
    next_at: datetime | None


@dataclass(frozen=True)
class Run:
    """The newest run of an object."""

    run_id: str
    workflow_type: str
    is_open: bool
    status: str
    started_at: datetime
    closed_at: datetime | None
    attempt: PendingActivity | None = None
    progress: Progress | None = None
    silence: str = ""
    """Why the progress is missing, if it is."""
    failure: str = ""
    """Why a closed run failed."""


async def read_run(client: Client, reference: ObjectReference, *, with_progress: bool = True) -> Run | None:
    """Return the newest run of an object; None if Temporal knows none.

    Raises:
        BackendUnavailable: Temporal does not answer.
    """
    handle = client.get_workflow_handle(workflow_id(reference))
    try:
        description = await handle.describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND and "workflow" in error.message.lower():
            return None
        raise translated(error, f"ask Temporal about {reference}") from None
    except RuntimeError as error:
        raise translated(error, f"ask Temporal about {reference}") from None
    status = description.status or WorkflowExecutionStatus.RUNNING
    is_open = status is WorkflowExecutionStatus.RUNNING
    progress, silence = await _progress(client, reference, description.run_id) if with_progress else (None, "")
    pending = description.raw_description.pending_activities
    return Run(
        run_id=description.run_id,
        workflow_type=description.workflow_type,
        is_open=is_open,
        status=status.name.lower().replace("_", " "),
        started_at=description.start_time,
        closed_at=description.close_time,
        attempt=_attempt(pending[0]) if pending else None,
        progress=progress,
        silence=silence,
        failure=await _failure(handle) if status is WorkflowExecutionStatus.FAILED else "",
    )


async def _progress(client: Client, reference: ObjectReference, run_id: str) -> tuple[Progress | None, str]:
    # Query exactly this run: without the run id a newer run might answer.
    handle = client.get_workflow_handle(workflow_id(reference), run_id=run_id)
    try:
        return await handle.query(PROGRESS_QUERY, result_type=Progress, rpc_timeout=QUERY_TIMEOUT), ""
    except (RPCError, WorkflowQueryFailedError):
        return None, WORKER_AWAY


async def _failure(handle: WorkflowHandle[object, object]) -> str:
    try:
        await handle.result(follow_runs=False)
    except WorkflowFailureError as error:
        return str(error.cause)
    except RPCError as error:
        return error.message
    return ""


def _attempt(pending: PendingActivityInfo) -> PendingActivity:
    next_at = None
    if pending.HasField("next_attempt_schedule_time"):
        next_at = pending.next_attempt_schedule_time.ToDatetime(tzinfo=UTC)
    return PendingActivity(
        activity=pending.activity_type.name,
        number=pending.attempt,
        maximum=pending.maximum_attempts,
        is_running=pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED,
        last_failure=_message(pending.last_failure) if pending.HasField("last_failure") else "",
        next_at=next_at,
    )


def _message(failure: Failure) -> str:
    return " ".join(printable(failure.message).split())
