"""The connection to Temporal, and the only functions that start or signal a run."""

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

# 10 s: the server answers in milliseconds. If it takes longer, the caller's own backoff is better than waiting.
RPC_TIMEOUT = timedelta(seconds=10)
CONNECT_TIMEOUT = timedelta(seconds=5)

# The workflow type by the object's kind, and by whether the object is being deleted. Names, not classes: Temporal's
# histories contain the names, so they never change. This module then needs none of the workflows' code.
_WORKFLOWS = {
    (Kind.APPLICATION, False): "ProvisionApplication",
    (Kind.APPLICATION, True): "CleanupApplication",
    (Kind.PREVIEW, False): "PreviewLifecycle",
    (Kind.PREVIEW, True): "CleanupPreview",
}

# Lower numbers come first; 3 is the server's default. Thousands of previews may end within one second. An Application
# that is applied meanwhile must not wait behind them. workflows/options.py gives the end of a preview a priority after
# both. At equal priority the server serves the namespaces in turn (matching.enableFairness). So a team that applies
# hundreds of objects does not delay another team's single object. Activities inherit priority and fairness from their
# run.
# https://docs.temporal.io/develop/task-queue-priority-fairness
_PRIORITIES = {Kind.APPLICATION: 3, Kind.PREVIEW: 4}

# Answers that no quick retry changes: a search attribute or the namespace is missing, or rights are missing.
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
        environment: the environment to read in place of the process's own.
        runtime: the runtime that collects the client's metrics.

    Raises:
        MissingSetting: the configuration cannot be read.
        BackendUnavailable: the server cannot be reached (only if not lazy).
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
    """Start a run. Every run starts here, unless another run starts it. No worker needs to be up.

    Args:
        client: the connection.
        workflow: the name of the workflow type.
        argument: the workflow's input.
        workflow_id: the workflow id; a closed run with this id does not prevent the start.
        summary: the line that the UI shows beside the run.
        doing: the action, for the text of the error if the start fails.
        reference: the object of the run; it gives the search attributes, the priority and the fairness key.
        priority: the priority of a run that is not for a single object.
        on_open: what happens if a run with this id is open.
        signal: the signal to send with the start.
        task_queue: the task queue from which a worker takes the run.
        timeout: the execution timeout; the run ends after it, whatever it waits for.
        result_type: the type of the handle's result.

    Raises:
        WorkflowAlreadyStartedError: a run with this id is open, and `on_open` is FAIL.
        BackendUnavailable: the server did not accept the start; start the run again.
        BackendRefused: the server refuses, for example because it does not know a search attribute.
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

    An open run of any type gets the signal, and reads the object itself.

    Raises:
        BackendUnavailable: the server did not accept the request; request the reconcile again.
        BackendRefused: the server refuses, for example because it does not know a search attribute.
    """
    await _start_object_run(
        client,
        reference,
        RunInput(namespace=reference.namespace, name=reference.name, by_hand=False),
        is_deleting=is_deleting,
        doing=f"request a reconcile of {reference}",
        signal=signal,
        task_queue=task_queue,
    )


async def start_cleanup(client: Client, reference: ObjectReference, *, uid: str = "", cascade: bool = False) -> bool:
    """Start a cleanup that a person asked for; False when a run of the object is open.

    Args:
        client: the connection.
        reference: the object.
        uid: the uid of the object to delete; empty if the object no longer exists.
        cascade: also remove what others created from the object's data.

    Raises:
        BackendUnavailable: the server did not accept the start.
        BackendRefused: the server refuses.
    """
    try:
        await _start_object_run(
            client,
            reference,
            RunInput(namespace=reference.namespace, name=reference.name, uid=uid, cascade=cascade),
            is_deleting=True,
            doing=f"start the cleanup of {reference}",
        )
    except WorkflowAlreadyStartedError:
        return False
    return True


async def request_purge(client: Client, reference: ObjectReference, *, cascade: bool = False) -> None:
    """Request the removal of everything that a deleted object has left, retained data included (signal-with-start).

    If no run is open, a cleanup starts. An open run becomes the cleanup when it finds that its object is deleted.

    Args:
        client: the connection.
        reference: the object.
        cascade: also remove what others created from the object's data.

    Raises:
        BackendUnavailable: the server did not accept the request; request the purge again.
        BackendRefused: the server refuses.
    """
    run = RunInput(namespace=reference.namespace, name=reference.name, purge=True, cascade=cascade)
    # The signals may reach an open run. Send `cascade` before `purge`, so that no round purges without the cascade.
    for signal in [CASCADE_SIGNAL, PURGE_SIGNAL] if cascade else [PURGE_SIGNAL]:
        await _start_object_run(
            client, reference, run, is_deleting=True, doing=f"start the cleanup after {reference}", signal=signal
        )


async def _start_object_run(
    client: Client,
    reference: ObjectReference,
    run: RunInput,
    *,
    is_deleting: bool,
    doing: str,
    signal: str | None = None,
    task_queue: str = TASK_QUEUE,
) -> None:
    """Start the run of one object; with a signal, an open run gets the signal and no second one starts."""
    await start_run(
        client,
        _WORKFLOWS[reference.kind, is_deleting],
        run,
        workflow_id=naming.workflow_id(reference),
        summary=_summary(reference, is_deleting=is_deleting),
        doing=doing,
        reference=reference,
        on_open=WorkflowIDConflictPolicy.USE_EXISTING if signal else WorkflowIDConflictPolicy.FAIL,
        signal=signal,
        task_queue=task_queue,
    )


def is_cleanup(name: str) -> bool:
    """Tell whether a workflow type of this name is a cleanup."""
    return name in {_WORKFLOWS[kind, True] for kind in Kind}


def object_priority(reference: ObjectReference) -> Priority:
    """Return the priority of an object's runs; at equal priority the server serves the namespaces in turn."""
    return Priority(priority_key=_PRIORITIES[reference.kind], fairness_key=reference.namespace)


def search_attributes(reference: ObjectReference) -> TypedSearchAttributes:
    """Return the search attributes by which Temporal's UI finds a run from its start on."""
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
    """Return Plattr's error for an error of Temporal; a lazy client that cannot connect raises RuntimeError."""
    cause = " ".join(str(error).split())
    if isinstance(error, RPCError) and error.status in _REFUSALS:
        return BackendRefused(f"cannot {doing}: Temporal refuses: {cause}")
    return BackendUnavailable(f"cannot {doing}: {cause}")
