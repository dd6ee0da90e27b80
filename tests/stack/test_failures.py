import socket
from pathlib import Path

import psutil
import pytest

from stack.errors import PlatformError
from stack.platform import Platform


def processes_of_state(state: Path) -> list[str]:
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [command for command in commands if str(state) in command]


def test_service_that_exits_at_once_is_named_with_its_last_words(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = state / "broken"
    broken.write_text("#!/bin/sh\necho 'no such option: --health'\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PLATTR_BIN_VERSITYGW", str(broken))
    platform = Platform(state)

    with pytest.raises(PlatformError) as failure:
        platform.start(services=["s3"])

    assert str(failure.value).startswith("cannot start s3: exited with code 1")
    assert "no such option: --health" in str(failure.value)
    assert str(state / "logs" / "s3.log") in str(failure.value)
    assert not platform.is_running
    assert processes_of_state(state) == []


def test_server_that_tells_no_version_is_named_with_the_setting(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = state / "stranger"
    stranger.write_text("#!/bin/sh\necho 'hello'\n")
    stranger.chmod(0o755)
    monkeypatch.setenv("PLATTR_BIN_POSTGRES", str(stranger))

    with pytest.raises(PlatformError, match="it tells no version but 'hello'; set PLATTR_BIN_POSTGRES to a server"):
        Platform(state).start(services=["postgres"])


def test_port_held_by_a_stranger_is_named(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        monkeypatch.setenv("PLATTR_PORT_S3", str(port))

        with pytest.raises(PlatformError, match=f"cannot start s3: port {port} is held by another process"):
            Platform(state).start(services=["s3"])


def test_port_that_is_no_number_is_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATTR_PORT_TEMPORAL_UI", "http")

    with pytest.raises(PlatformError, match="PLATTR_PORT_TEMPORAL_UI='http'"):
        _ = Platform(state).endpoints


def test_unknown_service_is_refused_with_the_known_ones(state: Path) -> None:
    with pytest.raises(PlatformError, match="'mysql': the platform has temporal, postgres, s3, keycloak, kubernetes"):
        Platform(state).start(services=["mysql"])


def test_stopping_a_service_of_a_platform_that_is_down_is_refused(state: Path) -> None:
    with pytest.raises(PlatformError, match="not running; run plattr infra start"):
        Platform(state).stop_service("s3")


def test_state_folder_keeps_ports_and_passwords(state: Path) -> None:
    first = Platform(state).endpoints

    second = Platform(state).endpoints

    assert second == first
    assert (state / "run" / "settings.json").stat().st_mode & 0o077 == 0


def test_two_state_folders_share_no_port_and_no_password(state: Path, tmp_path: Path) -> None:
    one, other = Platform(state).endpoints, Platform(tmp_path).endpoints

    assert one.database_admin_url != other.database_admin_url
    assert one.s3_secret != other.s3_secret
    assert one.keycloak_client_secret != other.keycloak_client_secret


def test_watcher_gets_no_backends_credentials(state: Path) -> None:
    settings = Platform(state).environment("watcher")

    assert set(settings) == {
        *("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "KUBECONFIG", "LEASE_NAMESPACE", "METRICS_HOST", "METRICS_PORT")
    }


@pytest.mark.parametrize("role", ["worker", "cli"])
def test_environment_holds_the_settings_of_the_specification(state: Path, role: str) -> None:
    settings = Platform(state).environment(role)

    assert set(settings) >= {
        *("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "KUBECONFIG", "DB_ADMIN_URL", "DB_HOST", "DB_PORT", "DB_NAME"),
        *("AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "BASE_DOMAIN"),
        *("KEYCLOAK_URL", "KEYCLOAK_CLIENT_ID", "KEYCLOAK_CLIENT_SECRET", "AUTH_URL", "OIDC_CLIENT_SUFFIX"),
        *("IDP_GOOGLE_CLIENT_ID", "IDP_GOOGLE_CLIENT_SECRET", "IDP_GITHUB_CLIENT_ID", "IDP_GITHUB_CLIENT_SECRET"),
        "LEASE_NAMESPACE",
    }
    assert ("METRICS_PORT" in settings) == (role != "cli")
    assert "postgres:" not in settings["DB_ADMIN_URL"]
