"""Where AWS' services are looked for when S3 is elsewhere: AWS_ENDPOINT_URL is S3's address and nobody else's."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stack.platform import Platform

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:plattr-admin-AbCdEf"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
SETTINGS = {
    "BASE_DOMAIN": "platform.example.test",
    "DB_HOST": "aurora.example.test",
    "DB_SECRET_ARN": ARN,
    "KEYCLOAK_URL": "http://127.0.0.1:1",
    "KEYCLOAK_CLIENT_ID": "plattr",
    "KEYCLOAK_CLIENT_SECRET": "test",
    "AWS_REGION": "eu-central-1",
}
# As the worker does: the settings first, then the secret.
WORKER = f"""
import asyncio, os
from clients.secrets_manager import SecretsManagerClient
from worker.__main__ import take_settings
settings = take_settings(os.environ)
assert settings.aws_endpoint_url == os.environ["THE_TESTS_S3"], settings.aws_endpoint_url
asyncio.run(SecretsManagerClient(settings.aws_region).database_parameters({ARN!r}))
"""
PROCESSES = {"worker": ["-c", WORKER], "audit": ["-m", "cli.main", "audit"]}


@dataclass
class Listener:
    """Keeps the first line of whatever comes, and refuses it."""

    port: int = 0
    lines: list[str] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines.append((await reader.readline()).decode().strip())
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
async def listeners() -> AsyncIterator[tuple[Listener, Listener, Listener]]:
    """S3's address, a service's own, and the way to AWS."""
    made = Listener(), Listener(), Listener()
    servers = [await asyncio.start_server(listener.answer, "127.0.0.1", 0) for listener in made]
    for listener, server in zip(made, servers, strict=True):
        listener.port = server.sockets[0].getsockname()[1]
    yield made
    for server in servers:
        server.close()


async def look(process: str, s3: Listener, aws: Listener, kubeconfig: Path, changes: dict[str, str]) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "KUBECONFIG": str(kubeconfig),
        "AWS_ENDPOINT_URL": s3.url,
        "THE_TESTS_S3": s3.url,
        "HTTPS_PROXY": aws.url,
        "NO_PROXY": "127.0.0.1",
        "AWS_MAX_ATTEMPTS": "1",
        **SETTINGS,
        **changes,
    }
    command = [sys.executable, *PROCESSES[process]]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert "database login" in done.stderr, done.stderr


@pytest.fixture
def kubeconfig(platform: Platform) -> Path:
    """A real one: the audit asks which objects there are before it asks anybody else."""
    return platform.endpoints.kubeconfig_admin


def of_other_services(s3: Listener) -> list[str]:
    """Return the requests that S3 got and that are not S3's: the audit asks it for its buckets."""
    return [line for line in s3.lines if not line.startswith("GET /")]


@pytest.fixture
def pods_role(tmp_path: Path) -> dict[str, str]:
    token = tmp_path / "token"
    token.write_text("a.web.identity")
    return {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/plattr", "AWS_WEB_IDENTITY_TOKEN_FILE": str(token)}


@pytest.mark.parametrize("process", PROCESSES)
async def test_secrets_manager_is_not_looked_for_at_s3s_address(
    process: str, listeners: tuple[Listener, Listener, Listener], kubeconfig: Path
) -> None:
    s3, _, aws = listeners

    await look(process, s3, aws, kubeconfig, KEYS)

    assert set(aws.lines) == {"CONNECT secretsmanager.eu-central-1.amazonaws.com:443 HTTP/1.0"}
    assert of_other_services(s3) == []


async def test_secrets_managers_own_address_counts_beside_s3s(
    listeners: tuple[Listener, Listener, Listener], kubeconfig: Path
) -> None:
    s3, own, aws = listeners

    await look("worker", s3, aws, kubeconfig, KEYS | {"AWS_ENDPOINT_URL_SECRETS_MANAGER": own.url})

    assert set(own.lines) == {"POST / HTTP/1.1"}
    assert [*s3.lines, *aws.lines] == []


@pytest.mark.parametrize("process", PROCESSES)
async def test_a_pods_role_is_not_asked_of_s3(
    process: str, listeners: tuple[Listener, Listener, Listener], kubeconfig: Path, pods_role: dict[str, str]
) -> None:
    s3, _, aws = listeners

    await look(process, s3, aws, kubeconfig, pods_role)

    assert {line.split()[1] for line in aws.lines} == {"sts.eu-central-1.amazonaws.com:443"}
    assert of_other_services(s3) == []


async def test_stss_own_address_counts_beside_s3s(
    listeners: tuple[Listener, Listener, Listener], kubeconfig: Path, pods_role: dict[str, str]
) -> None:
    s3, own, aws = listeners

    await look("worker", s3, aws, kubeconfig, pods_role | {"AWS_ENDPOINT_URL_STS": own.url})

    assert set(own.lines) == {"POST / HTTP/1.1"}
    assert [*s3.lines, *aws.lines] == []
