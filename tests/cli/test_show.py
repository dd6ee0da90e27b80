import pytest

from cli.explain import about_attempt
from cli.output import complain, say
from cli.runs import PendingActivity
from clients import temporal
from clients.resources import EVENTS
from plattr.claims import Claim
from plattr.features import ClaimKind, Step
from plattr.objects import CustomObject, Kind, ObjectReference, Owner
from plattr.steps import ClaimInput, Progress
from tests.cli.conftest import Plattr
from tests.cli.test_apply import condition
from tests.fix_kubernetes import Cluster, application_spec, random_name
from tests.fix_temporal import TemporalServer


@pytest.fixture
async def failed(cluster: Cluster, namespace: str) -> CustomObject:
    application = await cluster.apply(namespace, random_name())
    conditions = [
        condition("DatabaseReady", "True", "Provisioned"),
        condition("StorageReady", "False", "BackendUnavailable", "cannot reach [S3]: connection refused"),
    ]
    return await cluster.set_status(application, phase="Failed", observedGeneration=1, conditions=conditions)


async def test_status_lists_every_object_of_a_namespace(
    plattr: Plattr, cluster: Cluster, namespace: str, failed: CustomObject
) -> None:
    preview = await cluster.preview(namespace, random_name(), failed.metadata.name)

    outcome = await plattr("status", "-n", namespace)

    assert outcome.exit_code == 0, outcome
    lines = outcome.stdout.splitlines()
    (line,) = [line for line in lines if failed.metadata.name in line and "Application" in line]
    assert "Failed" in line
    assert "✓ Database" in line
    assert "✗ Storage BackendUnavailable" in line
    assert any(preview.metadata.name in line and "PR 7" in line for line in lines)


async def test_status_of_one_shows_its_conditions(plattr: Plattr, namespace: str, failed: CustomObject) -> None:
    outcome = await plattr("status", failed.metadata.name, "-n", namespace)

    # Square brackets are Rich's markup; in a message they are text.
    assert "cannot reach [S3]: connection refused" in outcome.stdout


# Sets the window's title; clears the screen; begins a line of its own; writes from right to left.
COMMANDS = "\x1b]0;x\x07 \x1b[2J \x9b2J \rno \u202e"


@pytest.mark.attack
async def test_nothing_that_an_object_or_its_events_say_commands_the_terminal(
    plattr: Plattr, cluster: Cluster, namespace: str
) -> None:
    application = await cluster.apply(namespace, random_name())
    hostile = condition("StorageReady", "False", "Refused", f"quota {COMMANDS} [red]end[/]")
    await cluster.set_status(application, phase="Failed", observedGeneration=1, url=COMMANDS, conditions=[hostile])
    await cluster.admin.create(
        EVENTS,
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": random_name(), "namespace": namespace},
            "involvedObject": {
                "apiVersion": "platform.internal/v1alpha1",
                "kind": "Application",
                "namespace": namespace,
                "name": application.metadata.name,
                "uid": application.metadata.uid,
            },
            "reason": f"Odd{COMMANDS}",
            "message": f"event {COMMANDS} end",
            "lastTimestamp": "2026-11-27T00:00:00Z",
        },
        namespace,
    )
    name = application.metadata.name

    told = [await plattr(*command, "-n", namespace) for command in (["status"], ["status", name], ["explain", name])]
    said = "".join(outcome.stdout + outcome.stderr for outcome in told)

    assert "[red]end[/]" in said
    assert "event" in told[2].stdout
    assert {letter for letter in said if not letter.isprintable()} == {"\n"}


@pytest.mark.attack
def test_what_a_command_says_and_complains_of_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"done  {COMMANDS}")
    complain(f"cannot go on: {COMMANDS}\nnow")

    captured = capsys.readouterr()

    assert {letter for letter in captured.out + captured.err if not letter.isprintable()} == {"\n"}
    assert captured.out.startswith("done  ")
    assert captured.err.count("\n") == 1


async def test_status_finds_a_preview_by_its_pull_request(
    plattr: Plattr, cluster: Cluster, namespace: str, failed: CustomObject
) -> None:
    preview = await cluster.preview(namespace, random_name(), failed.metadata.name)

    outcome = await plattr("status", failed.metadata.name, "--env", "preview", "--pr", "7")

    assert preview.metadata.name in outcome.stdout


