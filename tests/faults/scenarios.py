"""What happens to an object while its worker dies: provision, updates, resync, cleanup, and the life of a preview."""

import asyncio
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from temporalio.client import Client
from temporalio.service import RPCError

from clients.claim_store import ClaimStore
from clients.resources import APPLICATIONS, DEPLOYMENTS, LEASES, PREVIEWS, SECRETS, Resource
from clients.temporal import request_reconcile
from plattr.adoption import Adoption, AdoptionInput
from plattr.fleet import FleetRun
from plattr.manifests.checksum import CHECKSUM_ANNOTATION
from plattr.naming import adoption_id, workflow_id
from plattr.objects import Kind, ObjectReference
from plattr.steps import CHANGED_SIGNAL, REPAIR_SIGNAL
from stack.services.cluster import NAMESPACE
from tests.e2e.view import View, is_settled
from tests.faults.lanes import Lane
from tests.faults.strangers import Stranger
from workflows.adoption import AdoptResources
from workflows.references import LookAtReferences
from workflows.resync import ResyncFleet

Scenario = Literal[
    "provision",
    "half made",
    "image changed",
    "domain changed",
    "bucket added",
    "storage disabled",
    "resync",
    "secret changed",
    "adopted",
    "cleanup",
    "stuck cleanup",
    "preview",
    "warning",
    "expiry",
]
UPDATES: tuple[Scenario, ...] = ("image changed", "domain changed", "bucket added", "storage disabled")
# `half made` is deleted as soon as its worker has died; `warning` is the whole life of a preview of one minute; of a
# `stuck cleanup` the obstacle is taken away once the object says what it waits for.
ENDS: tuple[Scenario, ...] = ("half made", "cleanup", "stuck cleanup", "warning", "expiry")

# Whose run is one of the whole fleet.
OF_THE_FLEET: tuple[Scenario, ...] = ("resync", "secret changed")

# A ttl of one minute is over as soon as the object is older than that.
OLD_ENOUGH_SECONDS = 61

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

    def workflow_of(self, scenario: Scenario) -> str:
        """Return the run whose activities the scenario is about: the object's own, or one about it."""
        if scenario == "adopted":
            return adoption_id(self.reference)
        return f"{scenario.split()[0]}-{self.name}" if scenario in OF_THE_FLEET else self.workflow


