"""How a failure crosses the border between activities, workflows and the people who read a run."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.exceptions import TimeoutError as ActivityTimedOut

with workflow.unsafe.imports_passed_through():
    from plattr.steps import Problem, Remedy
    from workflows.options import STEP_RETRIES


def problem_of(error: ActivityError) -> Problem:
    """Read the only detail of the failure, which activities/interceptor.py sets."""
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.details:
        return Problem.model_validate(cause.details[0])
    if isinstance(cause, ActivityTimedOut):
        return Problem(
            reason="TimedOut",
            message=f"cannot finish {error.activity_type}: no answer in time; the worker died, or a backend hangs",
            remedy=Remedy.RETRY,
        )
    return Problem(reason="Unexpected", message=f"cannot finish {error.activity_type}: {cause}", remedy=Remedy.RETRY)


def attempts_of(problem: Problem) -> int:
    """Return how many attempts a step had before it failed with this problem."""
    return STEP_RETRIES.maximum_attempts if problem.remedy is Remedy.RETRY else 1


def refusal_of(problem: Problem | None) -> ApplicationError:
    """Return the failure of a run that no retry can help."""
    if problem is None:
        return ApplicationError("refused", non_retryable=True)
    return ApplicationError(problem.message, problem, type=problem.reason, non_retryable=True)
