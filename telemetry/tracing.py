"""OpenTelemetry's traces: off, and without cost, until an endpoint is set.

Temporal's own interceptor creates the spans of reconcile requests, workflows and activities, and carries the trace
between processes. The clients add one span for each call to a backend. No span holds a statement, a body or a header.

This module uses TracingInterceptor, although the SDK calls it legacy. Its successor shows a workflow's spans only when
the run has ended, and a preview's run lasts for days (temporalio/contrib/opentelemetry/README.md).
"""

import asyncio
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from plattr.backends import Backend
from plattr.errors import MissingSetting, PlattrError, reason_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer
    from temporalio.client import Interceptor

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# 3 s: spans that a collector does not accept within this time are lost. The process does not wait longer for its end.
FLUSH_SECONDS = 3.0

Attributes = Mapping[str, str | int]

_NOTHING = nullcontext()
# Matches the words before the first name, quote or parenthesis: SELECT, ALTER ROLE, GRANT USAGE ON SCHEMA.
_KEYWORDS = re.compile(r"\s*([A-Z]+(?: [A-Z]+){0,3})\b")

_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None


def start_tracing(service: str, environment: Mapping[str, str]) -> None:
    """Send traces to the collector that OpenTelemetry's own variables name; without a collector, do nothing.

    The exporter and the sampler read the rest of OpenTelemetry's variables from the process's environment themselves.

    Raises:
        MissingSetting: the variables ask for another protocol than gRPC.
    """
    if not any(environment.get(name) for name in ENDPOINT_VARIABLES):
        return
    for name in PROTOCOL_VARIABLES:
        if environment.get(name, "grpc") not in ("", "grpc"):
            raise MissingSetting(f"cannot start: setting {name}: only grpc is supported; see docs/settings.md")
    # Imported here, not above: together these modules take 10 MB and half a second.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = environment.get("OTEL_SERVICE_NAME") or service
    # No shutdown at exit: it would wait for a collector that is away. stop_tracing shuts down with a time limit.
    provider = SdkProvider(resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    use(provider)


def use(provider: "TracerProvider | None") -> None:
    """Create spans with this provider from now on; None turns tracing off."""
    global _provider, _tracer
    _provider = provider
    _tracer = provider.get_tracer("plattr") if provider is not None else None


async def stop_tracing() -> None:
    """Send the remaining spans; stop after three seconds."""
    provider = _provider
    use(None)
    if provider is None:
        return
    # A daemon thread: the collector may be away, and the process does not wait for a daemon thread.
    thread = threading.Thread(target=provider.shutdown, daemon=True)
    thread.start()
    await asyncio.to_thread(thread.join, FLUSH_SECONDS)


def interceptors() -> "list[Interceptor]":
    """Return the interceptors by which a Temporal client creates and carries spans; a worker uses its client's."""
    if _tracer is None:
        return []
    from temporalio.contrib.opentelemetry import TracingInterceptor

    return [TracingInterceptor(_tracer)]


def span(backend: Backend, operation: str, attributes: Attributes | None = None) -> AbstractContextManager[None]:
    """Create the span `backend operation` around a block, as a child of the current span; none while tracing is off.

    Args:
        backend: the backend that is called.
        operation: a constant for the kind of call, never a name or a value.
        attributes: names of resources, never their content.
    """
    if _tracer is None:
        return _NOTHING
    return _span(_tracer, f"{backend} {operation}", {"peer.service": str(backend), **(attributes or {})})


@contextmanager
def _span(tracer: "Tracer", name: str, attributes: Attributes) -> Iterator[None]:
    from opentelemetry.trace import SpanKind, StatusCode

    with tracer.start_as_current_span(
        name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield
        except BaseException as error:
            # Only the error's class or reason: drivers quote statements and bodies in their texts.
            reason = reason_of(error) if isinstance(error, PlattrError) else type(error).__name__
            current.set_status(StatusCode.ERROR, reason)
            raise


def keywords_of(statement: str) -> str:
    """Return the SQL keywords with which a statement begins, without the names and values that follow."""
    found = _KEYWORDS.match(statement)
    return found.group(1) if found else ""
