"""The workload step: ServiceAccount, Deployment, Service, Ingresses and autoscaler."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from temporalio import activity

from activities.certificates import remove_certificate
from activities.loading import TargetLoader
from activities.ownership import (
    belongs_to,
    delete_all,
    ensure_adoptable,
    find_live_uid,
    namespaces_of,
    owner_selector,
    remove_owned,
)
from activities.polling import moments
from clients.checksum_key import ChecksumKey
from clients.claim_store import ClaimStore
from clients.concurrency import all_of
from clients.kube import KubeClient
from clients.resources import (
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
from plattr.claims import HeldClaim, claims_of, workload_claim
from plattr.connections import connections_of
from plattr.errors import Conflict, StillDeleting
from plattr.features import (
    ClaimKind,
    ConditionType,
    Feature,
    FeatureSecret,
    features_of,
    missing_features,
    secret_names,
)
from plattr.manifests.autoscaler import build_autoscaler
from plattr.manifests.checksum import CHECKSUM_ANNOTATION, config_checksum, summed
from plattr.manifests.deployment import build_deployment
from plattr.manifests.ingress import build_api_ingress, build_ingress, ingress_profile
from plattr.manifests.pod import Placeholder
from plattr.manifests.service import build_service
from plattr.manifests.service_account import build_service_account
from plattr.marks import estate_of
from plattr.objects import ObjectReference
from plattr.references import as_record, references_of, version_of
from plattr.settings import Settings
from plattr.status import ConditionUpdate
from plattr.steps import CleanupStepInput, StepInput, StepResult
from plattr.target import Target

# 20 s: pods have 30 s to end by default, and most take less. The next attempt continues to wait.
WAIT_SECONDS = 20.0

# Everything that serves an application. The traffic goes first, then what makes pods, then what the pods use.
_REMOVAL_ORDER = (INGRESSES, AUTOSCALERS, DEPLOYMENTS, SERVICES, SERVICE_ACCOUNTS)
# An owner has at most seven objects of a kind, a few kB together. More are copies of its labels: then read by name.
_FEW = 16
_FEW_BYTES = 2**18
# These names lead nowhere after the Ingresses change. Names of data stay claimed until the cleanup.
_SERVING = frozenset({ClaimKind.HOST, ClaimKind.INGRESS})


_REFERABLE = {SECRETS.kind: SECRETS, CONFIG_MAPS.kind: CONFIG_MAPS}


@dataclass(frozen=True)
class _Wanted:
    """One object as the spec asks for it."""

    resource: Resource
    manifest: Json

    @property
    def place(self) -> tuple[Resource, str]:
        """Return the kind and name that the object has in the target's namespace."""
        return self.resource, self.manifest["metadata"]["name"]


@dataclass(frozen=True)
class _Present:
    """What exists already under the relevant names, no matter who owns it, and what the owner has claimed."""

    found: dict[tuple[Resource, str], Json]
    held: list[HeldClaim]


