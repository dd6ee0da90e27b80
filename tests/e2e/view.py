"""What a person can do and see: apply, edit, delete, and ask every backend what exists."""

import asyncio
import base64
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import psycopg
from botocore.config import Config
from keycloak import KeycloakAdmin, KeycloakOpenIDConnection
from keycloak.exceptions import KeycloakGetError
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

from clients.kube import KubeClient
from clients.resources import APPLICATIONS, CONFIG_MAPS, PREVIEWS, SECRETS, Json, Resource
from clients.temporal import request_reconcile
from plattr.naming import workflow_id
from plattr.objects import Kind, ObjectReference
from plattr.steps import RESYNC_SIGNAL
from stack.platform import Platform

EVERYTHING: dict[str, Any] = {
    "repository": "https://git.example/my-app",
    "framework": "docker",
    "environment": "production",
    "imageRef": "registry.example/my-app:1",
    "database": {"enabled": True},
    "storage": {"enabled": True, "buckets": [{"name": "uploads", "public": True}, {"name": "private"}]},
    "auth": {"enabled": True, "providers": ["google"]},
    "redis": {"enabled": True},
    "search": {"enabled": True},
}
SMALL: dict[str, Any] = {
    "repository": "https://git.example/small",
    "framework": "static",
    "environment": "staging",
    "redis": {"enabled": True},
}


def random_name(prefix: str = "app") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:6]}"


