"""What is left of Applications anywhere, asked of each backend by name and by owner."""

import asyncio

import httpx
from redis.asyncio import Redis

from clients.resources import (
    AUTOSCALERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    INGRESSES,
    LEASES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from plattr.target import OWNER_NAME_LABEL, OWNER_NAMESPACE_LABEL
from tests.e2e.view import View

OURS = (SECRETS, CONFIG_MAPS, SERVICE_ACCOUNTS, SERVICES, DEPLOYMENTS, INGRESSES, AUTOSCALERS)


async def leftovers(view: View, *names: str, prefix: str = "prod") -> set[str]:
    """Return all that Applications of this environment's prefix left; empty when they are gone whole."""
    found = await _in_postgres(view, [f"{prefix}_{name.replace('-', '_')}" for name in names])
    found |= await _in_redis(view, [f"{prefix}_{name.replace('-', '_')}" for name in names])
    buckets = await asyncio.to_thread(view.buckets, f"plattr-{prefix}-")
    found |= {bucket for bucket in buckets for name in names if bucket.startswith(f"plattr-{prefix}-{name}-")}
    realms = {name if prefix == "prod" else f"{prefix}-{name}" for name in names}
    found |= {f"realm {realm}" for realm in realms & await _realms(view)}
    for resource in (*OURS, LEASES):
        namespace = "plattr-system" if resource is LEASES else view.namespace
        owned = await view.kube.list(resource, namespace, label_selector=f"{OWNER_NAMESPACE_LABEL}={view.namespace}")
        found |= {
            f"{resource.kind} {item['metadata']['name']}"
            for item in owned
            if item["metadata"]["labels"][OWNER_NAME_LABEL] in names
        }
    return found


async def _in_postgres(view: View, stems: list[str]) -> set[str]:
    roles = [f"{stem}_{role}" for stem in stems for role in ("app", "anon")]
    rows = await view.query(
        f"select nspname from pg_namespace where nspname = any(array{stems})"
        f" union select rolname from pg_roles where rolname = any(array{roles})"
    )
    return {row[0] for row in rows}


async def _in_redis(view: View, users: list[str]) -> set[str]:
    redis = Redis.from_url(view.platform.endpoints.redis_admin_url, decode_responses=True, protocol=2)
    async with redis:
        found = {f"user {user} of Redis" for user in await redis.acl_users() if user in users}
        for user in users:
            found |= {f"key {key}" async for key in redis.scan_iter(f"{user}:*")}
    return found


async def _realms(view: View) -> set[str]:
    endpoints = view.platform.endpoints
    login = {"grant_type": "password", "client_id": "admin-cli", "username": endpoints.keycloak_admin_user}
    async with httpx.AsyncClient(base_url=endpoints.keycloak_url, timeout=60, trust_env=False) as http:
        answer = await http.post(
            "/realms/master/protocol/openid-connect/token", data=login | {"password": endpoints.keycloak_admin_password}
        )
        http.headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['access_token']}"
        listed = await http.get("/admin/realms", params={"briefRepresentation": "true"})
        return {realm["realm"] for realm in listed.raise_for_status().json()}
