"""The running system holds no more rights than it needs: nothing here is an administrator's."""

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from stack.platform import Platform
from tests.e2e.view import View

TOKEN_PATH = "/realms/master/protocol/openid-connect/token"


@pytest.fixture
def worker_environment(view: View) -> dict[str, str]:
    """What the worker that all end-to-end tests run against was started with."""
    return environment_of(view.platform, "worker")


def environment_of(platform: Platform, app: str) -> dict[str, str]:
    [status] = [status for status in platform.status() if status.service == app]
    assert status.pid is not None
    return dict(psutil.Process(status.pid).environ())


def kubectl(platform: Platform, kubeconfig: str, *words: str) -> str:
    program = str(platform.endpoints.bin_dir / "kubectl")
    done = subprocess.run(
        [program, "--kubeconfig", kubeconfig, *words], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.strip()


@pytest.mark.parametrize("app", ["worker", "watcher"])
def test_kubernetes_knows_them_as_the_service_accounts_of_the_shipped_roles(view: View, app: str) -> None:
    platform = view.platform
    kubeconfig = environment_of(platform, app)["KUBECONFIG"]

    user = json.loads(kubectl(platform, kubeconfig, "auth", "whoami", "-o", "json"))["status"]["userInfo"]

    assert user["username"] == f"system:serviceaccount:plattr-system:plattr-{app}"
    assert "system:masters" not in user["groups"]
    assert kubectl(platform, kubeconfig, "auth", "can-i", "*", "*", "--all-namespaces") == "no"
    bindings = json.loads(
        kubectl(
            platform, str(platform.endpoints.kubeconfig_admin), "get", "clusterrolebindings,rolebindings", "-A",
            "-o", "json",
        )
    )["items"]  # fmt: skip
    bound = {
        (binding["kind"], binding["roleRef"]["name"])
        for binding in bindings
        for subject in binding.get("subjects", [])
        if subject["kind"] == "ServiceAccount" and subject["name"] == f"plattr-{app}"
    }
    shipped = Path(__file__).parents[2] / "deploy" / "rbac" / f"{app}.yaml"
    documents = [document for document in yaml.safe_load_all(shipped.read_text()) if document]
    assert bound == {
        (document["kind"], document["roleRef"]["name"])
        for document in documents
        if document["kind"].endswith("Binding")
    }


async def test_the_database_admin_creates_roles_and_is_no_superuser(
    view: View, worker_environment: dict[str, str]
) -> None:
    [row] = await view.query(
        "select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,"
        " pg_has_role(current_user, 'pg_execute_server_program', 'usage')"
        " from pg_roles where rolname = current_user",
        worker_environment["DB_ADMIN_URL"],
    )

    assert row == (False, True, False, False, False, False)


def test_keycloaks_account_may_make_realms_and_nothing_in_the_master_realm(
    view: View, worker_environment: dict[str, str]
) -> None:
    platform = view.platform
    with httpx.Client(base_url=platform.endpoints.keycloak_url, timeout=60, trust_env=False) as http:
        login = {
            "grant_type": "password",
            "client_id": "admin-cli",
            "username": platform.endpoints.keycloak_admin_user,
            "password": platform.endpoints.keycloak_admin_password,
        }
        http.headers["Authorization"] = f"Bearer {http.post(TOKEN_PATH, data=login).json()['access_token']}"

        def ask(path: str) -> Any:
            return http.get(f"/admin/realms/master/{path}").raise_for_status().json()

        [client] = ask(f"clients?clientId={worker_environment['KEYCLOAK_CLIENT_ID']}")
        user = ask(f"clients/{client['id']}/service-account-user")
        roles = ask(f"users/{user['id']}/role-mappings")

    assert "KEYCLOAK_ADMIN_PASSWORD" not in worker_environment
    assert [role["name"] for role in roles["realmMappings"]] == ["create-realm"]
    # Keycloak gives whoever makes a realm its roles; those of the master realm would be everybody's.
    assert "master-realm" not in roles.get("clientMappings", {})
    assert all(name.endswith("-realm") for name in roles.get("clientMappings", {}))


def test_the_s3_account_is_not_the_servers_root(view: View, worker_environment: dict[str, str]) -> None:
    assert worker_environment["AWS_ACCESS_KEY_ID"] != view.platform.endpoints.s3_root_key


def test_the_watcher_is_given_no_backends_credentials(view: View, worker_environment: dict[str, str]) -> None:
    environment = environment_of(view.platform, "watcher")

    secrets = {
        worker_environment[name]
        for name in ("DB_ADMIN_URL", "AWS_SECRET_ACCESS_KEY", "KEYCLOAK_CLIENT_SECRET", "IDP_GOOGLE_CLIENT_SECRET")
    }
    assert secrets.isdisjoint(environment.values())