class WorkloadActivities:
    """Reconcile and delete what runs and serves the application."""

    def __init__(self, loader: TargetLoader, kube: KubeClient, claim_store: ClaimStore, settings: Settings) -> None:
        self._loader = loader
        self._kube = kube
        self._claim_store = claim_store
        self._settings = settings
        self._key = ChecksumKey(kube, settings.lease_namespace)
        self._profile = ingress_profile(settings.ingress_profile, platform_namespace=settings.lease_namespace)

    @activity.defn
    async def reconcile_workload(self, step: StepInput) -> StepResult:
        """Bring the workload to its spec, and remove what the spec no longer asks for.

        A second run writes nothing. The autoscaler owns the replicas, and other steps own the data: the database Secret
        stays even when the database is switched off.

        Raises:
            OwnedElsewhere: one of the names belongs to another owner. Nothing of the workload has been written.
            Conflict: something that the pods read at their start is missing. Nothing of the workload has been written.
        """
        target = await self._loader.load(step)
        present, key = await asyncio.gather(self._look(target), self._key.read())
        await self._note_references(target, present)
        checksum = self._checksum(target, present, key)
        if checksum != _rolled_for(target, present):
            checksum = self._checksum(target, present, await self._key.read(refresh=True))
        wanted = self._wanted(target, checksum)
        self._ensure_all_adoptable(target, wanted, present)
        await self._apply(target, wanted, present)
        await self._remove_unwanted(target, present)
        return StepResult(updates=(_ingress_update(target),))

    @activity.defn
    async def delete_workload(self, step: CleanupStepInput) -> StepResult:
        """Remove the workload and wait until its pods are gone, because they hold database sessions.

        A missing object counts as removed; what belongs to others stays.

        Raises:
            StillDeleting: pods still live, a finalizer holds something, or cert-manager made something again.
        """
        live_uid = await find_live_uid(self._kube, step)
        estate = step.estate(self._kube.cluster)
        namespaces = await namespaces_of(self._kube, estate)
        await remove_owned(self._kube, estate, _REMOVAL_ORDER, live_uid=live_uid)
        # The pods of a live object come from the same Deployment, so they continue.
        if live_uid is None:
            await remove_certificate(self._kube, step.reference, cluster_issuer=self._settings.cluster_issuer)
            await self._await_no_pods(step.reference, namespaces)
        await self._release_hosts(step, live_uid)
        return StepResult()

    def _wanted(self, target: Target, checksum: str) -> list[_Wanted]:
        settings = self._settings
        placeholder = Placeholder(image=settings.placeholder_image, port=settings.placeholder_port)
        pool = connections_of(target.spec.scaling, settings).postgrest_pool
        deployment = build_deployment(target, placeholder=placeholder, checksum=checksum, postgrest_pool=pool)
        wanted = [
            _Wanted(SERVICE_ACCOUNTS, build_service_account(target, role_template=settings.irsa_role_arn_template)),
            _Wanted(DEPLOYMENTS, deployment),
            _Wanted(SERVICES, build_service(target)),
            _Wanted(INGRESSES, build_ingress(target, profile=self._profile, cluster_issuer=settings.asked_issuer)),
            _Wanted(AUTOSCALERS, build_autoscaler(target)),
        ]
        if target.spec.database.enabled:
            wanted.append(
                _Wanted(
                    INGRESSES, build_api_ingress(target, profile=self._profile, cluster_issuer=settings.asked_issuer)
                )
            )
        return wanted

    async def _look(self, target: Target) -> _Present:
        """Read everything the step depends on, concurrently: when nothing changed, these reads are most of the cost."""
        names = target.names
        own = {(SECRETS, name) for name in secret_names(names)}
        reads = self._reads(target)
        places = [
            (INGRESSES, names.api_ingress),
            *((resource, names.stem) for resource in _REMOVAL_ORDER),
        ]
        users = [place for place in reads if place not in own]
        config_maps = [names.config_map(feature.step) for feature in features_of(target) if feature.has_config_map]
        bodies, referred, kept_secrets, kept_maps, held = await asyncio.gather(
            all_of(self._kube.get(resource, name, names.namespace) for resource, name in places),
            all_of(self._summed(resource, name, names.namespace) for resource, name in users),
            self._owned(target, SECRETS, [place[1] for place in reads if place in own]),
            self._owned(target, CONFIG_MAPS, config_maps, former=_former_maps(target)),
            self._claim_store.held_by(estate_of(target.owner)),
        )
        looked = zip(places + users, bodies + referred, strict=True)
        found = {place: body for place, body in looked if body is not None}
        return _Present(found=found | kept_secrets | kept_maps, held=held)

    async def _summed(self, resource: Resource, name: str, namespace: str) -> Json | None:
        body = await self._kube.get(resource, name, namespace)
        return None if body is None else summed(body)

    async def _owned(
        self, target: Target, resource: Resource, names: list[str], *, former: Collection[str] = ()
    ) -> dict[tuple[Resource, str], Json]:
        """Return the objects of one kind that bear a name the owner should have, or may have had.

        One list replaces a call for each name, because most requests to the API server check settled objects.
        """
        namespace, selector = target.names.namespace, owner_selector(target.owner.reference)
        listed = await self._kube.list_small(resource, namespace, label_selector=selector, count=_FEW, size=_FEW_BYTES)
        # Read a needed object by name if the list lacks it: it may have lost its labels.
        sought = [*names, *former] if listed is None else names
        known = {body["metadata"]["name"]: body for body in listed or ()}
        found = {(resource, name): known[name] for name in (*names, *former) if name in known}
        for name in sought:
            if name not in known:
                body = await self._kube.get(resource, name, namespace)
                found |= {} if body is None else {(resource, name): body}
        return found

    def _reads(self, target: Target) -> list[tuple[Resource, str]]:
        """Return the Secrets and ConfigMaps to read by name: the user's own, and the Secrets that steps made."""
        found = dict.fromkeys((_REFERABLE[kind], name) for kind, name in references_of(target))
        for secret in self._secrets(target).values():
            found[SECRETS, secret.name(target.names)] = None
        return list(found)

    def _secrets(self, target: Target) -> dict[Feature, FeatureSecret]:
        """Return the Secrets that the steps of the target's features may have made on this platform."""
        secrets = {feature: feature.secret for feature in features_of(target) if feature.secret is not None}
        return {feature: secret for feature, secret in secrets.items() if secret.can_exist(self._settings)}

    def _checksum(self, target: Target, present: _Present, key: bytes) -> str:
        """Return the checksum of what the pods read at their start: the Secrets and ConfigMaps of their environment."""
        names = target.names
        # The user owns `{name}-env` and what the spec refers to. This object must own all others.
        places = self._reads(target)
        for feature, secret in self._secrets(target).items():
            is_optional = not _is_made(feature, secret, target, present)
            self._ensure_usable(target, present, SECRETS, secret.name(names), is_optional=is_optional)
        for feature in features_of(target):
            if feature.has_config_map:
                places.append((CONFIG_MAPS, names.config_map(feature.step)))
                self._ensure_usable(target, present, *places[-1], is_optional=not feature.blocks)
        bodies = [
            (resource, present.found[resource, name]) for resource, name in places if (resource, name) in present.found
        ]
        return config_checksum(
            [body for resource, body in bodies if resource is SECRETS],
            [body for resource, body in bodies if resource is CONFIG_MAPS],
            key,
        )

    def _ensure_usable(
        self, target: Target, present: _Present, resource: Resource, name: str, *, is_optional: bool = False
    ) -> None:
        body = present.found.get((resource, name))
        if body is None and not is_optional:
            raise Conflict(
                f"cannot apply Deployment {target.names.stem!r} in namespace {target.names.namespace!r}:"
                f" {resource.kind} {name!r} was removed since its step ran; the next run makes it again"
            )
        ensure_adoptable(resource, body, target.owner)

    def _ensure_all_adoptable(self, target: Target, wanted: Sequence[_Wanted], present: _Present) -> None:
        """Check every name before the first write, so that a refusal changes nothing."""
        for each in wanted:
            condition = ConditionType.INGRESS if each.resource is INGRESSES else None
            ensure_adoptable(each.resource, present.found.get(each.place), target.owner, condition=condition)

    async def _apply(self, target: Target, wanted: Sequence[_Wanted], present: _Present) -> None:
        # Apply the ServiceAccount first: without it pods are refused, and the Deployment backs off.
        first = [each for each in wanted if each.resource is SERVICE_ACCOUNTS]
        rest = [each for each in wanted if each.resource is not SERVICE_ACCOUNTS]
        for group in (first, rest):
            await all_of(
                self._kube.apply_over(
                    present.found.get(each.place),
                    each.resource,
                    each.manifest,
                    target.owner,
                    target.names.namespace,
                )
                for each in group
            )

    async def _remove_unwanted(self, target: Target, present: _Present) -> None:
        """Remove the API Ingress and the ConfigMaps that nothing refers to any more, and release their names.

        Hosts from before a change of the domain are released too.
        """
        estate, spec = estate_of(target.owner), target.spec
        former_maps = _former_maps(target)
        for (resource, name), body in present.found.items():
            is_former_api = resource is INGRESSES and name == target.names.api_ingress and not spec.database.enabled
            is_former_map = resource is CONFIG_MAPS and name in former_maps
            if (is_former_api or is_former_map) and belongs_to(body, estate):
                await delete_all(self._kube, resource, [body], live_uid=None)
        needed = claims_of(target)
        former = [each.claim for each in present.held if each.claim.kind in _SERVING and each.claim not in needed]
        await self._claim_store.release(estate, former)

    async def _note_references(self, target: Target, present: _Present) -> None:
        """Note which versions this run has read; a later check that finds another version requests a run.

        The note comes before the writes. A run that fails after the note is retried slowly, and reads everything again.
        With the note last, a Deployment that the API server refuses would never get a note, and would run every minute.
        """
        claim = workload_claim(target)
        versions = {
            (kind, name): version_of(present.found.get((_REFERABLE[kind], name)))
            for kind, name in references_of(target)
        }
        record = as_record(versions)
        if any(each.claim == claim and each.references != record for each in present.held):
            await self._claim_store.note_references(estate_of(target.owner), claim, record)

    async def _release_hosts(self, step: CleanupStepInput, live_uid: str | None) -> None:
        estate = step.estate(self._kube.cluster)
        held = await self._claim_store.held_by(estate, ClaimKind.HOST)
        claims = [each.claim for each in held if live_uid is None or each.owner.uid != live_uid]
        await self._claim_store.release(estate, claims)

    async def _await_no_pods(self, reference: ObjectReference, namespaces: Sequence[str]) -> None:
        living: list[str] = []
        async for _ in moments(WAIT_SECONDS):
            living = sorted([pod for each in namespaces for pod in await self._living_pods(reference, each)])
            if not living:
                return
        shown = ", ".join(living[:3]) + (f" and {len(living) - 3} more" if len(living) > 3 else "")
        raise StillDeleting(f"cannot finish the deletion of the workload of {reference}: pods still live: {shown}")

    async def _living_pods(self, reference: ObjectReference, namespace: str) -> list[str]:
        """Return the names of the living pods; a finished pod holds no session."""
        pages = self._kube.pages(
            PODS,
            namespace,
            label_selector=owner_selector(reference),
            field_selector="status.phase!=Succeeded,status.phase!=Failed",
            metadata_only=True,
        )
        # A pod that somebody made by hand with these labels does not belong to the Deployment.
        return [
            str(pod["metadata"]["name"])
            async for page in pages
            for pod in page.items
            if any(owner.get("controller") for owner in pod["metadata"].get("ownerReferences", []))
        ]


