"""The channel on which an application's PostgREST listens: its own, and the same at each look."""

import pytest
from psycopg.sql import SQL, Identifier

from clients.kube import KubeClient
from clients.resources import SECRETS
from plattr.manifests.secret import build_database_secret
from tests.fix_postgres import Databases, Superuser, Tenants

pytestmark = pytest.mark.attack


async def test_notify_reaches_the_application_alone(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant, other = await tenants.apply(), await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await databases.reconcile_database(other.step)
    channel = (await tenants.secret(tenant))["DB_CHANNEL"]
    theirs = (await tenants.secret(other))["DB_CHANNEL"]

    async with await tenants.session(tenant) as mine, await tenants.session(other) as listening:
        await mine.execute(SQL("LISTEN {}").format(Identifier(channel)))
        await listening.execute(SQL("LISTEN {}; LISTEN pgrst").format(Identifier(theirs)))
        # Something to mend, so that Plattr has something to tell.
        await superuser.execute(SQL("ALTER ROLE {} RESET search_path").format(Identifier(tenant.names.app_role)))
        await databases.reconcile_database(tenant.step)
        told = [note async for note in mine.notifies(timeout=5, stop_after=1)]
        overheard = [note async for note in listening.notifies(timeout=0.2)]

    assert [(note.channel, note.payload) for note in told] == [(channel, "reload schema")]
    assert overheard == []
    assert (await tenants.secret(tenant))["DB_CHANNEL"] == channel


async def test_channel_that_is_no_name_of_ours_is_replaced(
    databases: Databases, database_kube: KubeClient, tenants: Tenants
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    secret = await tenants.secret(tenant)
    body = build_database_secret(tenant.target, secret | {"DB_CHANNEL": "x\", ''; DROP SCHEMA plattr_private; --"})
    await database_kube.apply(SECRETS, body, tenants.namespace)

    await databases.reconcile_database(tenant.step)

    found = await tenants.secret(tenant)
    assert found["DB_CHANNEL"].startswith("plattr_")
    assert found["DB_PASSWORD"] == secret["DB_PASSWORD"]
