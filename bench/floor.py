"""The floor: the backend calls that a provision, an update or a cleanup cannot avoid, made directly.

The connections are already open, and the calls are made one after the other. Nothing is read that a run would have to
compare.
"""

import asyncio
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

import boto3
import httpx
import psycopg
from botocore.config import Config
from psycopg.sql import SQL, Identifier, Literal

from bench.applications import NEXT_IMAGE
from bench.timeline import EventTimeline
from clients.kube import KubeClient
from clients.resources import (
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


@dataclass(frozen=True)
class Took:
    """How long something took, and how much of that time was only the wait for the simulated pods."""

    whole: float
    pods: float

    @property
    def own(self) -> float:
        """Return the time without the wait."""
        return self.whole - self.pods


@dataclass
class Floor:
    """Open connections, and the calls of one application after another."""

    endpoints: Endpoints
    kube: KubeClient
    sight: EventTimeline
    database: psycopg.AsyncConnection[Any]
    s3: Any
    keycloak: httpx.AsyncClient

    @classmethod
    async def connect(cls, endpoints: Endpoints, kube: KubeClient, sight: EventTimeline) -> "Floor":
        """Open the connections. `sight` watches the namespace of the floor's applications."""
        return cls(
            endpoints=endpoints,
            kube=kube,
            sight=sight,
            database=await psycopg.AsyncConnection.connect(endpoints.database_admin_url, autocommit=True),
            s3=boto3.client(
                "s3",
                endpoint_url=endpoints.s3_url,
                aws_access_key_id=endpoints.s3_key,
                aws_secret_access_key=endpoints.s3_secret,
                region_name="us-east-1",
                config=Config(s3={"addressing_style": "path"}),
            ),
            keycloak=httpx.AsyncClient(base_url=endpoints.keycloak_url, timeout=60),
        )

    async def log_in(self) -> None:
        """Get a token from Keycloak. A token lives for a minute, so call this before each application."""
        answer = await self.keycloak.post(
            "/realms/master/protocol/openid-connect/token",
            data={
                "grant_type": "password",
                "client_id": "admin-cli",
                "username": self.endpoints.keycloak_admin_user,
                "password": self.endpoints.keycloak_admin_password,
            },
        )
        self.keycloak.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    async def close(self) -> None:
        await self.database.close()
        await self.keycloak.aclose()

    async def provision(self, target: Target) -> Took:
        """Create everything of one application, and wait until its pods are available."""
        spec, begun = target.spec, time.time()
        if spec.database.enabled:
            await self._database(target)
        if spec.storage.enabled:
            await asyncio.to_thread(self._storage, target)
        if spec.auth.enabled:
            await self._auth(target)
        await self._workload(target)
        return await self._rolled_out(target, begun, generation=1)

    async def update(self, target: Target) -> Took:
        """Give the Deployment its new image, and wait until the new pods are available."""
        spec = target.spec.model_copy(update={"image_ref": NEXT_IMAGE["imageRef"]})
        begun = time.time()
        await self._apply(DEPLOYMENTS, _deployment(target.model_copy(update={"spec": spec})), target)
        return await self._rolled_out(target, begun, generation=2)

    async def clean_up(self, target: Target) -> Took:
        """Delete everything in the order of Plattr's cleanup: the data only after the pods are gone."""
        names, spec, begun = target.names, target.spec, time.time()
        await self._delete(INGRESSES, names.stem, target)
        if spec.database.enabled:
            await self._delete(INGRESSES, names.api_ingress, target)
        for resource in (AUTOSCALERS, DEPLOYMENTS, SERVICES, SERVICE_ACCOUNTS):
            await self._delete(resource, names.stem, target)
        deployment_gone, pods_gone = await self.sight.pods_end(names.stem)
        for feature in _config_maps(target):
            await self._delete(CONFIG_MAPS, names.config_map(feature), target)
        if spec.auth.enabled:
            (await self.keycloak.delete(f"/admin/realms/{names.realm}")).raise_for_status()
        for bucket in spec.storage.buckets if spec.storage.enabled else ():
            await asyncio.to_thread(self.s3.delete_bucket, Bucket=names.bucket(bucket.name))
        if spec.database.enabled:
            await self._drop_database(target)
            await self._delete(SECRETS, names.database_secret, target)
        return Took(whole=time.time() - begun, pods=pods_gone - deployment_gone)

    async def _rolled_out(self, target: Target, begun: float, *, generation: int) -> Took:
        called = time.time()
        available = max(called, await self.sight.available(target.names.stem, generation))
        return Took(whole=available - begun, pods=available - called)

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
        for feature in _config_maps(target):
            await self._apply(CONFIG_MAPS, build_config_map(target, feature, {"BENCH": "1"}), target)
        await self._apply(SERVICE_ACCOUNTS, build_service_account(target, role_template=None), target)
        await self._apply(DEPLOYMENTS, _deployment(target), target)
        await self._apply(SERVICES, build_service(target), target)
        await self._apply(INGRESSES, build_ingress(target, profile=profile, cluster_issuer="x"), target)
        if target.spec.database.enabled:
            await self._apply(INGRESSES, build_api_ingress(target, profile=profile, cluster_issuer="x"), target)
        await self._apply(AUTOSCALERS, build_autoscaler(target), target)

    async def _drop_database(self, target: Target) -> None:
        names = target.names
        app, anon, schema = Identifier(names.app_role), Identifier(names.anon_role), Identifier(names.schema_name)
        await self.database.execute(SQL("DROP SCHEMA {} CASCADE").format(schema))
        await self.database.execute(SQL("DROP OWNED BY {}, {}").format(app, anon))
        await self.database.execute(SQL("DROP ROLE {}, {}").format(app, anon))

    async def _apply(self, resource: Resource, body: Json, target: Target) -> None:
        await self.kube.apply(resource, body, target.names.namespace)

    async def _delete(self, resource: Resource, name: str, target: Target) -> None:
        await self.kube.delete(resource, name, target.names.namespace)


def _deployment(target: Target) -> Json:
    placeholder = Placeholder(image="registry.example/page", port=8080)
    return build_deployment(target, placeholder=placeholder, checksum="1", postgrest_pool=5)


def _config_maps(target: Target) -> list[str]:
    features = ("storage", "auth", "redis", "search")
    return [feature for feature in features if getattr(target.spec, feature).enabled]
