"""The workload: ServiceAccount, Deployment, Service, Ingresses, autoscaler."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

from temporalio import activity

from activities.clients.kube import KubeClient
from activities.clients.ledger import Ledger
from activities.clients.resources import (
    AUTOSCALERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    INGRESSES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Json,
    Resource,
)
from activities.loading import TargetLoader
from activities.ownership import (
    delete_all,
    ensure_adoptable,
    list_owned,
    living_uid,
    namespaces_of,
    owner_selector,
)
from activities.polling import moments
from plattr.claims import Holding, claims_of
from plattr.errors import Conflict, StillDeleting
from plattr.manifests.autoscaler import build_autoscaler
from plattr.manifests.checksum import config_checksum
from plattr.manifests.deployment import build_deployment
from plattr.manifests.ingress import build_api_ingress, build_ingress, ingress_profile
from plattr.manifests.metadata import FEATURE_LABEL
from plattr.manifests.pod import CONFIG_MAP_FEATURES, Placeholder, config_map_features
from plattr.manifests.service import build_service
from plattr.manifests.service_account import build_service_account
from plattr.objects import ObjectReference
from plattr.settings import Settings
from plattr.status import ConditionType, Finding
from plattr.steps import CleanupStepInput, StepInput, StepResult
from plattr.target import Target

# 20: pods get 30 s to end by default, most take less; the next attempt goes on waiting.
WAIT_SECONDS = 20.0

# The traffic first, then whoever makes pods, then what the pods use.
_REMOVAL_ORDER = (INGRESSES, AUTOSCALERS, DEPLOYMENTS, SERVICES, SERVICE_ACCOUNTS)
# Names that stand for nothing any more once the Ingresses are changed; data keeps its names until the cleanup.
_SERVING = frozenset({Holding.HOST, Holding.INGRESS})


@dataclass(frozen=True)
class _Wanted:
    """One object as the spec asks for it."""

    resource: Resource
    manifest: Json


class WorkloadActivities:
    """Keep and remove what runs and serves the application."""

    def __init__(self, loader: TargetLoader, kube: KubeClient, ledger: Ledger, settings: Settings) -> None:
        self._loader = loader
        self._kube = kube
        self._ledger = ledger
        self._settings = settings
        self._profile = ingress_profile(settings.ingress_profile, platform_namespace=settings.lease_namespace)

    @activity.defn
    async def reconcile_workload(self, step: StepInput) -> StepResult:
        """Bring the workload to what the spec asks for, and remove what it no longer asks for.

        The second run writes nothing. Replicas belong to the autoscaler, data to the other steps: the database
        Secret stays even when the database is switched off.

        Raises:
            OwnedElsewhere: one of the names is somebody else's; nothing has been written.
            Conflict: what the pods read at their start is not there (any more); nothing has been written.
        """
        target = await self._loader.load(step)
        checksum = await self._checksum(target)
        wanted = self._wanted(target, checksum)
        await self._ensure_all_adoptable(target, wanted)
        await self._apply(target, wanted)
        await self._remove_unwanted(target, wanted)
        await self._release_former_names(target)
        return StepResult(findings=(_ingress_finding(target),))

    @activity.defn
    async def delete_workload(self, step: CleanupStepInput) -> StepResult:
        """Remove the workload and wait until its pods are gone, since they hold sessions of the database.

        Missing things are success; what belongs to others stays.

        Raises:
            StillDeleting: pods still live.
        """
        spared = await living_uid(self._kube, step)
        namespaces = await namespaces_of(self._kube, step.reference)
        for namespace in namespaces:
            for resource in _REMOVAL_ORDER:
                found = await list_owned(self._kube, resource, step.reference, namespace)
                await delete_all(self._kube, resource, found, spared_uid=spared)
        # The pods of a living incarnation are the same Deployment's and go on.
        if spared is None:
            await self._await_no_pods(step.reference, namespaces)
        await self._release_hosts(step, spared)
        return StepResult()

    def _wanted(self, target: Target, checksum: str) -> list[_Wanted]:
        settings = self._settings
        placeholder = Placeholder(image=settings.placeholder_image, port=settings.placeholder_port)
        wanted = [
            _Wanted(SERVICE_ACCOUNTS, build_service_account(target, irsa_role_arn=settings.irsa_role_arn)),
            _Wanted(DEPLOYMENTS, build_deployment(target, placeholder=placeholder, checksum=checksum)),
            _Wanted(SERVICES, build_service(target)),
            _Wanted(INGRESSES, build_ingress(target, profile=self._profile, cluster_issuer=settings.cluster_issuer)),
            _Wanted(AUTOSCALERS, build_autoscaler(target)),
        ]
        if target.spec.database.enabled:
            wanted.append(_Wanted(INGRESSES, build_api_ingress(target, profile=self._profile)))
        return wanted

    async def _checksum(self, target: Target) -> str:
        """Read what the pods read at their start: the Secrets and ConfigMaps of their environment."""
        names = target.names
        secrets = [names.user_env] + ([names.database_secret] if target.spec.database.enabled else [])
        config_maps = {feature: names.config_map(feature) for feature in config_map_features(target)}
        found_secrets, found_maps = await _all_of(
            self._read(SECRETS, secrets, names.namespace),
            self._read(CONFIG_MAPS, [names.user_env, *config_maps.values()], names.namespace),
        )
        # What `plattr env set` or the user keeps in `{name}-env` is the user's own; the rest must be this owner's.
        for name in secrets[1:]:
            self._ensure_usable(target, SECRETS, name, found_secrets)
        for feature, name in config_maps.items():
            self._ensure_usable(target, CONFIG_MAPS, name, found_maps, is_optional=feature == "auth")
        return config_checksum(found_secrets.values(), found_maps.values())

    async def _read(self, resource: Resource, names: Sequence[str], namespace: str) -> dict[str, Json]:
        bodies = await _all_of(*(self._kube.get(resource, name, namespace) for name in names))
        return {name: body for name, body in zip(names, bodies, strict=True) if body is not None}

    def _ensure_usable(
        self, target: Target, resource: Resource, name: str, found: dict[str, Json], *, is_optional: bool = False
    ) -> None:
        if name not in found and not is_optional:
            raise Conflict(
                f"cannot apply Deployment {target.names.stem!r} in namespace {target.names.namespace!r}:"
                f" {resource.kind} {name!r} was removed since its step ran; the next run makes it again"
            )
        ensure_adoptable(resource, found.get(name), target.owner)

    async def _ensure_all_adoptable(self, target: Target, wanted: Sequence[_Wanted]) -> None:
        """Look at every name before the first write, so that a refusal leaves everything as it was."""
        namespace = target.names.namespace
        existing = await _all_of(
            *(self._kube.get(each.resource, each.manifest["metadata"]["name"], namespace) for each in wanted)
        )
        for each, body in zip(wanted, existing, strict=True):
            condition = ConditionType.INGRESS if each.resource is INGRESSES else None
            ensure_adoptable(each.resource, body, target.owner, condition=condition)

    async def _apply(self, target: Target, wanted: Sequence[_Wanted]) -> None:
        # Pods are refused while their ServiceAccount is missing, and the Deployment backs off then.
        first = [each for each in wanted if each.resource is SERVICE_ACCOUNTS]
        rest = [each for each in wanted if each.resource is not SERVICE_ACCOUNTS]
        for group in (first, rest):
            await _all_of(
                *(
                    self._kube.apply_owned(each.resource, each.manifest, target.owner, target.names.namespace)
                    for each in group
                )
            )

    async def _remove_unwanted(self, target: Target, wanted: Sequence[_Wanted]) -> None:
        """Remove the API Ingress and the ConfigMaps that nothing refers to any more."""
        reference, namespace = target.owner.reference, target.names.namespace
        ingresses, config_maps = await _all_of(
            list_owned(self._kube, INGRESSES, reference, namespace),
            list_owned(self._kube, CONFIG_MAPS, reference, namespace),
        )
        names = {each.manifest["metadata"]["name"] for each in wanted if each.resource is INGRESSES}
        gone_ingresses = [body for body in ingresses if body["metadata"]["name"] not in names]
        disabled = set(CONFIG_MAP_FEATURES) - set(config_map_features(target))
        gone_maps = [body for body in config_maps if body["metadata"]["labels"].get(FEATURE_LABEL) in disabled]
        await delete_all(self._kube, INGRESSES, gone_ingresses, spared_uid=None)
        await delete_all(self._kube, CONFIG_MAPS, gone_maps, spared_uid=None)

    async def _release_former_names(self, target: Target) -> None:
        """Give back the hosts from before the domain changed, and the API Ingress of a database switched off."""
        held = await self._ledger.held_by(target.owner.reference)
        needed = claims_of(target)
        former = [each.claim for each in held if each.claim.holding in _SERVING and each.claim not in needed]
        await self._ledger.release(target.owner.reference, former)

    async def _release_hosts(self, step: CleanupStepInput, spared: str | None) -> None:
        held = await self._ledger.held_by(step.reference, Holding.HOST)
        claims = [each.claim for each in held if spared is None or each.owner.uid != spared]
        await self._ledger.release(step.reference, claims)

    async def _await_no_pods(self, reference: ObjectReference, namespaces: Sequence[str]) -> None:
        living: list[str] = []
        async for _ in moments(WAIT_SECONDS):
            pods = [pod for namespace in namespaces for pod in await self._living_pods(reference, namespace)]
            living = sorted(pod["metadata"]["name"] for pod in pods)
            if not living:
                return
        shown = ", ".join(living[:3]) + (f" and {len(living) - 3} more" if len(living) > 3 else "")
        raise StillDeleting(f"cannot finish the deletion of the workload of {reference}: pods still live: {shown}")

    async def _living_pods(self, reference: ObjectReference, namespace: str) -> list[Json]:
        pods = await self._kube.list(PODS, namespace, label_selector=owner_selector(reference))
        # A pod that somebody made by hand with our labels is not the Deployment's; a finished one holds no session.
        return [
            pod
            for pod in pods
            if any(owner.get("controller") for owner in pod["metadata"].get("ownerReferences", []))
            and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        ]


async def _all_of(*calls: Awaitable[Any]) -> list[Any]:
    """Await all of them to their ends, then raise the first error: no write may go on behind a failed attempt."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _ingress_finding(target: Target) -> Finding:
    names = target.names
    paths = [names.url] + ([f"{names.url}/api/rest"] if target.spec.database.enabled else [])
    return Finding(
        type=ConditionType.INGRESS, status="True", reason="Applied", message=f"routes are set: {', '.join(paths)}"
    )
