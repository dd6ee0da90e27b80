"""The floor: the backend calls that one provision cannot do without, made straight, connections open."""

import asyncio
import json
import secrets
from dataclasses import dataclass
from typing import Any

import boto3
import httpx
import psycopg
from botocore.config import Config
from psycopg.sql import SQL, Identifier, Literal

from activities.clients.kube import KubeClient
from activities.clients.resources import (
    AUTOSCALERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    INGRESSES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Json,
    Resource,
)
from plattr.manifests.autoscaler import build_autoscaler
from plattr.manifests.config_map import build_config_map
from plattr.manifests.deployment import build_deployment
from plattr.manifests.ingress import build_api_ingress, build_ingress, ingress_profile
from plattr.manifests.pod import Placeholder
from plattr.manifests.secret import build_database_secret
from plattr.manifests.service import build_service
from plattr.manifests.service_account import build_service_account
from plattr.target import Target
from stack.endpoints import Endpoints


@dataclass
class Floor:
    """Open connections, and the calls of one application after another."""

    kube: KubeClient
    database: psycopg.AsyncConnection[Any]
    s3: Any
    keycloak: httpx.AsyncClient

    @classmethod
    async def connect(cls, endpoints: Endpoints, kube: KubeClient) -> "Floor":
        keycloak = httpx.AsyncClient(base_url=endpoints.keycloak_url, timeout=60)
        answer = await keycloak.post(
            "/realms/master/protocol/openid-connect/token",
            data={
                "grant_type": "password",
                "client_id": "admin-cli",
                "username": endpoints.keycloak_admin_user,
                "password": endpoints.keycloak_admin_password,
            },
        )
        # Keycloak's admin tokens live for a minute; the bench asks anew before each application.
        keycloak.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return cls(
            kube=kube,
            database=await psycopg.AsyncConnection.connect(endpoints.database_admin_url, autocommit=True),
            s3=boto3.client(
                "s3",
                endpoint_url=endpoints.s3_url,
                aws_access_key_id=endpoints.s3_key,
                aws_secret_access_key=endpoints.s3_secret,
                region_name="us-east-1",
                config=Config(s3={"addressing_style": "path"}),
            ),
            keycloak=keycloak,
        )

    async def close(self) -> None:
        await self.database.close()
        await self.keycloak.aclose()

    async def provision(self, target: Target) -> None:
        """Make everything of one application, one call after the other, and wait until its pods are available."""
        spec = target.spec
        if spec.database.enabled:
            await self._database(target)
        if spec.storage.enabled:
            await asyncio.to_thread(self._storage, target)
        if spec.auth.enabled:
            await self._auth(target)
        await self._workload(target)

    async def _database(self, target: Target) -> None:
        names, password = target.names, secrets.token_hex(32)
        await self._apply(SECRETS, build_database_secret(target, {"DB_PASSWORD": password}), target)
        hashed = self.database.pgconn.encrypt_password(
            password.encode(), names.app_role.encode(), b"scram-sha-256"
        ).decode()
        app, anon, schema = Identifier(names.app_role), Identifier(names.anon_role), Identifier(names.schema_name)
        async with self.database.transaction():
            for statement in (
                SQL("SELECT pg_advisory_xact_lock(1)"),
                SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(app, Literal(hashed)),
                SQL("CREATE ROLE {} NOLOGIN").format(anon),
                SQL("GRANT {} TO {}").format(anon, app),
                SQL("GRANT plattr_apps TO {}").format(app),
                SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(schema, app),
                SQL("ALTER ROLE {} SET search_path = {}").format(app, schema),
                SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, anon),
                SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} GRANT SELECT ON TABLES TO {}").format(
                    app, schema, anon
                ),
                SQL("COMMENT ON ROLE {} IS 'bench'").format(app),
                SQL("COMMENT ON ROLE {} IS 'bench'").format(anon),
                SQL("COMMENT ON SCHEMA {} IS 'bench'").format(schema),
            ):
                await self.database.execute(statement)

    def _storage(self, target: Target) -> None:
        for bucket in target.spec.storage.buckets:
            name = target.names.bucket(bucket.name)
            self.s3.create_bucket(Bucket=name)
            self.s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": [{"Key": "plattr-owner", "Value": "bench"}]})
            rule = {"AllowedMethods": ["GET", "PUT"], "AllowedOrigins": [target.names.url], "MaxAgeSeconds": 3600}
            self.s3.put_bucket_cors(Bucket=name, CORSConfiguration={"CORSRules": [rule]})
            if bucket.public:
                statement = {
                    "Effect": "Allow",
                    "Principal": "*",
                    "Action": "s3:GetObject",
                    "Resource": f"arn:aws:s3:::{name}/*",
                }
                self.s3.put_bucket_policy(
                    Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
                )

    async def _auth(self, target: Target) -> None:
        client = {
            "clientId": target.names.client_id,
            "publicClient": True,
            "redirectUris": [f"{target.names.url}/*"],
            "attributes": {"pkce.code.challenge.method": "S256"},
        }
        body = {"realm": target.names.realm, "enabled": True, "clients": [client]}
        answer = await self.keycloak.post("/admin/realms", json=body)
        answer.raise_for_status()

    async def _workload(self, target: Target) -> None:
        profile = ingress_profile("nginx", platform_namespace="plattr-system")
        for feature in ("storage", "auth", "redis", "search"):
            if getattr(target.spec, feature).enabled:
                await self._apply(CONFIG_MAPS, build_config_map(target, feature, {"BENCH": "1"}), target)
        placeholder = Placeholder(image="registry.example/page", port=8080)
        await self._apply(SERVICE_ACCOUNTS, build_service_account(target, irsa_role_arn=None), target)
        await self._apply(DEPLOYMENTS, build_deployment(target, placeholder=placeholder, checksum="1"), target)
        await self._apply(SERVICES, build_service(target), target)
        await self._apply(INGRESSES, build_ingress(target, profile=profile, cluster_issuer="x"), target)
        if target.spec.database.enabled:
            await self._apply(INGRESSES, build_api_ingress(target, profile=profile), target)
        await self._apply(AUTOSCALERS, build_autoscaler(target), target)
        while True:
            deployment = await self.kube.get(DEPLOYMENTS, target.names.stem, target.names.namespace)
            if deployment and deployment.get("status", {}).get("availableReplicas"):
                return
            await asyncio.sleep(0.01)

    async def _apply(self, resource: Resource, body: Json, target: Target) -> None:
        await self.kube.apply(resource, body, target.names.namespace)

    async def remove(self, target: Target) -> None:
        """Take one application away again; not measured."""
        names = target.names
        if target.spec.auth.enabled:
            await self.keycloak.delete(f"/admin/realms/{names.realm}")
        for bucket in target.spec.storage.buckets if target.spec.storage.enabled else ():
            await asyncio.to_thread(self.s3.delete_bucket, Bucket=names.bucket(bucket.name))
        if target.spec.database.enabled:
            app, anon, schema = Identifier(names.app_role), Identifier(names.anon_role), Identifier(names.schema_name)
            await self.database.execute(SQL("DROP SCHEMA {} CASCADE").format(schema))
            await self.database.execute(SQL("DROP OWNED BY {}, {}").format(app, anon))
            await self.database.execute(SQL("DROP ROLE {}, {}").format(app, anon))
