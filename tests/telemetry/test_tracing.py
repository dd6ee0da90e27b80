"""Spans of calls to backends: constant names, keywords instead of statements, classes instead of words."""

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from plattr import sql, sql_removal
from plattr.backends import Backend
from plattr.errors import BackendRefused
from plattr.naming import RoleName
from telemetry import tracing

CANARY = "c4n4ry"


@pytest.mark.parametrize(
    ("error", "status"),
    [(BackendRefused(f"cannot log in with {CANARY}"), "BackendRefused"), (ValueError(f"at {CANARY}"), "ValueError")],
    ids=["ours", "a-drivers"],
)
def test_a_failed_call_keeps_only_the_class_of_its_error(
    spans: InMemorySpanExporter, error: Exception, status: str
) -> None:
    with pytest.raises(type(error)), tracing.span(Backend.KEYCLOAK, "request", {"url.path": "admin/realms"}):
        raise error

    (span,) = spans.get_finished_spans()
    assert (span.name, span.status.description) == ("keycloak request", status)
    assert CANARY not in span.to_json()


@pytest.mark.parametrize(
    ("statement", "keywords"),
    [
        (sql.STATE, "SELECT"),
        (next(iter(sql.set_password(RoleName("shop_app"), CANARY))).as_string(), "ALTER ROLE"),
        (next(iter(sql_removal.drop_owned(["shop_app"], cascade=False))).as_string(), "DROP OWNED BY"),
        (f"'{CANARY}'", ""),
    ],
    ids=["query", "password", "drop", "no-keyword"],
)
def test_of_a_statement_only_its_first_keywords_are_told(statement: str, keywords: str) -> None:
    assert tracing.keywords_of(statement) == keywords


def test_without_an_endpoint_nothing_of_opentelemetry_is_loaded() -> None:
    program = (
        "import os, sys; import worker.__main__, watcher.__main__; from telemetry import tracing;"
        "tracing.start_tracing('x', os.environ);"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )

    printed = subprocess.run([sys.executable, "-c", program], env={}, capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "[]"


async def test_a_collector_that_is_away_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.2)
    tracing.start_tracing("plattr-tested", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    with tracing.span(Backend.S3, "call"):
        pass

    await tracing.stop_tracing()

    assert tracing.interceptors() == []
