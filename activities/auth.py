"""The auth step: a Keycloak realm with one public client, its identity providers, and their ConfigMap."""

import asyncio
import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

from temporalio import activity

from activities.loading import TargetLoader
from activities.ownership import find_live_uid, remove_owned
from activities.polling import moments
from clients.claim_store import ClaimStore
from clients.keycloak import KeycloakClient, OutcomeUnknown
from clients.kube import KubeClient
from clients.resources import CONFIG_MAPS, Json
from plattr import realm as realms
from plattr.claims import Claim
from plattr.errors import BackendRefused, Conflict, ProviderCredentialsMissing, StillDeleting
from plattr.features import ClaimKind, ConditionType
from plattr.manifests.config_map import build_config_map
from plattr.manifests.metadata import FEATURE_LABEL
from plattr.marks import Estate, ensure_own, estate_of
from plattr.naming import possible_realms
from plattr.objects import ObjectReference
from plattr.settings import ProviderCredentials, Settings
from plattr.spec import Provider
from plattr.status import ConditionUpdate
from plattr.steps import CleanupStepInput, StepInput, StepResult
from plattr.target import Target

Outcome = TypeVar("Outcome")

FEATURE = "auth"

# 10 s: a deletion rarely takes longer than its call. The next attempt continues to wait.
ABSENCE_SECONDS = 10.0
# 20 s: a third of the activity's start-to-close; the workflow calls again.
WAIT_SECONDS = 20.0


