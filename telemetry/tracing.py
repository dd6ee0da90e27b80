"""OpenTelemetry's traces: off, and free, until an endpoint is set.

Temporal's own interceptor makes the spans of reconcile requests, workflows and activities, and carries the trace
between processes; the clients add one span for each call to a backend. No span holds a statement, a body or a header.

TracingInterceptor, although the SDK calls it legacy: its successor shows a workflow's spans only when the run has
ended, and a preview's run lasts for days (temporalio/contrib/opentelemetry/README.md).
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
# 3 s: spans that a collector does not take in this time are lost; the end of the process is not held up for them.
FLUSH_SECONDS = 3.0

Attributes = Mapping[str, str | int]

_NOTHING = nullcontext()
# SELECT, ALTER ROLE, GRANT USAGE ON SCHEMA: the words before the first name, quote or parenthesis.
_KEYWORDS = re.compile(r"\s*([A-Z]+(?: [A-Z]+){0,3})\b")

_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None


def start_tracing(service: str, environment: Mapping[str, str]) -> None:
    """Send traces to the collector that OpenTelemetry's own variables name; nothing when they name none.

    The exporter and the sampler read the rest of those variables from the process's environment themselves.

    Raises:
        MissingSetting: the collector is to be spoken to in another protocol than gRPC.
    """
    if not any(environment.get(name) for name in ENDPOINT_VARIABLES):
        return
    for name in PROTOCOL_VARIABLES:
        if environment.get(name, "grpc") not in ("", "grpc"):
            raise MissingSetting(f"cannot start: setting {name}: only grpc is supported; see docs/settings.md")
    # Here and not above: together they take 10 MB and half a second.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = environment.get("OTEL_SERVICE_NAME") or service
    # Not at exit: that would wait for a collector that is away; stop_tracing does it with a limit.
    provider = SdkProvider(resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    use(provider)


def use(provider: "TracerProvider | None") -> None:
    """Make spans with this provider from now on; None turns tracing off."""
    global _provider, _tracer
    _provider = provider
    _tracer = provider.get_tracer("plattr") if provider is not None else None


async def stop_tracing() -> None:
    """Send what is left; give up after three seconds."""
    provider = _provider
    use(None)
    if provider is None:
        return
    # A daemon's thread: the collector may be away, and nobody waits for a daemon.
    thread = threading.Thread(target=provider.shutdown, daemon=True)
    thread.start()
    await asyncio.to_thread(thread.join, FLUSH_SECONDS)


def interceptors() -> "list[Interceptor]":
    """Return what a client of Temporal needs to make and carry spans; a worker takes it over from its client."""
    if _tracer is None:
        return []
    from temporalio.contrib.opentelemetry import TracingInterceptor

    return [TracingInterceptor(_tracer)]


def span(backend: Backend, operation: str, attributes: Attributes | None = None) -> AbstractContextManager[None]:
    """Make the span `backend operation` around a block, the child of the span it is in; nothing while off.

    Args:
        backend: what is called.
        operation: a constant: the kind of call, never a name or a value.
        attributes: names of things, never what is in them.
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
            # Only its class: drivers quote statements and bodies in their texts.
            reason = reason_of(error) if isinstance(error, PlattrError) else type(error).__name__
            current.set_status(StatusCode.ERROR, reason)
            raise


def keywords_of(statement: str) -> str:
    """Return the SQL keywords with which a statement begins, and nothing of what follows."""
    found = _KEYWORDS.match(statement)
    return found.group(1) if found else ""
