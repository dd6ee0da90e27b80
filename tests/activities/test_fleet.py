"""The fleet on a real API server, and its reconcile requests in a real Temporal."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from prometheus_client import REGISTRY
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError

from activities.fleet import FleetActivities
from clients.quarantine import QUARANTINE_ANNOTATION
from clients.resources import LEASES, Json
from plattr.claims import Claim
from plattr.errors import BackendUnavailable
from plattr.features import ClaimKind
from plattr.fleet import FleetBatch, FleetQuery, Member
from plattr.naming import workflow_id
from plattr.objects import PAUSED_ANNOTATION, CustomObject, ObjectReference, Owner
from plattr.steps import RunInput
from stack.platform import Platform
from tests.fix_kubernetes import Cluster, random_name
from tests.inputs import CLUSTER, estate

EVERYBODY = 10_000


@pytest.fixture(scope="session")
async def temporal(platform: Platform) -> Client:
    return await Client.connect(platform.endpoints.temporal_address, data_converter=pydantic_data_converter)


@pytest.fixture
async def fleet(cluster: Cluster, temporal: Client, namespace: str) -> AsyncIterator[FleetActivities]:
    """Its runs wait in a queue of their own, which no worker reads, and are terminated in the end."""
    yield FleetActivities(cluster.kube, cluster.claim_store, temporal, f"test-{uuid.uuid4()}")
    query = f'PlattrNamespace="{namespace}" and ExecutionStatus="Running"'
    async for run in temporal.list_workflows(query):
        await temporal.get_workflow_handle(run.id).terminate()


async def members(fleet: FleetActivities, namespace: str, **query: object) -> list[Member]:
    page = await fleet.list_fleet(FleetQuery.model_validate({"purpose": "resync", "limit": EVERYBODY, **query}))
    return [member for member in page.members if member.reference.namespace == namespace]


async def test_both_kinds_are_listed_in_the_order_of_their_keys(
    fleet: FleetActivities, cluster: Cluster, namespace: str
) -> None:
    applications = [await cluster.apply(namespace, f"a{number}") for number in range(3)]
    preview = await cluster.preview(namespace, "a1-pr", "a1")

    found = await members(fleet, namespace)

    assert [member.reference for member in found] == [each.reference for each in (*applications, preview)]


async def test_a_page_holds_what_comes_after_a_key_and_counts_the_rest(
    fleet: FleetActivities, cluster: Cluster, namespace: str
) -> None:
    for number in range(3):
        await cluster.apply(namespace, f"a{number}")
    after = f"{namespace}/Application/a0"

    async def keys() -> set[str]:
        everything = await fleet.list_fleet(FleetQuery(purpose="resync", limit=EVERYBODY))
        return {member.reference.key for member in everything.members if member.reference.key > after}

    before = await keys()
    page = await fleet.list_fleet(FleetQuery(purpose="resync", after=after, limit=1))
    later = await keys()

    assert [member.reference.name for member in page.members] == ["a1"]
    # What earlier tests left comes out of quarantine, and goes, at any moment.
    assert len(before & later) <= page.remaining <= len(before | later)


async def test_paused_objects_are_left_alone_until_they_are_deleted(
    fleet: FleetActivities, cluster: Cluster, namespace: str
) -> None:
    metadata = {"annotations": {PAUSED_ANNOTATION: "true"}, "finalizers": ["example.test/hold"]}
    paused = await cluster.apply(namespace, random_name(), metadata=metadata)

    before = await members(fleet, namespace)
    await cluster.delete(paused.reference)
    after = await members(fleet, namespace)

    assert before == []
    assert after == [Member(reference=paused.reference, is_deleting=True)]


async def test_a_restore_leaves_out_applications_that_have_settled(
    fleet: FleetActivities, cluster: Cluster, namespace: str
) -> None:
    settled = await cluster.settle(await cluster.apply(namespace, "settled"))
    waiting = await cluster.apply(namespace, "waiting")
    preview = await cluster.settle(await cluster.preview(namespace, "settled-pr", "settled"))

    restored = await members(fleet, namespace, purpose="restore")
    resynced = await members(fleet, namespace)

    assert {member.reference for member in restored} == {waiting.reference, preview.reference}
    assert {member.reference for member in resynced} == {each.reference for each in (settled, waiting, preview)}


@pytest.mark.parametrize("purpose", ["resync", "restore"])
async def test_of_the_gone_those_are_listed_whose_names_come_out_of_quarantine(
    fleet: FleetActivities, cluster: Cluster, namespace: str, purpose: str
) -> None:
    async def quarantine(owner: Owner, end: datetime) -> None:
        claim = Claim(kind=ClaimKind.REALM, name=random_name())
        await cluster.claim_store.acquire(owner, [claim])
        with pytest.raises(BackendUnavailable):
            async with cluster.claim_store.track_call(estate(owner.reference), claim):
                raise BackendUnavailable("no answer")
        await cluster.claim_store.release(estate(owner.reference), [claim])
        path = f"/metadata/annotations/{QUARANTINE_ANNOTATION.replace('/', '~1')}"
        moment: list[Json] = [{"op": "replace", "path": path, "value": end.isoformat()}]
        await cluster.admin.json_patch(LEASES, claim.lease_name, moment, cluster.settings.lease_namespace)

    now, minute = datetime.now(UTC), timedelta(minutes=1)
    living = await cluster.settle(await cluster.apply(namespace, "living"))
    over, ahead = (
        Owner(reference=ObjectReference(namespace=namespace, name=name), uid="u", cluster=CLUSTER)
        for name in ("over", "ahead")
    )
    await quarantine(living.owner, now - minute)
    await quarantine(over, now - minute)
    await quarantine(ahead, now + minute)

    found = await members(fleet, namespace, purpose=purpose)

    gone = [member for member in found if member.is_deleting]
    assert gone == [Member(reference=over.reference, is_deleting=True)]
    assert ahead.reference not in [member.reference for member in found]


@pytest.mark.parametrize(
    ("purpose", "signal"), [("resync", "repair"), ("restore", "changed")], ids=["resync", "restore"]
)
async def test_a_request_begins_the_run_that_the_object_needs(
    fleet: FleetActivities, cluster: Cluster, temporal: Client, namespace: str, purpose: str, signal: str
) -> None:
    application = await cluster.apply(namespace, random_name())
    preview = await cluster.preview(namespace, random_name(), application.metadata.name)
    going = ObjectReference(namespace=namespace, name=random_name())
    batch = {
        "purpose": purpose,
        "pause": 0.01,
        "members": [
            {"reference": application.reference},
            {"reference": preview.reference},
            {"reference": going, "is_deleting": True},
        ],
    }

    progress = await fleet.request_reconciles(FleetBatch.model_validate(batch))

    assert progress.requested == 3
    for reference, workflow in (
        (application.reference, "ProvisionApplication"),
        (preview.reference, "PreviewLifecycle"),
        (going, "CleanupApplication"),
    ):
        await assert_begun(temporal, reference, workflow, signal)


async def assert_begun(temporal: Client, reference: ObjectReference, workflow: str, signal: str) -> None:
    handle = temporal.get_workflow_handle(workflow_id(reference))
    description = await handle.describe()
    signals = [
        event.workflow_execution_signaled_event_attributes.signal_name
        async for event in handle.fetch_history_events()
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    history = await handle.fetch_history()
    started = history.events[0].workflow_execution_started_event_attributes
    (run,) = await temporal.data_converter.decode(started.input.payloads, [RunInput])
    assert description.workflow_type == workflow
    assert signals == [signal]
    assert run == RunInput(namespace=reference.namespace, name=reference.name, by_hand=False)


@pytest.fixture
async def bare(platform: Platform, temporal: Client) -> Client:
    """A namespace of Temporal that has none of the search attributes, as after the loss of its database."""
    name = f"bare-{uuid.uuid4()}"
    retention = Duration(seconds=86400)
    await temporal.workflow_service.register_namespace(
        RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=retention)
    )
    client = await Client.connect(
        platform.endpoints.temporal_address, namespace=name, data_converter=pydantic_data_converter
    )
    async with asyncio.timeout(60):
        while True:
            try:
                _ = [run async for run in client.list_workflows(limit=1)]
            except RPCError:
                await asyncio.sleep(0.5)
            else:
                return client


async def test_what_temporal_refuses_is_passed_over_said_and_counted(
    fleet: FleetActivities, cluster: Cluster, temporal: Client, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    application = await cluster.apply(namespace, random_name())
    # The server takes fairness keys of at most 64 bytes.
    broken = ObjectReference(namespace="n" * 65, name="shop")
    batch = {"purpose": "resync", "pause": 0, "members": [{"reference": broken}, {"reference": application.reference}]}

    progress = await fleet.request_reconciles(FleetBatch.model_validate(batch))

    assert (progress.requested, progress.refused) == (2, (Member(reference=broken),))
    await assert_begun(temporal, application.reference, "ProvisionApplication", "repair")
    assert [
        record.__dict__["object"] for record in caplog.records if record.message == "reconcile request refused"
    ] == [broken.key]
    counted = REGISTRY.get_sample_value(
        "plattr_backend_errors_total", {"backend": "temporal", "reason": "BackendRefused"}
    )
    assert counted


async def test_without_search_attributes_all_are_refused_and_none_ends_the_batch(
    cluster: Cluster, bare: Client
) -> None:
    refused = FleetActivities(cluster.kube, cluster.claim_store, bare, "nobody-polls-this")
    members = [{"reference": ObjectReference(namespace="team", name=name)} for name in ("one", "two")]

    progress = await refused.request_reconciles(
        FleetBatch.model_validate({"purpose": "restore", "pause": 0, "members": members})
    )

    assert progress.requested == len(progress.refused) == 2


async def test_a_run_that_is_open_hears_a_signal_and_no_second_one_begins(
    fleet: FleetActivities, cluster: Cluster, temporal: Client, namespace: str
) -> None:
    application: CustomObject = await cluster.apply(namespace, random_name())
    batch = FleetBatch.model_validate(
        {"purpose": "resync", "pause": 0, "members": [{"reference": application.reference}]}
    )

    handle = temporal.get_workflow_handle(workflow_id(application.reference))

    await fleet.request_reconciles(batch)
    first = await handle.describe()
    await fleet.request_reconciles(batch)

    kinds = [event.event_type async for event in handle.fetch_history_events()]
    assert (await handle.describe()).run_id == first.run_id
    assert len([kind for kind in kinds if kind == kinds[1]]) == 2
