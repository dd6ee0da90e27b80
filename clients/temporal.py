"""The connection to Temporal, and the one way a run is begun or told that something changed."""

from collections.abc import Mapping
from datetime import timedelta

from temporalio.client import Client
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
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode

from plattr.errors import BackendRefused, BackendUnavailable, MissingSetting, PlattrError
from plattr.naming import workflow_id
from plattr.objects import Kind, ObjectReference
from plattr.steps import CHANGED_SIGNAL, TASK_QUEUE, RunInput
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


async def request_reconcile(
    client: Client,
    reference: ObjectReference,
    *,
    is_deleting: bool,
    signal: str = CHANGED_SIGNAL,
    task_queue: str = TASK_QUEUE,
) -> None:
    """Tell the object's run that something changed; begin the run if there is none (signal-with-start).

    Needs no worker to be up. A run that is open gets the signal whatever its type, and reads the object itself.

    Raises:
        BackendUnavailable: the server did not take it; request it again.
        BackendRefused: the server refuses, as for a search attribute that it does not know.
    """
    try:
        await client.start_workflow(
            _WORKFLOWS[reference.kind, is_deleting],
            RunInput(namespace=reference.namespace, name=reference.name, by_hand=False),
            id=workflow_id(reference),
            task_queue=task_queue,
            start_signal=signal,
            # A closed run never stands in the way, and an open one is only signalled.
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=search_attributes(reference),
            static_summary=summary(reference, is_deleting=is_deleting),
            priority=Priority(priority_key=_PRIORITIES[reference.kind], fairness_key=reference.namespace),
            rpc_timeout=RPC_TIMEOUT,
        )
    except (RPCError, RuntimeError) as error:
        raise translated(error, f"request a reconcile of {reference}") from None


def workflow_type(kind: Kind, *, is_deleting: bool) -> str:
    """Return the workflow that provisions an object of this kind, or cleans it up."""
    return _WORKFLOWS[kind, is_deleting]


def is_cleanup(name: str) -> bool:
    """Tell whether a workflow of this name takes an object down."""
    return name in {_WORKFLOWS[kind, True] for kind in Kind}


def search_attributes(reference: ObjectReference) -> TypedSearchAttributes:
    """Return what a run is found by in Temporal's UI from its start on."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(NAMESPACE_ATTRIBUTE, reference.namespace),
            SearchAttributePair(NAME_ATTRIBUTE, reference.name),
        ]
    )


def summary(reference: ObjectReference, *, is_deleting: bool) -> str:
    """Return the line that the UI shows beside a run."""
    verb = "remove" if is_deleting else "provision"
    return f"{verb} {reference.kind} {reference.namespace}/{reference.name}"


def translated(error: RPCError | RuntimeError, doing: str) -> PlattrError:
    """Return Plattr's error for one of Temporal's; the lazy client's connecting raises RuntimeError."""
    cause = " ".join(str(error).split())
    if isinstance(error, RPCError) and error.status in _REFUSALS:
        return BackendRefused(f"cannot {doing}: Temporal refuses: {cause}")
    return BackendUnavailable(f"cannot {doing}: {cause}")
