"""What a worker says at its start of databases that are open to everybody."""

import logging

import pytest

from clients.postgres import PostgresClient
from worker.open_databases import name_open_databases


@pytest.mark.attack
async def test_a_database_that_is_open_to_everybody_is_named_at_the_start(
    postgres: PostgresClient, open_postgres: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="worker"):
        await name_open_databases(postgres)

    assert [record.database for record in caplog.records] == ["postgres"]  # type: ignore[attr-defined]  # an extra


@pytest.mark.attack
async def test_the_local_platform_closes_them(postgres: PostgresClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="worker"):
        await name_open_databases(postgres)

    assert caplog.records == []