async def test_a_name_that_nobody_has_is_one_line(plattr: Plattr, namespace: str) -> None:
    for command in ("status", "explain", "resync", "pause"):
        outcome = await plattr(command, "nobody", "-n", namespace)

        assert (outcome.exit_code, outcome.stderr.count("\n")) == (1, 1), command
        assert "nobody" in outcome.stderr


async def test_a_name_of_both_kinds_needs_the_kind(plattr: Plattr, cluster: Cluster, namespace: str) -> None:
    name = random_name()
    await cluster.apply(namespace, name)
    await cluster.preview(namespace, name, name)

    ambiguous = await plattr("status", name, "-n", namespace)
    chosen = await plattr("status", f"preview/{name}", "-n", namespace)

    assert f"app/{name}" in ambiguous.stderr
    assert chosen.exit_code == 0


async def test_explain_says_when_there_is_no_run(plattr: Plattr, namespace: str, failed: CustomObject) -> None:
    outcome = await plattr("explain", failed.metadata.name, "-n", namespace)

    assert "is the watcher running?" in outcome.stdout
    assert "cannot reach [S3]: connection refused" in outcome.stdout


async def test_explain_says_when_no_worker_answers(
    plattr: Plattr, temporal_server: TemporalServer, failed: CustomObject
) -> None:
    reference = failed.reference
    client = await temporal.connect_temporal(environment=temporal_server.environment)
    await temporal.request_reconcile(client, reference, is_deleting=False)

    outcome = await plattr("explain", reference.name, "-n", reference.namespace)

    assert "ProvisionApplication, open since" in outcome.stdout
    assert "no worker answers" in outcome.stdout


async def test_explain_tells_a_previews_end_its_error_and_which_parent_it_is_built_from(
    plattr: Plattr, cluster: Cluster, namespace: str, temporal_server: TemporalServer
) -> None:
    parent = (await cluster.apply(namespace, random_name())).reference
    preview = await cluster.preview(namespace, random_name(), parent.name, ttl="3h")
    await cluster.claims.claim_object(ClaimInput(reference=preview.reference))
    refused = condition("DatabaseReady", "False", "BackendRefused", "cannot create schema: no right")
    end = "2037-01-01T00:00:00Z"
    await cluster.set_status(await cluster.read(preview.reference), phase="Failed", expiresAt=end, conditions=[refused])
    client = await temporal.connect_temporal(environment=temporal_server.environment)
    await temporal.request_reconcile(client, preview.reference, is_deleting=False)

    place = (f"preview/{preview.metadata.name}", "-n", namespace)
    current = await plattr("explain", *place)
    await cluster.apply(namespace, parent.name, application_spec(branch="next"))
    behind = await plattr("explain", *place)
    await cluster.delete(parent)
    gone = await plattr("explain", *place)

    assert "PreviewLifecycle, open since" in current.stdout
    assert "expires   2037-01-01" in current.stdout
    assert "cannot create schema: no right" in current.stdout
    assert f"built from generation 1 of Application {parent.name}\n" in current.stdout
    assert f"at generation 2: plattr resync preview/{preview.metadata.name}" in behind.stdout
    assert "which is gone" in gone.stdout


async def test_explain_tells_what_an_object_that_is_gone_has_left(
    plattr: Plattr, cluster: Cluster, namespace: str
) -> None:
    reference = ObjectReference(kind=Kind.APPLICATION, namespace=namespace, name=random_name())
    schema = Claim(kind=ClaimKind.SCHEMA, name=f"prod_{reference.name}")
    await cluster.claim_store.acquire(Owner(reference=reference, uid="gone"), [schema], is_retained=True)

    outcome = await plattr("explain", reference.name, "-n", namespace)

    assert "gone" in outcome.stdout
    assert f"retained  schema {schema.name}" in outcome.stdout


def test_what_a_step_waits_for_is_told_with_it() -> None:
    attempt = PendingActivity(
        activity="delete_auth", number=1, maximum=4, is_running=True, last_failure="", next_at=None
    )
    progress = Progress(step=Step.AUTH, waiting_for="bucket 'files' to be emptied")

    told = about_attempt(attempt, progress)

    assert told == ["step      auth: attempt 1 of 4 runs", "waits for bucket 'files' to be emptied"]