class AuthActivities:
    """Create and remove realms; leave alone what others configured there, such as a theme."""

    def __init__(
        self,
        loader: TargetLoader,
        kube: KubeClient,
        keycloak: KeycloakClient,
        claim_store: ClaimStore,
        settings: Settings,
    ) -> None:
        self._loader = loader
        self._kube = kube
        self._keycloak = keycloak
        self._claim_store = claim_store
        self._settings = settings

    @activity.defn
    async def reconcile_auth(self, step: StepInput) -> StepResult:
        """Bring realm, client, ConfigMap and identity providers to the spec; write only what differs.

        Raises:
            OwnedElsewhere: the realm exists and is not this object's.
            BackendRefused: the object made the realm, and Keycloak no longer shows it to Plattr's account.
            ProviderCredentialsMissing: a provider without credentials was left out; everything else is in place.
        """
        target = await self._loader.load(step)
        providers = await self._reconcile_realm(target)
        issuer = f"{self._settings.issuer_base}/realms/{target.names.realm}"
        values = {"AUTH_ISSUER_URL": issuer, "AUTH_CLIENT_ID": target.names.client_id}
        config_map = build_config_map(target, FEATURE, values)
        # Write the ConfigMap before the providers: the application can start without providers, not without its issuer.
        await self._kube.apply_owned(CONFIG_MAPS, config_map, target.owner, target.names.namespace)
        await self._reconcile_providers(target, providers)
        return StepResult(
            updates=(
                ConditionUpdate(
                    type=ConditionType.AUTH,
                    status="True",
                    reason="Provisioned",
                    message=f"realm {target.names.realm!r} is served at {issuer}",
                ),
            )
        )

    @activity.defn
    async def delete_auth(self, step: CleanupStepInput) -> StepResult:
        """Delete the owner's realms and ConfigMap, or only disable the realms when they are retained.

        A lost call may still create or delete a realm later. The deletion does not wait for it: `release_object` puts
        the realm's name into quarantine, and the cleanup looks again when the quarantine ends.

        Raises:
            StillDeleting: Keycloak has not finished yet, or a finalizer holds the ConfigMap.
            BackendRefused: Keycloak no longer shows a realm that the owner made.
        """
        estate = step.estate(self._kube.cluster)
        held = await self._claim_store.held_by(estate, ClaimKind.REALM)
        made = {claim.claim.name for claim in held if claim.may_be_made}
        given_back = {claim.claim.name for claim in held if claim.quarantined_until is not None}
        live_uid = await find_live_uid(self._kube, step)
        for name in sorted({claim.claim.name for claim in held} | set(possible_realms(step.reference))):
            realm = await self._keycloak.get_realm(name)
            if realm is not None and name in made:
                _ensure_visible(realm, step.reference)
            mark = realms.mark_of(realm) if realm is not None else None
            if realm is None or mark is None or not estate.holds(mark) or mark.uid == live_uid:
                continue
            is_retained = step.retains(ClaimKind.REALM, name) and name not in given_back
            await self._remove_realm(estate, realm, is_retained=is_retained)
        labels = {FEATURE_LABEL: FEATURE}
        await remove_owned(self._kube, estate, [CONFIG_MAPS], live_uid=live_uid, labels=labels)
        return StepResult() if live_uid is not None else await self._await_late_calls(step)

    async def _reconcile_realm(self, target: Target) -> list[Json]:
        """Bring realm and client to the spec; return the identity providers as they were found."""
        wanted_realm, wanted_client = realms.build_realm(target), realms.build_client(target)
        found = await self._find(target)
        if found is None:
            # Create both in one call, so that no realm exists without its client.
            async with self._claim_store.track_call(estate_of(target.owner), _claim_of(target)) as call:
                call.is_made = await self._keycloak.create_realm({**wanted_realm, "clients": [wanted_client]})
            if call.is_made:
                return []
            found = await self._find(target)
        if found is None:
            raise Conflict(f"cannot create realm {target.names.realm!r}: somebody else made and removed it meanwhile")
        realm, client, providers = found
        await self._check_holder(target, realm)
        if fields := realms.changes(realm, wanted_realm):
            await self._keycloak.update_realm(target.names.realm, fields)
        if client is None:
            if not await self._keycloak.create_client(target.names.realm, wanted_client):
                raise _appeared(f"client {target.names.client_id!r}", target.names.realm)
        elif fields := realms.changes(client, wanted_client):
            await self._keycloak.update_client(target.names.realm, client, fields)
        return providers

    async def _find(self, target: Target) -> tuple[Json, Json | None, list[Json]] | None:
        found = await self._keycloak.get_realm(target.names.realm)
        if found is None:
            return None
        # Await both calls even if one fails, so that no call outlives a failed attempt.
        client, providers = await asyncio.gather(
            self._keycloak.find_client(target.names.realm, target.names.client_id),
            self._keycloak.list_providers(target.names.realm),
            return_exceptions=True,
        )
        return found, _result(client), _result(providers)

    async def _check_holder(self, target: Target, realm: Json) -> None:
        estate, mark = estate_of(target.owner), realms.mark_of(realm)
        if estate.holds(mark):
            return
        for held in await self._claim_store.held_by(estate, ClaimKind.REALM):
            # Keycloak may show a new realm with a delay.
            if held.claim == _claim_of(target) and held.may_be_made:
                _ensure_visible(realm, estate.reference)
        ensure_own(f"realm {target.names.realm!r}", mark, target.owner)

    async def _reconcile_providers(self, target: Target, providers: Iterable[Json]) -> None:
        existing = {provider["alias"]: provider for provider in providers}
        for alias, found in existing.items():
            is_ours = realms.FINGERPRINT in found.get("config", {})
            if is_ours and alias not in target.spec.auth.providers:
                await self._keycloak.delete_provider(target.names.realm, alias)
        missing = []
        # Keep the order of the enum: providers that need only Keycloak come before those whose server it has to ask.
        for provider in (provider for provider in Provider if provider in target.spec.auth.providers):
            credentials = self._settings.provider_credentials(provider)
            if credentials is None:
                missing.append(provider)
            else:
                await self._reconcile_provider(target.names.realm, provider, credentials, existing.get(provider))
        if missing:
            raise _missing_credentials(target, missing)

    async def _reconcile_provider(
        self, realm: str, provider: Provider, credentials: ProviderCredentials, existing: Json | None
    ) -> None:
        wanted = realms.build_provider(provider, credentials)
        if existing is not None and not realms.changes(existing, wanted):
            return
        config = dict(existing["config"]) if existing else {}
        if provider in realms.DISCOVERED:
            config |= await self._discover(realm, provider, credentials)
        if provider is not Provider.SAML:
            config["clientSecret"] = credentials.client_secret.get_secret_value()
        representation = {**(existing or {}), **wanted, "config": config | wanted["config"]}
        if existing is not None:
            await self._keycloak.update_provider(realm, representation)
        elif not await self._keycloak.create_provider(realm, representation):
            raise _appeared(f"identity provider {provider.value!r}", realm)

    async def _discover(self, realm: str, provider: Provider, credentials: ProviderCredentials) -> dict[str, str]:
        url = realms.metadata_url(provider, credentials)
        config = await self._keycloak.discover_provider(realm, provider, url)
        if provider is Provider.SAML and not config.get("signingCertificate"):
            raise BackendRefused(
                f"cannot trust identity provider {provider.value!r} in realm {realm!r}: its metadata at {url!r} hold"
                " no signing certificate; set IDP_SAML_ISSUER_URL to metadata that do"
            )
        return config

    async def _remove_realm(self, estate: Estate, realm: Json, *, is_retained: bool) -> None:
        name = realm["realm"]
        if is_retained:
            if realm["enabled"]:
                await self._keycloak.update_realm(name, {"enabled": False})
            return
        async with self._claim_store.track_call(estate, Claim(kind=ClaimKind.REALM, name=name)):
            # A deletion can outlast any timeout and still succeed. So the realm's absence decides, not the answer.
            with contextlib.suppress(OutcomeUnknown):
                await self._keycloak.delete_realm(name)
            async for _ in moments(ABSENCE_SECONDS):
                if await self._keycloak.get_realm(name) is None:
                    return
            raise StillDeleting(f"cannot finish deleting realm {name!r}: Keycloak is still at it")

    async def _await_late_calls(self, step: CleanupStepInput) -> StepResult:
        """Wait for lost calls about retained realms: such a call could still create a realm, which would be open.

        The claims of retained realms stay, so no quarantine makes anybody look at them later. The result says not done
        while such a call may still take effect. The next call looks at the realms again.
        """
        held = await self._claim_store.held_by(step.estate(self._kube.cluster), ClaimKind.REALM)
        ends = {
            each.claim.name: each.unanswered_until
            for each in held
            if each.unanswered_until
            and each.quarantined_until is None
            and step.retains(ClaimKind.REALM, each.claim.name)
        }
        now = datetime.now(UTC)
        late = {name: end for name, end in ends.items() if end > now}
        if not late:
            return StepResult()
        end = max(late.values())
        async for _ in moments(min(WAIT_SECONDS, (end - now).total_seconds())):
            pass
        names = ", ".join(repr(name) for name in sorted(late))
        return StepResult(
            is_done=False,
            waiting_for=f"realm {names}: a call was never answered and may come true until {end:%H:%M:%S} UTC",
        )


