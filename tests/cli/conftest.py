"""The command line as a person runs it, against the platform's Kubernetes and a Temporal that no worker polls."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionDescription
from typer.testing import CliRunner

from cli import runs
from cli.main import app
from clients import temporal
from plattr.naming import workflow_id
from plattr.objects import CustomObject, ObjectReference
from stack.platform import Platform
from tests.fix_kubernetes import Cluster, random_name
from tests.fix_temporal import TemporalServer


class Outcome:
    """What a command printed, and its exit code."""

    def __init__(self, exit_code: int, stdout: str, stderr: str) -> None:
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr

    def __repr__(self) -> str:
        return f"exit {self.exit_code}\n{self.stdout}\n{self.stderr}"


Plattr = Callable[..., Coroutine[Any, Any, Outcome]]


def run_plattr(*arguments: str, environment: dict[str, str] | None = None, answer: str | None = None) -> Outcome:
    result = CliRunner().invoke(app, arguments, env=environment, input=answer)
    return Outcome(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second instead of five for the answer of a worker: there is none here."""
    monkeypatch.setattr(runs, "QUERY_TIMEOUT", timedelta(seconds=0.5))


@pytest.fixture
def plattr(platform: Platform, temporal_server: TemporalServer) -> Plattr:
    """Run a command in a thread: each one has a loop of its own."""
    environment = {"KUBECONFIG": str(platform.endpoints.kubeconfig_admin), **temporal_server.environment}

    async def run(*arguments: str, answer: str | None = None) -> Outcome:
        return await asyncio.to_thread(run_plattr, *arguments, environment=environment, answer=answer)

    return run


@pytest.fixture
async def client(temporal_server: TemporalServer) -> Client:
    return await temporal.connect_temporal(lazy=False, environment=temporal_server.environment)


@pytest.fixture
async def application(cluster: Cluster, namespace: str) -> CustomObject:
    return await cluster.apply(namespace, random_name())


async def run_of(client: Client, reference: ObjectReference) -> WorkflowExecutionDescription:
    return await client.get_workflow_handle(workflow_id(reference)).describe()
