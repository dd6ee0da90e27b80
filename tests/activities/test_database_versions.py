"""The major versions of PostgreSQL that the marked tests run on."""

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from plattr.settings import Settings
from tests.fix_postgres import Superuser


@pytest.mark.every_postgres
async def test_the_server_is_of_the_version_that_is_meant_and_its_admin_no_superuser(
    database_settings: Settings, superuser: Superuser, request: pytest.FixtureRequest
) -> None:
    assert database_settings.db_admin_url is not None
    rows: list[TupleRow] = []
    async with await AsyncConnection.connect(database_settings.db_admin_url.get_secret_value()) as admin:
        for connection in (superuser, admin):
            rows += await (
                await connection.execute(
                    "SELECT 'postgres-' || current_setting('server_version_num')::int / 10000, rolsuper, rolcreaterole"
                    " FROM pg_roles WHERE rolname = current_user"
                )
            ).fetchall()

    version = request.node.callspec.id
    assert rows == [(version, True, True), (version, False, True)]
