"""A Secret that an application refers to changes, and nothing of the Application does."""

import asyncio
from datetime import timedelta

import pytest

from clients.resources import DEPLOYMENTS, PODS, SECRETS, Json
from plattr.fleet import REFERENCES_ID, REFERENCES_SCHEDULE_ID
from plattr.rollout import has_settled
from tests.e2e.view import SMALL, View, random_name


async def put(view: View, name: str, value: str) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"token": value}}
    await view.kube.apply(SECRETS, body, view.namespace)


async def pods(view: View, name: str) -> set[str]:
    bodies = await view.kube.list(PODS, view.namespace, label_selector=f"app.kubernetes.io/name={name}")
    return {body["metadata"]["uid"] for body in bodies if "deletionTimestamp" not in body["metadata"]}


async def look(view: View) -> None:
    """Have the Schedule begin its period now instead of within the minute, and wait until it is over."""
    handle = view.temporal.get_schedule_handle(REFERENCES_SCHEDULE_ID)
    before = (await handle.describe()).info.num_actions
    await handle.trigger()
    async with asyncio.timeout(30):
        while (described := await handle.describe()).info.num_actions == before or described.info.running_actions:
            await asyncio.sleep(0.1)


@pytest.mark.attack
async def test_a_changed_secret_rolls_the_pods_and_the_next_look_nothing(view: View) -> None:
    name = random_name()
    await put(view, f"{name}-mail", "leaked-1234")
    reference = {"name": f"{name}-mail", "key": "token"}
    await view.apply(name, SMALL | {"envVars": [{"name": "TOKEN", "secretKeyRef": reference}]})
    await view.wait_running(name)
    await view.settle(name)
    before = await pods(view, name)
    generation = (await view.application(name) or {})["metadata"]["generation"]
    schedule = await view.temporal.get_schedule_handle(REFERENCES_SCHEDULE_ID).describe()

    await put(view, f"{name}-mail", "rotated-5678")
    await look(view)

    async with asyncio.timeout(60):
        while (await pods(view, name)) & before or not await settled(view, name):
            await asyncio.sleep(0.1)
    await view.settle(name)
    run = (await view.run_of(name).describe()).run_id
    application, deployment = await view.application(name), await view.kube.get(DEPLOYMENTS, name, view.namespace)
    await look(view)
    assert (await view.application(name) or {})["metadata"]["generation"] == generation
    assert await view.application(name) == application
    assert await view.kube.get(DEPLOYMENTS, name, view.namespace) == deployment
    # Nobody was asked to reconcile.
    assert (await view.run_of(name).describe()).run_id == run
    assert [each.every for each in schedule.schedule.spec.intervals] == [timedelta(seconds=60)]
    assert REFERENCES_ID in str(schedule.schedule.action)


async def settled(view: View, name: str) -> bool:
    body: Json | None = await view.kube.get(DEPLOYMENTS, name, view.namespace)
    return body is not None and has_settled(body)
