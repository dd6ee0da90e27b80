import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from plattr.errors import BackendUnavailable, MissingSetting
from telemetry.health_server import HealthServer
from telemetry.logs import LogFormatter

Logged = tuple[logging.Logger, Callable[[], Any]]


@pytest.fixture
def logged() -> Iterator[Logged]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogFormatter())
    logger = logging.getLogger("tests.telemetry")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield logger, lambda: json.loads(stream.getvalue())
    logger.removeHandler(handler)


def log_failure(logger: logging.Logger, error: Exception) -> None:
    try:
        raise error
    except type(error):
        logger.exception("failed")


def test_a_record_is_one_object_of_its_message_and_its_fields(logged: Logged) -> None:
    logger, line = logged

    logger.info("database reconciled", extra={"schema": "prod_shop", "attempt": 2})

    assert line()["message"] == "database reconciled"
    assert next(iter(line())) == "time"
    assert (line()["schema"], line()["attempt"], line()["level"]) == ("prod_shop", 2, "info")


def test_a_foreign_exceptions_words_stay_out_and_ours_are_kept(logged: Logged) -> None:
    logger, line = logged

    log_failure(logger, ValueError("ALTER ROLE x PASSWORD 'canary'"))

    assert "canary" not in json.dumps(line())
    assert line()["error"] == "ValueError"
    assert "test_telemetry.py" in line()["trace"][-1]


def test_our_own_exceptions_words_are_kept(logged: Logged) -> None:
    logger, line = logged

    log_failure(logger, BackendUnavailable("cannot reach S3"))

    assert line()["cause"] == "cannot reach S3"


async def test_probes_answer_what_the_checks_say_at_that_moment() -> None:
    registry = CollectorRegistry()
    Counter("plattr_tested", "Tested", registry=registry).inc()
    reason = None
    server = HealthServer("127.0.0.1", 0, registry, live=lambda: None, ready=lambda: reason)
    await server.start()

    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as http:
        before = (await http.get("/readyz")).status
        reason = "temporal has not answered lately"
        after = await http.get("/readyz")
        text = await after.text()
        live = (await http.get("/healthz")).status
        metrics = await (await http.get("/metrics")).text()
    await server.stop()

    assert (before, after.status, live) == (200, 503, 200)
    assert text == "temporal has not answered lately\n"
    assert "plattr_tested_total 1.0" in metrics


async def test_a_port_in_use_is_a_setting_to_change() -> None:
    first = HealthServer("127.0.0.1", 0, CollectorRegistry(), live=lambda: None, ready=lambda: None)
    await first.start()
    second = HealthServer("127.0.0.1", first.port, CollectorRegistry(), live=lambda: None, ready=lambda: None)

    with pytest.raises(MissingSetting, match="METRICS_PORT"):
        await second.start()

    await first.stop()
