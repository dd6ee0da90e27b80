"""The connection to Temporal, and the one way to start a run or to signal it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.common import (
    Priority,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode

from plattr import naming
from plattr.errors import BackendRefused, BackendUnavailable, MissingSetting, PlattrError
from plattr.objects import FrozenModel, Kind, ObjectReference
from plattr.steps import CASCADE_SIGNAL, CHANGED_SIGNAL, PURGE_SIGNAL, TASK_QUEUE, RunInput
from telemetry import tracing

NAMESPACE_ATTRIBUTE = SearchAttributeKey.for_keyword("PlattrNamespace")
NAME_ATTRIBUTE = SearchAttributeKey.for_keyword("PlattrName")
ENVIRONMENT_ATTRIBUTE = SearchAttributeKey.for_keyword("PlattrEnvironment")
PHASE_ATTRIBUTE = SearchAttributeKey.for_keyword("PlattrPhase")

# 10 s: the server answers in milliseconds; beyond that the caller's own back-off is better than waiting.
RPC_TIMEOUT = timedelta(seconds=10)
CONNECT_TIMEOUT = timedelta(seconds=5)

# What begins which workflow, by the object's kind and whether it is being deleted. Names, not classes:
# the names are history and never change, and the callers here need none of the workflows' code.
_WORKFLOWS = {
    (Kind.APPLICATION, False): "ProvisionApplication",
    (Kind.APPLICATION, True): "CleanupApplication",
    (Kind.PREVIEW, False): "PreviewLifecycle",
    (Kind.PREVIEW, True): "CleanupPreview",
}

# Lower numbers come first; 3 is the server's default. Thousands of previews may end in one second, and whoever applies
# an Application meanwhile must not stand in their queue; workflows/options.py has the end itself stand behind both.
# Among equals the server takes turns between the namespaces (matching.enableFairness), so that a team that applies
# hundreds of objects does not keep another's single one waiting. Activities inherit both from their run.
# https://docs.temporal.io/develop/task-queue-priority-fairness
_PRIORITIES = {Kind.APPLICATION: 3, Kind.PREVIEW: 4}

# The server's answers that no quick retry changes: a missing search attribute or namespace, missing rights.
_REFUSALS = frozenset(
    {
        RPCStatusCode.INVALID_ARGUMENT,
        RPCStatusCode.NOT_FOUND,
        RPCStatusCode.PERMISSION_DENIED,
        RPCStatusCode.UNAUTHENTICATED,
        RPCStatusCode.FAILED_PRECONDITION,
        RPCStatusCode.UNIMPLEMENTED,
    }
)


async def connect_temporal(
    *, lazy: bool = True, environment: Mapping[str, str] | None = None, runtime: Runtime | None = None
) -> Client:
    """Return a client configured by TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS_*.

    Args:
        lazy: connect at the first call, so that a process starts while Temporal is away; a Worker needs False.
        environment: read instead of the process's own environment.
        runtime: where the client's metrics go.

    Raises:
        MissingSetting: the configuration cannot be read.
        BackendUnavailable: not lazy, and the server cannot be reached.
    """
    try:
        config = ClientConfig.load_client_connect_config(override_env_vars=environment)
    except (RuntimeError, ValueError, OSError) as error:
        raise MissingSetting(f"cannot read the TEMPORAL_* settings: {error}; see docs/settings.md") from None
    # The default of Temporal's own tools.
    address = config.setdefault("target_host", "localhost:7233")
    try:
        return await Client.connect(
            **config,
            data_converter=pydantic_data_converter,
            interceptors=tracing.interceptors(),
            lazy=lazy,
            runtime=runtime,
            connect_timeout=CONNECT_TIMEOUT,
        )
    except (RPCError, RuntimeError) as error:
        raise translated(error, f"reach Temporal at {address}") from None
    except ValueError as error:
        raise MissingSetting(f"cannot use TEMPORAL_ADDRESS {address!r}: {error}; see docs/settings.md") from None


async def start_run(
    client: Client,
    workflow: str,
    argument: FrozenModel,
    *,
    workflow_id: str,
    summary: str,
    doing: str,
    reference: ObjectReference | None = None,
    priority: Priority | None = None,
    on_open: WorkflowIDConflictPolicy = WorkflowIDConflictPolicy.FAIL,
    signal: str | None = None,
    task_queue: str = TASK_QUEUE,
    timeout: timedelta | None = None,
    result_type: type | None = None,
) -> WorkflowHandle[Any, Any]:
    """Start a run. Every run that does not begin inside another run begins here. Needs no worker to be up.

    Args:
        client: the connection.
        workflow: the type's name.
        argument: what the run is told.
        workflow_id: a closed run of this id never stands in the way.
        summary: the line that the UI shows beside the run.
        doing: what fails when the start fails, for the error's text.
        reference: the object that the run is for: it gives search attributes, priority and fairness key.
        priority: of a run that is for no single object.
        on_open: what happens when a run of this id is open.
        signal: is sent with the start.
        task_queue: where a worker takes the run from.
        timeout: the run ends after it, whatever it waits for.
        result_type: of the handle's result.

    Raises:
        WorkflowAlreadyStartedError: a run of this id is open, and `on_open` is FAIL.
        BackendUnavailable: the server did not take it; start it again.
        BackendRefused: the server refuses, as for a search attribute that it does not know.
    """
    try:
        return await client.start_workflow(
            workflow,
            argument,
            id=workflow_id,
            task_queue=task_queue,
            result_type=result_type,
            start_signal=signal,
            execution_timeout=timeout,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=on_open,
            search_attributes=search_attributes(reference) if reference is not None else None,
            static_summary=summary,
            priority=priority or (object_priority(reference) if reference is not None else Priority.default),
            rpc_timeout=RPC_TIMEOUT,
        )
    except (RPCError, RuntimeError) as error:
        raise translated(error, doing) from None


async def request_reconcile(
    client: Client,
    reference: ObjectReference,
    *,
    is_deleting: bool,
    signal: str = CHANGED_SIGNAL,
    task_queue: str = TASK_QUEUE,
) -> None:
    """Signal the object's run that something changed; start the run if there is none (signal-with-start).

    A run that is open gets the signal whatever its type, and reads the object itself.

    Raises:
        BackendUnavailable: the server did not take it; request it again.
        BackendRefused: the server refuses, as for a search attribute that it does not know.
    """
    await start_run(
        client,
        _WORKFLOWS[reference.kind, is_deleting],
        RunInput(namespace=reference.namespace, name=reference.name, by_hand=False),
        workflow_id=naming.workflow_id(reference),
        summary=_summary(reference, is_deleting=is_deleting),
        doing=f"request a reconcile of {reference}",
        reference=reference,
        on_open=WorkflowIDConflictPolicy.USE_EXISTING,
        signal=signal,
        task_queue=task_queue,
    )


async def start_cleanup(client: Client, reference: ObjectReference, *, uid: str = "", cascade: bool = False) -> bool:
    """Start a cleanup that a person asks for; False when a run of the object is open.

    Args:
        client: the connection.
        reference: the object.
        uid: of the object to delete; empty when it is gone.
        cascade: what others made of its data goes as well.

    Raises:
        BackendUnavailable: the server did not take it.
        BackendRefused: the server refuses.
    """
    try:
        await start_run(
            client,
            _WORKFLOWS[reference.kind, True],
            RunInput(
                namespace=reference.namespace,
                name=reference.name,
                by_hand=True,
                uid=uid,
                cascade=cascade,
            ),
            workflow_id=naming.workflow_id(reference),
            summary=_summary(reference, is_deleting=True),
            doing=f"start the cleanup of {reference}",
            reference=reference,
        )
    except WorkflowAlreadyStartedError:
        return False
    return True


async def request_purge(client: Client, reference: ObjectReference, *, cascade: bool = False) -> None:
    """Have everything removed that an object which is gone has left, retained data as well (signal-with-start).

    Without an open run a cleanup starts. An open run becomes the cleanup when it finds its object gone.

    Args:
        client: the connection.
        reference: the object.
        cascade: what others made of its data goes as well.

    Raises:
        BackendUnavailable: the server did not take it; request it again.
        BackendRefused: the server refuses.
    """
    run = RunInput(namespace=reference.namespace, name=reference.name, by_hand=True, purge=True, cascade=cascade)
    # Whatever run has the id by then: `cascade` before `purge`, so that no round purges without it.
    for signal in [CASCADE_SIGNAL, PURGE_SIGNAL] if cascade else [PURGE_SIGNAL]:
        await start_run(
            client,
            _WORKFLOWS[reference.kind, True],
            run,
            workflow_id=naming.workflow_id(reference),
            summary=_summary(reference, is_deleting=True),
            doing=f"start the cleanup after {reference}",
            reference=reference,
            on_open=WorkflowIDConflictPolicy.USE_EXISTING,
            signal=signal,
        )


def is_cleanup(name: str) -> bool:
    """Tell whether a workflow of this name takes an object down."""
    return name in {_WORKFLOWS[kind, True] for kind in Kind}


def object_priority(reference: ObjectReference) -> Priority:
    """Return the priority of an object's runs; among equals the namespaces take turns."""
    return Priority(priority_key=_PRIORITIES[reference.kind], fairness_key=reference.namespace)


def search_attributes(reference: ObjectReference) -> TypedSearchAttributes:
    """Return what a run is found by in Temporal's UI from its start on."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(NAMESPACE_ATTRIBUTE, reference.namespace),
            SearchAttributePair(NAME_ATTRIBUTE, reference.name),
        ]
    )


def _summary(reference: ObjectReference, *, is_deleting: bool) -> str:
    verb = "remove" if is_deleting else "provision"
    return f"{verb} {reference.kind} {reference.namespace}/{reference.name}"


def translated(error: RPCError | RuntimeError, doing: str) -> PlattrError:
    """Return Plattr's error for one of Temporal's; the lazy client's connecting raises RuntimeError."""
    cause = " ".join(str(error).split())
    if isinstance(error, RPCError) and error.status in _REFUSALS:
        return BackendRefused(f"cannot {doing}: Temporal refuses: {cause}")
    return BackendUnavailable(f"cannot {doing}: {cause}")
