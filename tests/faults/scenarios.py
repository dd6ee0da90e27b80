"""What happens to an object while its worker dies: provision, updates, cleanup, and the same for a preview."""

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from temporalio.client import Client
from temporalio.service import RPCError

from activities.clients.resources import APPLICATIONS, PREVIEWS
from activities.clients.temporal import poke
from plattr.naming import workflow_id
from plattr.objects import Kind, ObjectReference
from tests.e2e.view import View, is_settled
from tests.faults.lanes import Lane

Scenario = Literal[
    "provision",
    "half made",
    "image changed",
    "domain changed",
    "bucket added",
    "storage disabled",
    "cleanup",
    "preview",
    "warning",
    "expiry",
]
UPDATES: tuple[Scenario, ...] = ("image changed", "domain changed", "bucket added", "storage disabled")
# `half made` is deleted as soon as its worker has died; `warning` is the whole life of a preview of one minute.
ENDS: tuple[Scenario, ...] = ("half made", "cleanup", "warning", "expiry")

SPEC: dict[str, Any] = {
    "repository": "https://git.example/my-app",
    "framework": "docker",
    "environment": "production",
    "imageRef": "registry.example/app:1",
    "database": {"enabled": True},
    "storage": {"enabled": True, "buckets": [{"name": "open", "public": True}, {"name": "files"}]},
    "auth": {"enabled": True, "providers": ["google"]},
    "redis": {"enabled": True},
    "search": {"enabled": True},
    "scaling": {"min": 1, "max": 2},
}

# What an application has written before its updates, and must find after them.
_MAKE_DATA = "create table if not exists kept (what text); insert into kept values ('precious')"
_KEY, _CONTENT = "kept.txt", b"precious"


@dataclass
class Item:
    """One object and the lane that works on it: a preview's run stays open, on its lane's task queue."""

    lane: Lane
    reference: ObjectReference
    spec: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.reference.name

    @property
    def workflow(self) -> str:
        return workflow_id(self.reference)

    @property
    def is_preview(self) -> bool:
        return self.reference.kind is Kind.PREVIEW


class Actor:
    """Does what a person and the watcher would do, and waits until the platform is done with it."""

    def __init__(self, view: View, temporal: Client) -> None:
        self.view = view
        self._temporal = temporal
        self._numbers = iter(range(1, 100_000))

    def new_application(self, lane: Lane) -> Item:
        name = f"f{uuid.uuid4().hex[:7]}"
        return Item(lane, self.view.reference(name), dict(SPEC))

    def new_preview(self, lane: Lane, parent: Item) -> Item:
        number = next(self._numbers)
        spec = {"applicationRef": parent.name, "pullRequest": number, "branch": "b", "ttl": "72h"}
        return Item(lane, self.view.reference(f"{parent.name}-pr-{number}", Kind.PREVIEW), spec)

    async def act(self, scenario: Scenario, item: Item) -> None:
        """Change the object as the scenario says, and poke its run."""
        is_deleting = scenario == "cleanup"
        if is_deleting:
            await self.view.delete(item.name, PREVIEWS if item.is_preview else APPLICATIONS)
        else:
            item.spec = item.spec | _changes(scenario, item)
            await self.view.apply(item.name, item.spec, item.reference.kind)
        await poke(self._temporal, item.reference, is_deleting=is_deleting, task_queue=item.lane.task_queue)

    async def done(self, scenario: Scenario, item: Item, *, seconds: float = 180) -> None:
        """Return when the object is as the scenario wants it, and nothing is under way any more."""
        resource = PREVIEWS if item.is_preview else APPLICATIONS
        if scenario in ENDS:
            await self.view.wait_gone(item.name, seconds=seconds, resource=resource)
        else:
            await self.view.wait(item.name, is_settled, seconds=seconds, resource=resource)
        async with asyncio.timeout(seconds):
            while not await self._is_idle(item):
                await asyncio.sleep(0.1)

    async def _is_idle(self, item: Item) -> bool:
        try:
            description = await self._temporal.get_workflow_handle(item.workflow).describe()
        except RPCError:
            return False
        if description.close_time is not None:
            return True
        # A preview's run stays open until its end.
        raw = description.raw_description
        return item.is_preview and not raw.pending_activities and not raw.HasField("pending_workflow_task")

    async def password(self, item: Item) -> str | None:
        namespace, stem = self.view.namespace, item.name
        if item.is_preview:
            number = item.spec["pullRequest"]
            stem = f"{item.spec['applicationRef']}-pr{number}"
            namespace = f"preview-{item.spec['applicationRef']}-pr-{number}"
        secret = await self.view.secret(f"{stem}-db", namespace)
        return secret["DB_PASSWORD"] if secret else None

    async def write_data(self, item: Item) -> None:
        """Use the application's database and bucket as it would."""
        secret = await self.view.secret(f"{item.name}-db")
        assert secret is not None
        await self.view.query(_MAKE_DATA, secret["DATABASE_URL"])
        await asyncio.to_thread(
            self.view.s3().put_object, Bucket=f"plattr-prod-{item.name}-files", Key=_KEY, Body=_CONTENT
        )
        await asyncio.to_thread(
            self.view.s3().create_multipart_upload, Bucket=f"plattr-prod-{item.name}-files", Key="half"
        )

    async def lost_data(self, item: Item) -> str:
        """Return what an application misses of what it has written; empty: nothing."""
        secret = await self.view.secret(f"{item.name}-db")
        assert secret is not None
        rows = await self.view.query("select what from kept", secret["DATABASE_URL"])
        body = await asyncio.to_thread(
            lambda: self.view.s3().get_object(Bucket=f"plattr-prod-{item.name}-files", Key=_KEY)["Body"].read()
        )
        lost = [] if rows == [("precious",)] else [f"rows {rows}"]
        lost += [] if body == _CONTENT else [f"object {body!r}"]
        return ", ".join(lost)


def _changes(scenario: Scenario, item: Item) -> dict[str, Any]:
    version = uuid.uuid4().hex[:6]
    match scenario:
        case "image changed":
            return {"imageRef": f"registry.example/app:{version}"}
        case "domain changed":
            return {"domain": f"{version}.{item.name}.example.com"}
        case "bucket added":
            storage = item.spec["storage"]
            return {"storage": {**storage, "buckets": [*storage["buckets"], {"name": f"b{version}"}]}}
        case "storage disabled":
            return {"storage": {"enabled": False}}
        case "warning":
            return {"ttl": "1m"}
        case "expiry":
            # The object is older than a minute: its time is over at once.
            return {"ttl": "1m"}
        case _:
            return {}
