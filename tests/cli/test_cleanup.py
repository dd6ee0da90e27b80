import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from clients import temporal
from plattr.claims import Claim
from plattr.errors import BackendUnavailable
from plattr.features import ClaimKind
from plattr.naming import workflow_id
from plattr.objects import CustomObject, Kind, ObjectReference, Owner
from plattr.steps import (
    CASCADE_SIGNAL,
    CHANGED_SIGNAL,
    PURGE_SIGNAL,
    TASK_QUEUE,
    ClaimInput,
    RunInput,
)
from stack.platform import Platform
from tests.cli.conftest import Plattr, run_of, run_plattr
from tests.fix_kubernetes import Cluster, application_spec, random_name
from tests.fix_temporal import TemporalServer
from tests.inputs import CLUSTER, estate
from tests.workflows.fakes import FakePlatform, eventually
from worker.registry import WORKFLOWS


@pytest.fixture
def orphan(namespace: str) -> ObjectReference:
    """An Application that is gone, or never was."""
    return ObjectReference(namespace=namespace, name=random_name())


@pytest.fixture
async def left(cluster: Cluster, orphan: ObjectReference) -> Claim:
    """What the Application has left, as the claim store has it."""
    bucket = Claim(kind=ClaimKind.BUCKET, name=f"plattr-prod-{orphan.name}")
    await cluster.claim_store.acquire(Owner(reference=orphan, uid="gone", cluster=CLUSTER), [bucket], is_retained=True)
    return bucket


async def start_of(client: Client, reference: ObjectReference) -> Any:
    """How the first run of the object was started."""
    history = client.get_workflow_handle(workflow_id(reference)).fetch_history_events()
    event = await anext(aiter(history))
    return event.workflow_execution_started_event_attributes


async def input_of(client: Client, reference: ObjectReference) -> RunInput:
    """What the first run of the object was started with."""
    run: RunInput
    [run] = await client.data_converter.decode((await start_of(client, reference)).input.payloads, [RunInput])
    return run


async def test_cleanup_asks_first(plattr: Plattr, client: Client, application: CustomObject) -> None:
    reference = application.reference

    outcome = await plattr("cleanup", reference.name, "-n", reference.namespace, answer="n\n")

    assert outcome.exit_code == 1
    assert f"Remove Application {reference.namespace}/{reference.name}" in outcome.stdout
    with pytest.raises(RPCError):
        await run_of(client, reference)


async def test_cleanup_by_hand_starts_the_workflow(
    plattr: Plattr, client: Client, cluster: Cluster, application: CustomObject
) -> None:
    reference = application.reference

    outcome = await plattr("cleanup", reference.name, "-n", reference.namespace, "--yes")

    assert outcome.exit_code == 0, outcome
    assert (await run_of(client, reference)).workflow_type == "CleanupApplication"
    assert (await input_of(client, reference)).uid == application.metadata.uid
    # The workflow deletes the object itself, with everything it owns.
    assert not (await cluster.read(reference)).is_deleting


@pytest.mark.parametrize(("kind", "key"), [(Kind.APPLICATION, 3), (Kind.PREVIEW, 4)], ids=["application", "preview"])
async def test_cleanup_by_hand_has_the_priority_and_fairness_key_of_its_object(
    client: Client, plattr: Plattr, namespace: str, kind: Kind, key: str
) -> None:
    orphan = ObjectReference(kind=kind, namespace=namespace, name=random_name())
    prefix = "app" if kind is Kind.APPLICATION else "preview"

    outcome = await plattr("cleanup", f"{prefix}/{orphan.name}", "-n", namespace, "--yes", "--orphan")

    priority = (await start_of(client, orphan)).priority
    assert outcome.exit_code == 0, outcome
    assert (priority.priority_key, priority.fairness_key) == (key, namespace)


async def test_cascade_is_said_to_the_cleanup_that_starts(
    plattr: Plattr, client: Client, cluster: Cluster, application: CustomObject
) -> None:
    reference = application.reference

    outcome = await plattr("cleanup", reference.name, "-n", reference.namespace, "--cascade", "--yes")

    assert outcome.exit_code == 0, outcome
    assert (await input_of(client, reference)).cascade