def _result(outcome: Outcome | BaseException) -> Outcome:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _claim_of(target: Target) -> Claim:
    return Claim(kind=ClaimKind.REALM, name=target.names.realm)


def _ensure_visible(realm: Json, reference: ObjectReference) -> None:
    """Return when Keycloak shows who owns the realm.

    An account that was deleted and created again has no rights in the realms of its predecessor. To this account all of
    these realms look foreign.
    """
    if not realms.is_visible(realm):
        raise BackendRefused(
            f"cannot tell whose realm {realm['realm']!r} is: {reference} made it, and Keycloak does not show it to"
            f" this account any more; give the account the role manage-realm in it again, or, if it is another realm"
            f" by now, remove Lease {Claim(kind=ClaimKind.REALM, name=realm['realm']).lease_name!r}"
        )


def _appeared(what: str, realm: str) -> Conflict:
    # Do not compare it with the spec here: the next attempt reads it like everything else.
    return Conflict(f"cannot create {what} in realm {realm!r}: it appeared meanwhile")


def _missing_credentials(target: Target, providers: list[Provider]) -> ProviderCredentialsMissing:
    settings = ", ".join(name for provider in providers for name in _setting_names(provider))
    names = " and ".join(repr(provider.value) for provider in providers)
    return ProviderCredentialsMissing(
        f"cannot add identity provider {names} to realm {target.names.realm!r}: the platform has no credentials for"
        f" it; set {settings} for the worker"
    )


def _setting_names(provider: Provider) -> list[str]:
    prefix = f"IDP_{provider.upper()}"
    if provider is Provider.SAML:
        return [f"{prefix}_ISSUER_URL"]
    names = [f"{prefix}_CLIENT_ID", f"{prefix}_CLIENT_SECRET"]
    return [*names, f"{prefix}_ISSUER_URL"] if provider is Provider.OIDC else names
