from temporalio.client import Client

from plattr.objects import PAUSED_ANNOTATION, CustomObject
from tests.cli.conftest import Plattr, run_of
from tests.fix_kubernetes import Cluster, random_name


async def test_pause_and_resume_set_and_take_the_annotation(
    plattr: Plattr, cluster: Cluster, application: CustomObject
) -> None:
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


async def test_pausing_keeps_the_annotations_of_others(plattr: Plattr, cluster: Cluster, namespace: str) -> None:
    application = await cluster.apply(namespace, random_name(), metadata={"annotations": {"team": "a"}})

    await plattr("pause", application.metadata.name, "-n", namespace)

    annotations = (await cluster.read(application.reference)).metadata.annotations
    assert annotations == {"team": "a", PAUSED_ANNOTATION: "true"}


async def test_resync_begins_a_run(plattr: Plattr, client: Client, application: CustomObject) -> None:
    reference = application.reference

    outcome = await plattr("resync", reference.name, "-n", reference.namespace)

    assert outcome.exit_code == 0, outcome
    assert (await run_of(client, reference)).workflow_type == "ProvisionApplication"


async def test_resync_of_all_takes_every_object_of_the_namespace(
    plattr: Plattr, client: Client, cluster: Cluster, namespace: str
) -> None:
    applications = [await cluster.apply(namespace, random_name()) for _ in range(3)]
    preview = await cluster.preview(namespace, random_name(), applications[0].metadata.name)

    outcome = await plattr("resync", "--all", "-n", namespace)

    assert outcome.stdout.count("resyncs") == 4
    assert (await run_of(client, preview.reference)).workflow_type == "PreviewLifecycle"