async def test_cascade_reaches_a_run_that_is_open(
    plattr: Plattr, client: Client, cluster: Cluster, namespace: str
) -> None:
    application = await cluster.apply(namespace, random_name(), metadata={"finalizers": ["example.com/hold"]})
    reference = application.reference
    await plattr("resync", reference.name, "-n", namespace)

    outcome = await plattr("cleanup", reference.name, "-n", namespace, "--cascade", "--yes")

    history = await client.get_workflow_handle(workflow_id(reference)).fetch_history()
    signals = [
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in history.events
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert outcome.exit_code == 0, outcome
    assert signals[-1] == CASCADE_SIGNAL


async def test_cleanup_beside_an_open_run_deletes_the_object_instead(
    plattr: Plattr, client: Client, cluster: Cluster, namespace: str
) -> None:
    application = await cluster.apply(namespace, random_name(), metadata={"finalizers": ["example.com/hold"]})
    reference = application.reference
    await plattr("resync", reference.name, "-n", namespace)

    outcome = await plattr("cleanup", reference.name, "-n", namespace, "--yes")

    assert outcome.exit_code == 0, outcome
    assert (await cluster.read(reference)).is_deleting
    assert (await run_of(client, reference)).workflow_type == "ProvisionApplication"


async def test_the_question_tells_what_goes_and_what_is_retained(
    plattr: Plattr, cluster: Cluster, namespace: str
) -> None:
    spec = application_spec(database={"enabled": True}, deletionPolicy="Retain")
    application = await cluster.apply(namespace, random_name(), spec)
    await cluster.claims.claim_object(ClaimInput(reference=application.reference))

    outcome = await plattr("cleanup", application.metadata.name, "-n", namespace, answer="n\n")

    going, _, staying = outcome.stdout.partition("what is retained stays")
    assert "host " in going
    assert f"schema prod_{application.metadata.name}" in staying
    assert "schema" not in going


async def test_an_object_that_is_gone_needs_orphan(plattr: Plattr, client: Client, orphan: ObjectReference) -> None:
    refused = await plattr("cleanup", f"app/{orphan.name}", "-n", orphan.namespace, "--yes")
    started = await plattr("cleanup", f"app/{orphan.name}", "-n", orphan.namespace, "--yes", "--orphan")
    again = await plattr("cleanup", f"app/{orphan.name}", "-n", orphan.namespace, "--yes", "--orphan")

    assert refused.exit_code == 1
    assert "--orphan" in refused.stderr
    assert started.exit_code == 0
    assert (await run_of(client, orphan)).workflow_type == "CleanupApplication"
    assert (again.exit_code, "is open; it removes what is left" in again.stdout) == (0, True)


async def test_orphan_purges_and_deletes_no_object_that_has_the_name_again(
    plattr: Plattr, client: Client, orphan: ObjectReference, left: Claim
) -> None:
    outcome = await plattr("cleanup", orphan.name, "-n", orphan.namespace, "--orphan", answer="y\n")

    assert f"left, retained data as well: bucket {left.name}?" in outcome.stdout
    run = await input_of(client, orphan)
    assert (run.by_hand, run.purge, run.uid) == (True, True, "")


@pytest.mark.parametrize("name", ["{}", "app/{}"])
async def test_orphan_refuses_a_living_object(plattr: Plattr, application: CustomObject, name: str) -> None:
    reference = application.reference

    outcome = await plattr("cleanup", name.format(reference.name), "-n", reference.namespace, "--yes", "--orphan")

    assert outcome.exit_code == 1
    assert "still exists" in outcome.stderr


@pytest.mark.parametrize("name", ["{}", "preview/{}"])
async def test_orphan_cleans_up_after_the_one_kind_while_the_other_lives(
    plattr: Plattr, client: Client, cluster: Cluster, application: CustomObject, name: str
) -> None:
    reference = application.reference.model_copy(update={"kind": Kind.PREVIEW})
    bucket = Claim(kind=ClaimKind.BUCKET, name=f"plattr-preview-{reference.name}")
    await cluster.claim_store.acquire(Owner(reference=reference, uid="gone", cluster=CLUSTER), [bucket])

    outcome = await plattr("cleanup", name.format(reference.name), "-n", reference.namespace, "--yes", "--orphan")

    assert outcome.exit_code == 0, outcome
    assert (await run_of(client, reference)).workflow_type == "CleanupPreview"


async def test_orphan_finds_the_kind_by_what_is_left(
    plattr: Plattr, client: Client, cluster: Cluster, namespace: str
) -> None:
    reference = ObjectReference(kind=Kind.PREVIEW, namespace=namespace, name=random_name())
    owner = Owner(reference=reference, uid="gone", cluster=CLUSTER)
    bucket = Claim(kind=ClaimKind.BUCKET, name=f"plattr-preview-{reference.name}")
    await cluster.claim_store.acquire(owner, [bucket])

    outcome = await plattr("cleanup", reference.name, "-n", namespace, "--orphan", answer="y\n")

    assert f"bucket {bucket.name}" in outcome.stdout
    assert (await run_of(client, reference)).workflow_type == "CleanupPreview"


async def test_a_name_that_nobody_ever_had_is_not_taken_for_an_application(
    plattr: Plattr, client: Client, orphan: ObjectReference
) -> None:
    outcome = await plattr("cleanup", orphan.name, "-n", orphan.namespace, "--yes", "--orphan")

    assert outcome.exit_code == 1
    assert f"write app/{orphan.name} or preview/{orphan.name}" in outcome.stderr
    with pytest.raises(RPCError):
        await run_of(client, orphan)


def account_that_reads_objects_only(platform: Platform, namespace: str, folder: Path) -> str:
    """Return the kubeconfig of an account that may read the objects of its namespace, and no Lease."""
    admin = str(platform.endpoints.kubeconfig_admin)

    def kubectl(*words: Any) -> str:
        command = [str(platform.endpoints.bin_dir / "kubectl"), "--kubeconfig", admin, "-n", namespace, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    kubectl("create", "serviceaccount", "reader")
    resources = "applications.platform.internal,previewenvironments.platform.internal"
    kubectl("create", "role", "reader", "--verb=get,list", f"--resource={resources}")
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:reader")
    config = yaml.safe_load(Path(admin).read_text())
    config["users"][0]["user"] = {"token": kubectl("create", "token", "reader")}
    path = folder / "reader"
    path.write_text(yaml.safe_dump(config))
    return str(path)


async def test_who_may_not_read_the_claims_has_to_name_the_kind(
    platform: Platform,
    temporal_server: TemporalServer,
    client: Client,
    orphan: ObjectReference,
    left: Claim,
    tmp_path: Path,
) -> None:
    kubeconfig = account_that_reads_objects_only(platform, orphan.namespace, tmp_path)
    environment = {"KUBECONFIG": kubeconfig, **temporal_server.environment}
    words = ("-n", orphan.namespace, "--yes", "--orphan")

    refused = await asyncio.to_thread(run_plattr, "cleanup", orphan.name, *words, environment=environment)
    named = await asyncio.to_thread(run_plattr, "cleanup", f"app/{orphan.name}", *words, environment=environment)

    assert refused.exit_code == 1
    assert "Leases" in refused.stderr
    assert named.exit_code == 0, named


async def test_a_run_that_sleeps_becomes_the_cleanup(
    plattr: Plattr, client: Client, cluster: Cluster, namespace: str
) -> None:
    reference = ObjectReference(kind=Kind.PREVIEW, namespace=namespace, name=random_name())
    fakes = FakePlatform()
    await temporal.request_reconcile(client, reference, is_deleting=False)
    words = ("cleanup", f"preview/{reference.name}", "-n", namespace, "--yes", "--orphan")
    async with Worker(client, task_queue=TASK_QUEUE, workflows=WORKFLOWS, activities=fakes.activities()):
        # The worker also takes what other tests have started.
        await eventually(lambda: reference in [status.reference for status in fakes.statuses])
        fakes.presence = "gone"

        outcome = await plattr(*words)
        await client.get_workflow_handle(workflow_id(reference)).result()

    assert outcome.exit_code == 0, outcome
    assert "PreviewLifecycle" in outcome.stdout
    assert [request.purge for request in fakes.cleanup_inputs if request.reference == reference] == [True]


async def test_no_worker_is_needed_to_ask_an_open_run(plattr: Plattr, client: Client, orphan: ObjectReference) -> None:
    await temporal.request_reconcile(client, orphan, is_deleting=False)
    words = ("cleanup", f"app/{orphan.name}", "-n", orphan.namespace, "--yes", "--orphan", "--cascade")

    asked = await plattr(*words)
    awaited = await plattr(*words, "--wait", "--timeout", "2s")

    assert (asked.exit_code, awaited.exit_code) == (0, 3)
    assert (await run_of(client, orphan)).workflow_type == "ProvisionApplication"
    history = client.get_workflow_handle(workflow_id(orphan)).fetch_history_events()
    signals = [
        event.workflow_execution_signaled_event_attributes.signal_name
        async for event in history
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert signals == [CHANGED_SIGNAL, *[CASCADE_SIGNAL, PURGE_SIGNAL] * 2]


async def test_wait_follows_the_cleanup_to_its_end_and_says_what_is_left(
    plattr: Plattr, client: Client, cluster: Cluster, orphan: ObjectReference, left: Claim
) -> None:
    fakes = FakePlatform()
    fakes.failures["delete_auth"] = [BackendUnavailable("cannot reach it")]
    words = ("cleanup", f"app/{orphan.name}", "-n", orphan.namespace, "--yes", "--orphan", "--wait")
    async with Worker(client, task_queue=TASK_QUEUE, workflows=WORKFLOWS, activities=fakes.activities()):
        # These activities do nothing, so the claim stays.
        incomplete = await plattr(*words)
        await cluster.claim_store.release(estate(orphan), [left])
        complete = await plattr(*words)

    assert incomplete.exit_code == 1
    assert "✓ release" in incomplete.stdout
    assert f"left: bucket {left.name}" in incomplete.stdout
    assert complete.exit_code == 0, complete
    assert "nothing is left" in complete.stdout


async def test_wait_tells_a_cleanup_that_failed(plattr: Plattr, client: Client, orphan: ObjectReference) -> None:
    cleaning = asyncio.create_task(
        plattr("cleanup", f"app/{orphan.name}", "-n", orphan.namespace, "--yes", "--orphan", "--wait")
    )
    async with asyncio.timeout(60):
        while True:
            try:
                await client.get_workflow_handle(workflow_id(orphan)).terminate()
            except RPCError:
                await asyncio.sleep(0.1)
            else:
                break

    outcome = await cleaning

    assert outcome.exit_code == 1
    assert "ended as terminated" in outcome.stdout