def _is_made(feature: Feature, secret: FeatureSecret, target: Target, present: _Present) -> bool:
    """Tell whether the feature's step made its Secret; a missing ConfigMap is refused elsewhere."""
    if not feature.has_config_map:
        return True
    body = present.found.get((CONFIG_MAPS, target.names.config_map(feature.step)))
    return body is not None and secret.is_made(body.get("data", {}))


def _rolled_for(target: Target, present: _Present) -> str | None:
    """Return the checksum that the pods have now."""
    deployment = present.found.get((DEPLOYMENTS, target.names.stem), {})
    template = deployment.get("spec", {}).get("template", {}).get("metadata", {})
    checksum: str | None = template.get("annotations", {}).get(CHECKSUM_ANNOTATION)
    return checksum


def _former_maps(target: Target) -> frozenset[str]:
    """Return the names of the ConfigMaps of the features that are not enabled."""
    disabled = [feature for feature in missing_features(target) if feature.has_config_map]
    return frozenset(target.names.config_map(feature.step) for feature in disabled)


def _ingress_update(target: Target) -> ConditionUpdate:
    names = target.names
    paths = [names.url] + ([f"{names.url}/api/rest"] if target.spec.database.enabled else [])
    return ConditionUpdate(
        type=ConditionType.INGRESS, status="True", reason="Applied", message=f"routes are set: {', '.join(paths)}"
    )
