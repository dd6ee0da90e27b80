"""What a person at the terminal sees of real runs."""

import asyncio
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Outcome, run_plattr
from tests.e2e.view import SMALL, View, random_name


@pytest.fixture
def file(tmp_path: Path, view: View) -> Path:
    return tmp_path / "application.yaml"


async def plattr(view: View, *arguments: str) -> Outcome:
    return await asyncio.to_thread(run_plattr, *arguments, environment=view.platform.environment("cli"))


def write(file: Path, name: str, view: View, **spec: object) -> None:
    metadata = {"name": name, "namespace": view.namespace}
    body = {"apiVersion": "platform.internal/v1alpha1", "kind": "Application", "metadata": metadata}
    file.write_text(yaml.safe_dump({**body, "spec": {**SMALL, **spec}}))


async def test_apply_shows_each_step_and_ends_with_the_address(view: View, file: Path) -> None:
    name = random_name()
    write(file, name, view)

    outcome = await plattr(view, "apply", str(file), "--wait")
    again = await plattr(view, "apply", str(file), "--wait", "--timeout", "20s")

    assert outcome.exit_code == 0, outcome
    steps = [line.split()[2] for line in outcome.stdout.splitlines() if "✓" in line]
    assert steps == ["claim", "redis", "workload", "rollout", "status"]
    assert f"https://{name}.staging.platform.localhost" in outcome.stdout
    # The steps of the first run are no news the second time.
    assert again.exit_code == 0, again
    assert "✓" not in again.stdout


async def test_apply_says_what_failed_and_that_only_a_change_mends_it(view: View, file: Path) -> None:
    first, second = random_name(), random_name()
    host = f"{random_name()}.example.test"
    write(file, first, view, domain=host)
    await plattr(view, "apply", str(file), "--wait")
    write(file, second, view, domain=host)

    outcome = await plattr(view, "apply", str(file), "--wait")
    explained = await plattr(view, "explain", second, "-n", view.namespace)

    assert outcome.exit_code == 1, outcome
    assert "OwnedElsewhere" in outcome.stdout
    assert f"{view.namespace}/Application/{first}" in outcome.stdout
    assert "not tried again by itself" in outcome.stdout
    assert "ProvisionApplication failed" in explained.stdout


async def test_apply_shows_each_attempt_and_when_the_next_is(view: View, file: Path) -> None:
    name = random_name()
    view.platform.stop_service("s3")
    try:
        write(file, name, view, storage={"enabled": True, "buckets": [{"name": "files"}]})

        outcome = await plattr(view, "apply", str(file), "--wait", "--timeout", "2m")
        explained = await plattr(view, "explain", name, "-n", view.namespace)
    finally:
        await asyncio.to_thread(view.platform.start_service, "s3")

    assert outcome.exit_code == 1, outcome
    assert "✗ storage attempt 1 of 4 failed: cannot" in outcome.stdout
    assert "✗ StorageReady BackendUnavailable" in outcome.stdout
    assert "next try at" in outcome.stdout
    assert "the next begins at" in explained.stdout
    resynced = await plattr(view, "resync", name, "-n", view.namespace)
    assert resynced.exit_code == 0
    # Long before the slow retry would have come.
    await view.wait_running(name, seconds=25)


async def test_cleanup_is_followed_until_the_object_is_gone(view: View, file: Path) -> None:
    name = random_name()
    write(file, name, view)
    await plattr(view, "apply", str(file), "--wait")

    outcome = await plattr(view, "cleanup", name, "-n", view.namespace, "--yes", "--wait")

    assert outcome.exit_code == 0, outcome
    assert "✓ workload" in outcome.stdout
    assert "gone after" in outcome.stdout
    assert await view.application(name) is None