class View:
    """One test's window on the platform."""

    def __init__(self, platform: Platform, kube: KubeClient, temporal: Client, namespace: str) -> None:
        self.platform = platform
        self.kube = kube
        self.temporal = temporal
        self.namespace = namespace
        self._superuser_url = platform.endpoints.database_superuser_url

    # -- objects

    def reference(self, name: str, kind: Kind = Kind.APPLICATION) -> ObjectReference:
        return ObjectReference(kind=kind, namespace=self.namespace, name=name)

    async def apply(self, name: str, spec: dict[str, Any], kind: Kind = Kind.APPLICATION) -> Json:
        resource = APPLICATIONS if kind is Kind.APPLICATION else PREVIEWS
        body = {
            "apiVersion": "platform.internal/v1alpha1",
            "kind": str(kind),
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        existing = await self.kube.get(resource, name, self.namespace)
        if existing is None:
            created = await self.kube.create(resource, body, self.namespace)
            assert created is not None
            return created
        operations = [{"op": "replace", "path": "/spec", "value": spec}]
        patched = await self.kube.json_patch(resource, name, operations, self.namespace)
        assert patched is not None
        return patched

    async def application(self, name: str) -> Json | None:
        return await self.kube.get(APPLICATIONS, name, self.namespace)

    async def delete(self, name: str, resource: Resource = APPLICATIONS) -> None:
        await self.kube.delete(resource, name, self.namespace)

    async def wait(
        self,
        name: str,
        condition: Callable[[Json], bool],
        *,
        seconds: float = 60,
        resource: Resource = APPLICATIONS,
    ) -> Json:
        last: Json | None = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    last = await self.kube.get(resource, name, self.namespace)
                    if last is not None and condition(last):
                        return last
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{name} did not come to it; its status: {(last or {}).get('status')}") from None

    async def wait_running(self, name: str, *, seconds: float = 60, resource: Resource = APPLICATIONS) -> Json:
        """Until the newest spec is Running."""
        return await self.wait(name, is_settled, seconds=seconds, resource=resource)

    async def wait_failed(self, name: str, *, seconds: float = 60) -> Json:
        return await self.wait(name, lambda o: o.get("status", {}).get("phase") == "Failed", seconds=seconds)

    async def wait_gone(self, name: str, *, seconds: float = 90, resource: Resource = APPLICATIONS) -> None:
        last = None
        try:
            async with asyncio.timeout(seconds):
                while (last := await self.kube.get(resource, name, self.namespace)) is not None:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{name} is still there: {(last or {}).get('status')}") from None

    async def remove_everything(self) -> None:
        for resource in (PREVIEWS, APPLICATIONS):
            names = [item["metadata"]["name"] for item in await self.kube.list(resource, self.namespace)]
            for name in names:
                await self.kube.delete(resource, name, self.namespace)
            for name in names:
                await self.wait_gone(name, resource=resource)

    # -- Temporal

    def run_of(self, name: str, kind: Kind = Kind.APPLICATION) -> WorkflowHandle[Any, Any]:
        return self.temporal.get_workflow_handle(workflow_id(self.reference(name, kind)))

    async def settle(self, name: str, *, seconds: float = 60) -> None:
        """Until no run is open for the object."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    description = await self.run_of(name).describe()
                except RPCError:
                    return
                if description.close_time is not None:
                    return
                await asyncio.sleep(0.05)

    async def resync(self, name: str) -> None:
        """As `plattr resync` does, without the second that a command takes to start; wait until the run is over."""
        await request_reconcile(self.temporal, self.reference(name), is_deleting=False, signal=RESYNC_SIGNAL)
        await self.settle(name)

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command line as a person would, with the platform's environment."""
        environment = self.platform.environment("cli")
        path = f"{self.platform.endpoints.bin_dir}:{environment.get('PATH', '')}"
        full = os.environ | environment | {"PATH": f"{path}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
        full["KUBECONFIG"] = str(self.platform.endpoints.kubeconfig_admin)
        done = subprocess.run(words, env=full, capture_output=True, text=True, timeout=120, check=False)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done

    # -- backends, asked directly

    async def secret(self, name: str, namespace: str = "") -> dict[str, str] | None:
        body = await self.kube.get(SECRETS, name, namespace or self.namespace)
        return None if body is None else {k: base64.b64decode(v).decode() for k, v in body["data"].items()}

    async def config_map(self, name: str, namespace: str = "") -> dict[str, str] | None:
        body = await self.kube.get(CONFIG_MAPS, name, namespace or self.namespace)
        return None if body is None else dict(body["data"])

    async def query(self, statement: str, url: str = "") -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(url or self._superuser_url, autocommit=True) as connection:
            cursor = await connection.execute(statement.encode())
            return await cursor.fetchall() if cursor.description else []

    async def schemas_and_roles(self, stem: str) -> set[str]:
        like = stem.replace("_", r"\_")
        rows = await self.query(
            rf"select nspname from pg_namespace where nspname = '{stem}' "
            rf"union select rolname from pg_roles where rolname like '{like}\_%'"
        )
        return {row[0] for row in rows}

    def s3(self) -> Any:
        return s3_of(self.platform)

    def buckets(self, prefix: str) -> set[str]:
        return {b["Name"] for b in self.s3().list_buckets()["Buckets"] if b["Name"].startswith(prefix)}

    def realm(self, name: str) -> dict[str, Any] | None:
        endpoints = self.platform.endpoints
        connection = KeycloakOpenIDConnection(
            server_url=endpoints.keycloak_url,
            username=endpoints.keycloak_admin_user,
            password=endpoints.keycloak_admin_password,
            realm_name="master",
            timeout=30,
        )
        try:
            return dict(KeycloakAdmin(connection=connection).get_realm(name))
        except KeycloakGetError as error:
            if error.response_code == 404:
                return None
            raise


def s3_of(platform: Platform) -> Any:
    """Return boto3's client for the worker's account."""
    endpoints = platform.endpoints
    return boto3.client(
        "s3",
        endpoint_url=endpoints.s3_url,
        aws_access_key_id=endpoints.s3_key,
        aws_secret_access_key=endpoints.s3_secret,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


def is_settled(body: Json) -> bool:
    status = body.get("status", {})
    return bool(status.get("phase") == "Running" and status.get("observedGeneration") == body["metadata"]["generation"])


def conditions(body: Json) -> dict[str, dict[str, Any]]:
    return {condition["type"]: condition for condition in body.get("status", {}).get("conditions", [])}
