import pytest
from temporalio.service import RPCError

from activities.clients import temporal
from plattr.claims import Claim, Holding
from plattr.naming import workflow_id
from plattr.objects import PAUSED_ANNOTATION, Kind, ObjectReference, Owner
from tests.fix_kubernetes import random_name


@pytest.fixture
async def client(temporal_server):
    return await temporal.connect_temporal(environment=temporal_server.environment)


@pytest.fixture
async def application(cluster, namespace):
    return await cluster.apply(namespace, random_name())


async def run_of(client, reference):
    return await client.get_workflow_handle(workflow_id(reference)).describe()


async def test_pause_and_resume_set_and_take_the_annotation(plattr, cluster, application):
    reference = application.reference
    place = (reference.name, "-n", reference.namespace)

    paused = await plattr("pause", *place)
    again = await plattr("pause", *place)
    assert (await cluster.read(reference)).is_paused
    shown = await plattr("status", *place)
    resumed = await plattr("resume", *place)

    assert [outcome.exit_code for outcome in (paused, again, shown, resumed)] == [0, 0, 0, 0]
    assert "already" in again.stdout
    assert "paused" in shown.stdout
    assert PAUSED_ANNOTATION not in (await cluster.read(reference)).metadata.annotations


async def test_pausing_keeps_the_annotations_of_others(plattr, cluster, namespace):
    application = await cluster.apply(namespace, random_name(), metadata={"annotations": {"team": "a"}})

    await plattr("pause", application.metadata.name, "-n", namespace)

    annotations = (await cluster.read(application.reference)).metadata.annotations
    assert annotations == {"team": "a", PAUSED_ANNOTATION: "true"}


async def test_resync_begins_a_run(plattr, client, application):
    reference = application.reference

    outcome = await plattr("resync", reference.name, "-n", reference.namespace)

    assert outcome.exit_code == 0, outcome
    assert (await run_of(client, reference)).workflow_type == "ProvisionApplication"


async def test_resync_of_all_takes_every_object_of_the_namespace(plattr, client, cluster, namespace):
    applications = [await cluster.apply(namespace, random_name()) for _ in range(3)]
    preview = await cluster.preview(namespace, random_name(), applications[0].metadata.name)

    outcome = await plattr("resync", "--all", "-n", namespace)

    assert outcome.stdout.count("resyncs") == 4
    assert (await run_of(client, preview.reference)).workflow_type == "PreviewLifecycle"


async def test_cleanup_asks_first(plattr, client, application):
    reference = application.reference

    outcome = await plattr("cleanup", reference.name, "-n", reference.namespace, answer="n\n")

    assert outcome.exit_code == 1
    assert f"Remove Application {reference.namespace}/{reference.name}" in outcome.stdout
    with pytest.raises(RPCError):
        await run_of(client, reference)


async def test_cleanup_by_hand_starts_the_workflow(plattr, client, cluster, application):
    reference = application.reference

    outcome = await plattr("cleanup", reference.name, "-n", reference.namespace, "--yes")

    assert outcome.exit_code == 0, outcome
    assert (await run_of(client, reference)).workflow_type == "CleanupApplication"
    # The workflow deletes the object itself, with everything it owns.
    assert not (await cluster.read(reference)).is_deleting


async def test_cleanup_beside_an_open_run_deletes_the_object_instead(plattr, client, cluster, namespace):
    application = await cluster.apply(namespace, random_name(), metadata={"finalizers": ["example.com/hold"]})
    reference = application.reference
    await plattr("resync", reference.name, "-n", namespace)

    outcome = await plattr("cleanup", reference.name, "-n", namespace, "--yes")

    assert outcome.exit_code == 0, outcome
    assert (await cluster.read(reference)).is_deleting
    assert (await run_of(client, reference)).workflow_type == "ProvisionApplication"


async def test_an_object_that_is_gone_needs_orphan(plattr, client, namespace):
    name = random_name()
    reference = ObjectReference(kind=Kind.APPLICATION, namespace=namespace, name=name)

    refused = await plattr("cleanup", name, "-n", namespace, "--yes")
    started = await plattr("cleanup", name, "-n", namespace, "--yes", "--orphan")
    again = await plattr("cleanup", name, "-n", namespace, "--yes", "--orphan")

    assert refused.exit_code == 1
    assert "--orphan" in refused.stderr
    assert started.exit_code == 0
    assert (await run_of(client, reference)).workflow_type == "CleanupApplication"
    assert "open already" in again.stdout


async def test_orphan_refuses_a_living_object(plattr, application):
    reference = application.reference

    outcome = await plattr("cleanup", reference.name, "-n", reference.namespace, "--yes", "--orphan")

    assert outcome.exit_code == 1
    assert "still exists" in outcome.stderr


async def test_orphan_finds_the_kind_by_what_is_left(plattr, client, cluster, namespace):
    reference = ObjectReference(kind=Kind.PREVIEW, namespace=namespace, name=random_name())
    owner = Owner(reference=reference, uid="gone")
    bucket = Claim(holding=Holding.BUCKET, name=f"plattr-preview-{reference.name}")
    await cluster.ledger.acquire(owner, [bucket])

    outcome = await plattr("cleanup", reference.name, "-n", namespace, "--orphan", answer="y\n")

    assert f"bucket {bucket.name}" in outcome.stdout
    assert (await run_of(client, reference)).workflow_type == "CleanupPreview"
