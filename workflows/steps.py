"""The activities of each step: the one table that every workflow reads."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.auth import AuthActivities
    from activities.database import DatabaseActivities
    from activities.database_removal import DatabaseRemovalActivities
    from activities.namespace import NamespaceActivities
    from activities.redis import RedisActivities
    from activities.search import SearchActivities
    from activities.storage import StorageActivities
    from activities.workload import WorkloadActivities
    from plattr.features import Step
    from plattr.steps import CleanupStepInput, StepInput, StepResult


class StepActivities(NamedTuple):
    """What a step does in a run that provisions, and in one that cleans up."""

    reconcile: Callable[[Any, StepInput], Awaitable[StepResult]]
    delete: Callable[[Any, CleanupStepInput], Awaitable[StepResult]]


# The methods stand here by name, and not derived from the step: so mypy checks their arguments and results.
STEP_ACTIVITIES = {
    Step.NAMESPACE: StepActivities(NamespaceActivities.reconcile_namespace, NamespaceActivities.delete_namespace),
    Step.DATABASE: StepActivities(DatabaseActivities.reconcile_database, DatabaseRemovalActivities.delete_database),
    Step.STORAGE: StepActivities(StorageActivities.reconcile_storage, StorageActivities.delete_storage),
    Step.AUTH: StepActivities(AuthActivities.reconcile_auth, AuthActivities.delete_auth),
    Step.REDIS: StepActivities(RedisActivities.reconcile_redis, RedisActivities.delete_redis),
    Step.SEARCH: StepActivities(SearchActivities.reconcile_search, SearchActivities.delete_search),
    Step.WORKLOAD: StepActivities(WorkloadActivities.reconcile_workload, WorkloadActivities.delete_workload),
}
