import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import yaml

from clients.kube import KubeClient
from clients.resources import APPLICATIONS, PREVIEWS, Json
from plattr.objects import API_VERSION, CustomObject, Kind, ObjectReference
from tests.cli.conftest import Plattr
from tests.fix_kubernetes import Cluster, application_spec, random_name

# Writes documents into a file, each a kind, a name and a spec, and returns its path.
Manifest = Callable[..., str]


def condition(kind: str, status: str, reason: str, message: str = "") -> Json:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }


@pytest.fixture
def manifest(tmp_path: Path, namespace: str) -> Manifest:
    """Write documents into a file: each a name, a spec and a kind."""

    def write(*documents: tuple[str, str, Json]) -> str:
        file = tmp_path / f"{random_name()}.yaml"
        bodies = [
            {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
            for kind, name, spec in documents
        ]
        file.write_text(yaml.safe_dump_all(bodies))
        return str(file)

    return write


async def eventually(condition: Callable[[], Awaitable[object]], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_created_then_unchanged_then_configured(
    plattr: Plattr, manifest: Manifest, namespace: str, admin_kube: KubeClient
) -> None:
    name = random_name()
    file = manifest(("Application", name, application_spec()))
    created = await plattr("apply", file, "-n", namespace)
    unchanged = await plattr("apply", file, "-n", namespace)
    configured = await plattr(
        "apply", manifest(("Application", name, application_spec(branch="next"))), "-n", namespace
    )

    words = [outcome.stdout.split()[-1] for outcome in (created, unchanged, configured)]
    assert words == ["created", "unchanged", "configured"]
    body = await admin_kube.get(APPLICATIONS, name, namespace)
    assert body is not None
    assert body["spec"]["branch"] == "next"
    assert "plattr-cli" in {field["manager"] for field in body["metadata"]["managedFields"]}


async def test_several_documents_of_both_kinds(
    plattr: Plattr, manifest: Manifest, namespace: str, admin_kube: KubeClient
) -> None:
    parent, preview = random_name(), random_name()
    preview_spec = {"applicationRef": parent, "pullRequest": 7, "branch": "topic"}
    file = manifest(("Application", parent, application_spec()), ("PreviewEnvironment", preview, preview_spec))

    outcome = await plattr("apply", file, "-n", namespace)

    assert outcome.exit_code == 0, outcome
    assert outcome.stdout.count("created") == 2
    assert await admin_kube.get(PREVIEWS, preview, namespace) is not None


async def test_a_rule_that_only_the_server_knows_is_one_line_with_its_field(
    plattr: Plattr, manifest: Manifest, namespace: str
) -> None:
    name = random_name()
    await plattr("apply", manifest(("Application", name, application_spec())), "-n", namespace)

    outcome = await plattr(
        "apply", manifest(("Application", name, application_spec(environment="staging"))), "-n", namespace
    )

    assert outcome.exit_code == 1
    assert outcome.stderr.count("\n") == 1
    assert "spec.environment" in outcome.stderr
    assert "immutable" in outcome.stderr.lower() or "cannot be changed" in outcome.stderr.lower()


async def test_a_field_of_another_manager_needs_force(
    plattr: Plattr, manifest: Manifest, namespace: str, admin_kube: KubeClient
) -> None:
    name = random_name()
    theirs = application_spec(imageRef="registry.test/app:ci")
    body = {"apiVersion": API_VERSION, "kind": "Application", "metadata": {"name": name}, "spec": theirs}
    await admin_kube.apply(APPLICATIONS, body, namespace)
    file = manifest(("Application", name, application_spec(imageRef="registry.test/app:mine")))

    refused = await plattr("apply", file, "-n", namespace)
    forced = await plattr("apply", file, "-n", namespace, "--force")

    assert refused.exit_code == 1
    assert "spec.imageRef" in refused.stderr
    assert "--force" in refused.stderr
    assert forced.exit_code == 0


@pytest.fixture
async def dying(cluster: Cluster, namespace: str) -> CustomObject:
    """An Application that is being deleted and is held back."""
    metadata = {"finalizers": ["example.test/hold"]}
    application = await cluster.apply(namespace, random_name(), metadata=metadata)
    await cluster.delete(application.reference)
    return application


async def test_what_is_being_deleted_is_not_applied_and_nothing_else_of_its_file_is(
    plattr: Plattr, manifest: Manifest, namespace: str, admin_kube: KubeClient, cluster: Cluster, dying: CustomObject
) -> None:
    name, other = dying.metadata.name, random_name()
    file = manifest(("Application", other, application_spec()), ("Application", name, application_spec(branch="next")))

    outcome = await plattr("apply", file, "-n", namespace)

    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert "being deleted" in outcome.stderr
    assert "--wait" in outcome.stderr
    assert (await cluster.read(dying.reference)).spec == dying.spec
    assert await admin_kube.get(APPLICATIONS, other, namespace) is None


async def test_with_wait_it_is_made_anew_when_it_is_gone(
    plattr: Plattr, manifest: Manifest, namespace: str, cluster: Cluster, dying: CustomObject
) -> None:
    file = manifest(("Application", dying.metadata.name, application_spec(branch="next")))
    waiting = asyncio.create_task(plattr("apply", file, "-n", namespace, "--wait", "--timeout", "20s"))
    await asyncio.sleep(2)
    await cluster.let_go(dying.reference)

    async def is_made_anew() -> bool:
        body = await cluster.body(dying.reference)
        return body is not None and body["metadata"]["uid"] != dying.metadata.uid

    await eventually(is_made_anew)
    await cluster.settle(await cluster.read(dying.reference))

    outcome = await asyncio.wait_for(waiting, 20)

    assert outcome.exit_code == 0, outcome
    assert "created" in outcome.stdout


async def test_a_namespace_that_is_not_there_is_said(plattr: Plattr, manifest: Manifest) -> None:
    outcome = await plattr("apply", manifest(("Application", "shop", application_spec())), "-n", "no-such-namespace")

    assert (outcome.exit_code, outcome.stderr.count("\n")) == (1, 1)
    assert "no-such-namespace" in outcome.stderr


async def test_waiting_ends_with_running(plattr: Plattr, manifest: Manifest, namespace: str, cluster: Cluster) -> None:
    name = random_name()
    reference = ObjectReference(kind=Kind.APPLICATION, namespace=namespace, name=name)
    waiting = asyncio.create_task(
        plattr("apply", manifest(("Application", name, application_spec())), "-n", namespace, "--wait")
    )
    await eventually(lambda: cluster.body(reference))
    await cluster.set_status(await cluster.read(reference), phase="Provisioning")
    await asyncio.sleep(1)
    assert not waiting.done()

    url = f"https://{name}.example"
    await cluster.set_status(await cluster.read(reference), phase="Running", observedGeneration=1, url=url)
    outcome = await asyncio.wait_for(waiting, 10)

    assert outcome.exit_code == 0
    assert f"https://{name}.example" in outcome.stdout


async def test_waiting_ends_with_failed_and_says_why(
    plattr: Plattr, manifest: Manifest, namespace: str, cluster: Cluster
) -> None:
    name = random_name()
    reference = ObjectReference(kind=Kind.APPLICATION, namespace=namespace, name=name)
    waiting = asyncio.create_task(
        plattr("apply", manifest(("Application", name, application_spec())), "-n", namespace, "--wait")
    )
    await eventually(lambda: cluster.body(reference))
    failed = condition("StorageReady", "False", "OwnedElsewhere", "cannot adopt bucket 'x'")
    await cluster.set_status(await cluster.read(reference), phase="Failed", observedGeneration=1, conditions=[failed])

    outcome = await asyncio.wait_for(waiting, 10)

    assert outcome.exit_code == 1
    assert "✗ StorageReady OwnedElsewhere: cannot adopt bucket 'x'" in outcome.stdout
    assert "not tried again by itself" in outcome.stdout


async def test_the_status_of_an_older_spec_is_no_answer(
    plattr: Plattr, manifest: Manifest, namespace: str, cluster: Cluster
) -> None:
    name = random_name()
    await plattr("apply", manifest(("Application", name, application_spec())), "-n", namespace)
    reference = ObjectReference(kind=Kind.APPLICATION, namespace=namespace, name=name)
    await cluster.settle(await cluster.read(reference))
    began = time.monotonic()

    outcome = await plattr(
        *("apply", manifest(("Application", name, application_spec(branch="next"))), "-n", namespace),
        *("--wait", "--timeout", "2s"),
    )

    assert outcome.exit_code == 3
    assert time.monotonic() - began >= 2
    assert "is the watcher running?" in outcome.stdout


async def test_waiting_for_one_that_is_deleted_ends(
    plattr: Plattr, manifest: Manifest, namespace: str, cluster: Cluster
) -> None:
    name = random_name()
    reference = ObjectReference(kind=Kind.APPLICATION, namespace=namespace, name=name)
    waiting = asyncio.create_task(
        plattr("apply", manifest(("Application", name, application_spec())), "-n", namespace, "--wait")
    )
    await eventually(lambda: cluster.body(reference))
    await cluster.delete(reference)

    outcome = await asyncio.wait_for(waiting, 10)

    assert outcome.exit_code == 1
    assert "was deleted" in outcome.stdout
