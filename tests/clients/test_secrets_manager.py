"""The admin's login from Secrets Manager, against a server that speaks its protocol."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from psycopg.conninfo import conninfo_to_dict

from clients.postgres import PostgresClient
from clients.secrets_manager import SecretsManagerClient
from plattr.errors import BackendRefused, BackendUnavailable
from plattr.settings import Settings

ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:plattr-admin-AbCdEf"


@dataclass
class Vault:
    """What the server answers."""

    text: str = ""
    status: int = 200
    error: str = ""
    targets: list[str] = field(default_factory=list)
    arns: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.targets.append(request.headers["X-Amz-Target"])
        self.arns.append(json.loads(await request.text())["SecretId"])
        if self.status != 200:
            return web.json_response({"__type": self.error, "message": "no"}, status=self.status)
        return web.json_response({"ARN": ARN, "Name": "plattr-admin", "SecretString": self.text})


@pytest.fixture
async def vault(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Vault]:
    vault = Vault()
    application = web.Application()
    application.router.add_post("/", vault.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    yield vault
    await runner.cleanup()


def login(settings: Settings, **changes: Any) -> str:
    assert settings.db_admin_url is not None
    admin = conninfo_to_dict(settings.db_admin_url.get_secret_value())
    # The shape that RDS writes.
    return json.dumps({"engine": "postgres", "username": admin["user"], "password": admin["password"]} | changes)


@pytest.fixture
async def client(vault: Vault, database_settings: Settings, short_wait: None) -> AsyncIterator[PostgresClient]:
    settings = database_settings.model_copy(update={"db_admin_url": None, "db_secret_arn": ARN})
    client = await PostgresClient.connect(settings)
    yield client
    await client.close()


async def test_secret_is_enough_to_connect(vault: Vault, client: PostgresClient, database_settings: Settings) -> None:
    vault.text = login(database_settings)

    await client.ping()

    assert vault.arns[0] == ARN
    assert vault.targets[0] == "secretsmanager.GetSecretValue"


async def test_host_and_port_of_the_secret_count(
    vault: Vault, database_settings: Settings, client: PostgresClient
) -> None:
    vault.text = login(database_settings, host="127.0.0.1", port=1)

    with pytest.raises(BackendUnavailable) as failure:
        await client.ping()

    assert "port 1 " in str(failure.value)


async def test_rotated_password_is_picked_up(vault: Vault, client: PostgresClient, database_settings: Settings) -> None:
    vault.text = login(database_settings, password="rotated away")
    with pytest.raises(BackendUnavailable):
        await client.ping()
    vault.text = login(database_settings)

    await client.ping()

    assert len(vault.arns) > 1


@pytest.mark.parametrize(
    "text", ["", "canary", '{"username": "canary"}', '["canary"]'], ids=["empty", "text", "no-password", "list"]
)
async def test_secret_of_another_shape_is_refused_and_not_quoted(text: str, vault: Vault) -> None:
    vault.text = text

    with pytest.raises(BackendRefused) as refusal:
        await SecretsManagerClient("us-east-1").database_parameters(ARN)

    assert ARN in str(refusal.value)
    assert "canary" not in str(refusal.value)


ANSWERS = {
    "no-right": (400, "AccessDeniedException", BackendRefused),
    "no-such-secret": (400, "ResourceNotFoundException", BackendRefused),
    "throttled": (400, "ThrottlingException", BackendUnavailable),
    "down": (500, "InternalServiceError", BackendUnavailable),
}


@pytest.mark.parametrize(("status", "error", "expected"), ANSWERS.values(), ids=ANSWERS)
async def test_answer_is_sorted_by_what_mends_it(
    status: int, error: str, expected: type[Exception], vault: Vault
) -> None:
    vault.status, vault.error = status, error

    with pytest.raises(expected) as failure:
        await SecretsManagerClient("us-east-1").database_parameters(ARN)

    assert error in str(failure.value)


async def test_service_that_is_not_there_is_an_outage(monkeypatch: pytest.MonkeyPatch, vault: Vault) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1")

    with pytest.raises(BackendUnavailable):
        await SecretsManagerClient("us-east-1").database_parameters(ARN)