class Actor:
    """Does what a person and the watcher would do, and waits until the platform is done with it."""

    def __init__(self, view: View, temporal: Client) -> None:
        self.view = view
        self._temporal = temporal
        self._stranger = Stranger(view)
        self._checksums: dict[str, str] = {}
        self._numbers = iter(range(1, 100_000))

    def new_application(self, lane: Lane) -> Item:
        name = f"f{uuid.uuid4().hex[:7]}"
        return Item(lane, self.view.reference(name), dict(SPEC))

    def new_preview(self, lane: Lane, parent: Item) -> Item:
        number = next(self._numbers)
        spec = {"applicationRef": parent.name, "pullRequest": number, "branch": "b", "ttl": "72h"}
        return Item(lane, self.view.reference(f"{parent.name}-pr-{number}", Kind.PREVIEW), spec)

    async def act(self, scenario: Scenario, item: Item) -> None:
        """Change the object as the scenario says, and request a reconcile of its run."""
        match scenario:
            case "resync":
                await self._stranger.disturb(item.name)
                await self._temporal.start_workflow(
                    ResyncFleet.run, FleetRun(), id=item.workflow_of(scenario), task_queue=item.lane.task_queue
                )
                return
            case "secret changed":
                self._checksums[item.name] = await self._checksum(item)
                body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{item.name}-env"}}
                body |= {"stringData": {"TOKEN": uuid.uuid4().hex}}
                await self.view.kube.apply(SECRETS, body, self.view.namespace)
                await self._temporal.start_workflow(
                    LookAtReferences.run, id=item.workflow_of(scenario), task_queue=item.lane.task_queue
                )
                return
            case "adopted":
                await self._stranger.disown(item.reference)
                offer = await self._look(item)
                assert offer.found, f"nothing to take over for {item.name}"
                await self._temporal.start_workflow(
                    AdoptResources.run,
                    AdoptionInput(reference=item.reference, approved=offer.found),
                    id=item.workflow_of(scenario),
                    task_queue=item.lane.task_queue,
                )
                return
            case "stuck cleanup":
                await self._stranger.hold(item.name)
                await self._delete(item)
            case "cleanup":
                await self._delete(item)
            case _:
                item.spec = item.spec | _changes(scenario, item)
                await self.view.apply(item.name, item.spec, item.reference.kind)
        await self._request(item, is_deleting=scenario in ("cleanup", "stuck cleanup"))

    async def done(self, scenario: Scenario, item: Item, *, seconds: float = 180) -> None:
        """Return when the object is as the scenario wants it, and nothing is under way any more."""
        wrong = ""
        if scenario == "stuck cleanup":
            await self._stranger.is_told_of(item.name, seconds=seconds)
            await self._rest(item.workflow, seconds=seconds, may_wait=True)
            wrong = await self._stranger.wrongly_told(item.name)
            await self._stranger.let_go(item.name)
            await self._request(item, is_deleting=True)
        if scenario == "resync":
            await self._fleet_is_done(scenario, item, seconds=seconds)
            wrong = await self._stranger.disturbed(item.name)
        if scenario == "secret changed":
            await self._fleet_is_done(scenario, item, seconds=seconds)
            wrong = "not rolled" if self._checksums[item.name] == await self._checksum(item) else ""
        if scenario == "adopted":
            async with asyncio.timeout(seconds):
                await self._temporal.get_workflow_handle(item.workflow_of(scenario)).result()
            left = await self._look(item)
            wrong = "" if left == Adoption() else f"not taken over: {left}"
            await self._request(item, is_deleting=False, signal=REPAIR_SIGNAL)
            await self._rest(item.workflow, seconds=seconds, may_wait=False)
        resource = _resource(item)
        if scenario in ENDS:
            await self.view.wait_gone(item.name, seconds=seconds, resource=resource)
        else:
            await self.view.wait(item.name, is_settled, seconds=seconds, resource=resource)
        await self._rest(item.workflow, seconds=seconds, may_wait=item.is_preview)
        assert not wrong, wrong

    async def _delete(self, item: Item) -> None:
        await self.view.delete(item.name, _resource(item))

    async def _request(self, item: Item, *, is_deleting: bool, signal: str = CHANGED_SIGNAL) -> None:
        queue = item.lane.task_queue
        await request_reconcile(
            self._temporal, item.reference, is_deleting=is_deleting, signal=signal, task_queue=queue
        )

    async def _look(self, item: Item) -> Adoption:
        """Return what the object could take over; in a run of its own, which no fault is meant for."""
        return await self._temporal.execute_workflow(
            AdoptResources.run,
            AdoptionInput(reference=item.reference),
            id=f"look-{item.name}",
            task_queue=item.lane.task_queue,
        )

    async def _checksum(self, item: Item) -> str:
        deployment = await self.view.kube.get(DEPLOYMENTS, item.name, self.view.namespace)
        assert deployment is not None
        return str(deployment["spec"]["template"]["metadata"]["annotations"][CHECKSUM_ANNOTATION])

    async def _fleet_is_done(self, scenario: Scenario, item: Item, *, seconds: float) -> None:
        """Return when the run has asked to reconcile everybody, and every object of ours has been looked at."""
        async with asyncio.timeout(seconds):
            await self._temporal.get_workflow_handle(item.workflow_of(scenario)).result()
        for kind, resource in ((Kind.APPLICATION, APPLICATIONS), (Kind.PREVIEW, PREVIEWS)):
            for body in await self.view.kube.list(resource, self.view.namespace):
                workflow = workflow_id(self.view.reference(body["metadata"]["name"], kind))
                await self._rest(workflow, seconds=seconds, may_wait=kind is Kind.PREVIEW)

    async def _rest(self, workflow: str, *, seconds: float, may_wait: bool) -> None:
        """Return when a run has ended, or, if it may, waits and has nothing under way."""
        async with asyncio.timeout(seconds):
            while not await self._is_idle(workflow, may_wait=may_wait):
                await asyncio.sleep(0.1)

    async def _is_idle(self, workflow: str, *, may_wait: bool) -> bool:
        try:
            description = await self._temporal.get_workflow_handle(workflow).describe()
        except RPCError:
            return False
        if description.close_time is not None:
            return True
        # A preview's run stays open until its end, and a cleanup that is stuck until it gets on.
        raw = description.raw_description
        return may_wait and not raw.pending_activities and not raw.HasField("pending_workflow_task")

    async def forget(self, item: Item) -> None:
        """End the run of an object that is gone, and remove what it still claims: its lane is no more."""
        with suppress(RPCError):
            await self._temporal.get_workflow_handle(item.workflow).terminate()
        for held in await ClaimStore(self.view.kube, NAMESPACE).held_under(item.reference):
            await self.view.kube.delete(LEASES, held.claim.lease_name, NAMESPACE)

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


def _resource(item: Item) -> Resource:
    return PREVIEWS if item.is_preview else APPLICATIONS


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
