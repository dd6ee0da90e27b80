"""Data that outlives its object: whom it waits for, who cannot reach it, and who removes it."""

import asyncio
from typing import Any

from clients.resources import LEASES, NAMESPACES, PREVIEWS
from plattr.objects import Kind
from tests.e2e.leftovers import leftovers
from tests.e2e.view import EVERYTHING, SMALL, View, random_name

RETAIN = EVERYTHING | {"deletionPolicy": "Retain"}
STAGING = SMALL | {
    "database": {"enabled": True},
    "storage": {"enabled": True, "buckets": [{"name": "private"}]},
    "auth": {"enabled": True},
}


async def removed(view: View, name: str) -> None:
    await view.delete(name)
    await view.wait_gone(name)
    await view.settle(name)


async def rows(view: View, name: str) -> list[tuple[object, ...]]:
    """Ask as the application does."""
    secret = await view.secret(f"{name}-db")
    assert secret is not None
    return await view.query("select text from letters order by text", secret["DATABASE_URL"])


async def kept(view: View, name: str) -> None:
    """The data of the Application in production is there, and nobody gets to it."""
    stem = f"prod_{name.replace('-', '_')}"
    assert await view.query(f"select text from {stem}.letters") == [("precious",)]
    assert await view.query(f"select rolcanlogin from pg_roles where rolname = '{stem}_app'") == [(False,)]
    assert view.s3().get_object(Bucket=f"plattr-prod-{name}-private", Key="letter")["Body"].read() == b"precious"
    realm = view.realm(name)
    assert realm is not None
    assert not realm["enabled"]


async def test_retained_data_waits_for_the_same_object_and_for_nobody_else(view: View) -> None:
    name = random_name()
    await view.apply(name, RETAIN)
    await view.wait_running(name)
    secret = await view.secret(f"{name}-db")
    assert secret is not None
    await view.query("create table letters as select 'precious' as text", secret["DATABASE_URL"])
    view.s3().put_object(Bucket=f"plattr-prod-{name}-private", Key="letter", Body=b"precious")
    await removed(view, name)
    await kept(view, name)

    # The same name in another environment adopts nothing, so its end is not the data's.
    await view.apply(name, STAGING)
    await view.wait_running(name)
    await removed(view, name)
    await kept(view, name)
    assert await leftovers(view, name, prefix="staging") == {f"Lease {lease}" for lease in await leases(view, name)}

    await view.apply(name, RETAIN)
    await view.wait_running(name)
    assert await rows(view, name) == [("precious",)]
    assert view.s3().get_object(Bucket=f"plattr-prod-{name}-private", Key="letter")["Body"].read() == b"precious"
    realm = view.realm(name)
    assert realm is not None
    assert realm["enabled"]

    await removed(view, name)
    await kept(view, name)
    # A purge goes on as one although a backend is away in its first rounds.
    view.platform.stop_service("keycloak")
    try:
        view.command("plattr", "cleanup", name, "-n", view.namespace, "--orphan", "--yes")
        await waits(view, name)
    finally:
        view.platform.start_service("keycloak")
    await view.resync(name)

    assert await leftovers(view, name) == set()


async def leases(view: View, name: str) -> list[str]:
    """Return what the claim store holds for the data in production."""
    held = await view.kube.list(LEASES, "plattr-system")
    stem = f"prod-{name}"
    data = {f"{stem}-{kind}" for kind in ("schema", "roles", "redis", "search")}
    data |= {f"plattr-{stem}-private-bucket", f"plattr-{stem}-uploads-bucket", f"{name}-realm"}
    return [lease["metadata"]["name"] for lease in held if lease["metadata"]["name"] in data]


async def waits(view: View, name: str) -> None:
    """Until the run has used up its quick retries."""
    async with asyncio.timeout(120):
        while True:
            progress = await view.run_of(name).query("progress")
            if progress["nextRetry"] is not None:
                return
            await asyncio.sleep(0.2)


async def preview_removed_by_force(view: View, **parent: Any) -> tuple[str, str]:
    """Return the names of its Application and of itself; its run slept when it went."""
    application = random_name()
    name = f"{application}-pr-7"
    await view.apply(application, SMALL | parent)
    await view.wait_running(application)
    spec = {"applicationRef": application, "pullRequest": 7, "branch": "topic", "ttl": "72h"}
    await view.apply(name, spec, Kind.PREVIEW)
    await view.wait_running(name, resource=PREVIEWS)
    drop = [{"op": "remove", "path": "/metadata/finalizers"}]
    await view.kube.json_patch(PREVIEWS, name, drop, view.namespace)
    await view.delete(name, PREVIEWS)
    return application, name


async def test_a_preview_that_was_removed_by_force_can_be_cleaned_up(view: View) -> None:
    parent, name = await preview_removed_by_force(view, database={"enabled": True})

    done = view.command("plattr", "cleanup", f"preview/{name}", "-n", view.namespace, "--orphan", "--yes", "--wait")

    assert "nothing is left" in done.stdout
    assert await view.kube.get(NAMESPACES, f"preview-{parent}-pr-7") is None
    assert await view.schemas_and_roles(f"{parent.replace('-', '_')}_pr7") == set()
    assert (await view.run_of(name, Kind.PREVIEW).describe()).workflow_type == "CleanupPreview"


async def test_the_run_of_a_preview_that_was_removed_by_force_ends(view: View) -> None:
    parent, name = await preview_removed_by_force(view)

    result = await asyncio.wait_for(view.run_of(name, Kind.PREVIEW).result(), 30)

    assert "gone" in result["summary"]
    # Nobody has asked for more: what is left may be wanted.
    assert await view.kube.get(NAMESPACES, f"preview-{parent}-pr-7") is not None
    view.command("plattr", "cleanup", name, "-n", view.namespace, "--orphan", "--yes", "--wait")
