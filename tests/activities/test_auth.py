import asyncio
import base64
import hashlib
import secrets
from typing import Any

import httpx
import pytest

from activities.auth import AuthActivities
from clients.claim_store import ClaimStore
from clients.kube import KubeClient
from clients.resources import CONFIG_MAPS, Json
from plattr.claims import Claim
from plattr.errors import OwnedElsewhere, PlattrError, ProviderCredentialsMissing, Transient
from plattr.features import ClaimKind, ConditionType
from plattr.objects import Kind
from plattr.realm import FINGERPRINT, OWNER_ATTRIBUTE, OWNER_UID_ATTRIBUTE
from plattr.settings import Settings
from tests.fix_keycloak import ISSUER_BASE, Administrator, Connect, Relay, Subjects
from tests.inputs import estate

VERIFIER = secrets.token_urlsafe(48)


async def open_login(
    administrator: Administrator, realm: str, redirect: str, *, with_pkce: bool = True
) -> httpx.Response:
    """Ask for a login page as the application's browser does."""
    challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
    query = {"client_id": f"{realm}-app", "redirect_uri": redirect, "response_type": "code", "scope": "openid"}
    if with_pkce:
        query |= {"code_challenge": challenge, "code_challenge_method": "S256"}
    return await administrator.http.get(f"/realms/{realm}/protocol/openid-connect/auth", params=query)


async def config_map(kube: KubeClient, subjects: Subjects, name: str) -> Json:
    found = await kube.get(CONFIG_MAPS, f"{name}-auth", subjects.namespace)
    assert found is not None
    return found


async def test_a_provisioned_realm_serves_logins_for_its_own_redirects_only(
    auth: AuthActivities, subjects: Subjects, administrator: Administrator, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name)

    result = await auth.reconcile_auth(subject.step)

    assert [(update.type, update.status, update.reason) for update in result.updates] == [
        (ConditionType.AUTH, "True", "Provisioned")
    ]
    discovery = await administrator.http.get(f"/realms/{realm_name}/.well-known/openid-configuration")
    assert discovery.status_code == 200
    host = f"https://{realm_name}.example.test"
    assert (await open_login(administrator, realm_name, f"{host}/callback")).status_code == 200
    assert (await open_login(administrator, realm_name, "https://evil.test/callback")).status_code == 400
    assert (await open_login(administrator, realm_name, f"{host}.evil.test/callback")).status_code == 400
    without_pkce = await open_login(administrator, realm_name, f"{host}/callback", with_pkce=False)
    assert "error=invalid_request" in without_pkce.headers["Location"]


async def test_a_provisioned_realm_is_closed(
    auth: AuthActivities, subjects: Subjects, administrator: Administrator, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name)

    await auth.reconcile_auth(subject.step)

    realm = await administrator.read(f"/{realm_name}")
    assert realm["registrationAllowed"] is False
    assert realm["bruteForceProtected"] is True
    assert realm["sslRequired"] == "external"
    assert realm["attributes"][OWNER_ATTRIBUTE] == subject.reference.key
    assert realm["attributes"][OWNER_UID_ATTRIBUTE] == subject.custom_object.metadata.uid
    login = {"grant_type": "password", "client_id": f"{realm_name}-app", "username": "x", "password": "x"}
    token = await administrator.http.post(f"/realms/{realm_name}/protocol/openid-connect/token", data=login)
    assert token.json()["error"] == "unauthorized_client"


async def test_the_config_map_carries_issuer_and_client(
    auth: AuthActivities, subjects: Subjects, auth_kube: KubeClient, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name)

    await auth.reconcile_auth(subject.step)

    held = await config_map(auth_kube, subjects, realm_name)
    assert held["data"] == {
        "AUTH_ISSUER_URL": f"{ISSUER_BASE}/realms/{realm_name}",
        "AUTH_CLIENT_ID": f"{realm_name}-app",
    }


async def test_second_reconcile_writes_nothing(
    auth: AuthActivities, subjects: Subjects, auth_kube: KubeClient, keycloak_relay: Relay, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name, providers=("google", "github"))
    first = await auth.reconcile_auth(subject.step)
    before = await config_map(auth_kube, subjects, realm_name)
    assert keycloak_relay.writes != []
    keycloak_relay.forget()

    second = await auth.reconcile_auth(subject.step)

    assert second == first
    assert keycloak_relay.writes == []
    after = await config_map(auth_kube, subjects, realm_name)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_a_new_realm_is_one_write(
    auth: AuthActivities, subjects: Subjects, keycloak_relay: Relay, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name)

    await auth.reconcile_auth(subject.step)

    assert keycloak_relay.writes == [("POST", "/admin/realms")]


async def test_a_new_domain_is_followed_and_the_old_redirect_refused(
    auth: AuthActivities, subjects: Subjects, administrator: Administrator, realm_name: str
) -> None:
    await auth.reconcile_auth((await subjects.apply(realm_name, domain=f"old-{realm_name}.test")).step)

    await auth.reconcile_auth((await subjects.apply(realm_name, domain=f"new-{realm_name}.test")).step)

    assert (await open_login(administrator, realm_name, f"https://new-{realm_name}.test/x")).status_code == 200
    assert (await open_login(administrator, realm_name, f"https://old-{realm_name}.test/x")).status_code == 400
    client = await administrator.client(realm_name, f"{realm_name}-app")
    assert client is not None
    assert client["webOrigins"] == [f"https://new-{realm_name}.test"]


async def test_drift_is_repaired_and_what_others_set_survives(
    auth: AuthActivities, subjects: Subjects, administrator: Administrator, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name)
    await auth.reconcile_auth(subject.step)
    realm = await administrator.read(f"/{realm_name}")
    by_hand: Json = {
        "registrationAllowed": True,
        "loginTheme": "keycloak",
        "smtpServer": {"host": "mail.example.test", "from": "shop@example.test"},
        "attributes": realm["attributes"] | {"frontendNote": "kept", OWNER_UID_ATTRIBUTE: "drifted"},
    }
    await administrator.send("PUT", f"/{realm_name}", by_hand)
    client = await administrator.client(realm_name, f"{realm_name}-app")
    assert client is not None
    changed = {**client, "directAccessGrantsEnabled": True, "redirectUris": ["*"], "consentRequired": True}
    await administrator.send("PUT", f"/{realm_name}/clients/{client['id']}", changed)

    await auth.reconcile_auth(subject.step)

    realm = await administrator.read(f"/{realm_name}")
    assert realm["registrationAllowed"] is False
    assert realm["attributes"][OWNER_UID_ATTRIBUTE] == subject.custom_object.metadata.uid
    assert realm["loginTheme"] == "keycloak"
    assert realm["smtpServer"]["host"] == "mail.example.test"
    assert realm["attributes"]["frontendNote"] == "kept"
    client = await administrator.client(realm_name, f"{realm_name}-app")
    assert client is not None
    assert client["directAccessGrantsEnabled"] is False
    assert client["redirectUris"] == [f"https://{realm_name}.example.test/*"]
    assert client["consentRequired"] is True
    assert client["attributes"]["pkce.code.challenge.method"] == "S256"


async def test_a_client_deleted_by_hand_comes_back(
    auth: AuthActivities, subjects: Subjects, administrator: Administrator, keycloak_relay: Relay, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name)
    await auth.reconcile_auth(subject.step)
    made = await administrator.client(realm_name, f"{realm_name}-app")
    assert made is not None
    await administrator.send("DELETE", f"/{realm_name}/clients/{made['id']}")

    await auth.reconcile_auth(subject.step)
    keycloak_relay.forget()
    await auth.reconcile_auth(subject.step)

    client = await administrator.client(realm_name, f"{realm_name}-app")
    assert client is not None
    # The same as one that came with its realm, but for attributes that Keycloak itself adds to single clients.
    assert client["attributes"].items() >= made["attributes"].items()
    assert client | {"id": "", "attributes": {}} == made | {"id": "", "attributes": {}}
    assert keycloak_relay.writes == []


async def test_the_same_owner_created_anew_adopts_its_realm(
    auth: AuthActivities, subjects: Subjects, administrator: Administrator, realm_name: str
) -> None:
    old = await subjects.apply(realm_name)
    await auth.reconcile_auth(old.step)
    await subjects.delete(old)
    new = await subjects.apply(realm_name)
    before = await administrator.read(f"/{realm_name}")

    await auth.reconcile_auth(new.step)

    after = await administrator.read(f"/{realm_name}")
    assert new.custom_object.metadata.uid != old.custom_object.metadata.uid
    assert after["id"] == before["id"]
    assert after["attributes"][OWNER_UID_ATTRIBUTE] == new.custom_object.metadata.uid


@pytest.mark.parametrize("attributes", [{}, {OWNER_ATTRIBUTE: "other/Application/shop"}], ids=["nobody", "another"])
@pytest.mark.parametrize("as_admin", [False, True], ids=["service-account", "admin"])
async def test_a_foreign_realm_is_never_adopted_nor_changed(
    connect_auth: Connect,
    platform: Any,
    subjects: Subjects,
    administrator: Administrator,
    keycloak_relay: Relay,
    realm_name: str,
    attributes: dict[str, str],
    as_admin: bool,
) -> None:
    client = {"clientId": f"{realm_name}-app", "redirectUris": ["https://theirs.test/*"]}
    foreign = {"realm": realm_name, "enabled": True, "attributes": attributes, "clients": [client]}
    await administrator.send("POST", "", foreign)
    before = await administrator.read(f"/{realm_name}")
    subject = await subjects.apply(realm_name, providers=("google",))
    login: dict[str, str | None] = {}
    if as_admin:
        endpoints = platform.endpoints
        login = {
            "keycloak_client_id": None,
            "keycloak_client_secret": None,
            "keycloak_admin_user": endpoints.keycloak_admin_user,
            "keycloak_admin_password": endpoints.keycloak_admin_password,
        }

    async with connect_auth(**login) as activities:
        with pytest.raises(OwnedElsewhere) as raised:
            await activities.reconcile_auth(subject.step)
        await activities.delete_auth(subject.cleanup())
        await activities.delete_auth(subject.cleanup(retain=True))

    assert subject.reference.key in str(raised.value)
    assert keycloak_relay.writes == []
    assert await administrator.read(f"/{realm_name}") == before


async def test_eight_concurrent_reconciles_end_in_one_realm_with_one_client(
    auth: AuthActivities, subjects: Subjects, administrator: Administrator, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name, providers=("google", "github"))

    results = await asyncio.gather(*(auth.reconcile_auth(subject.step) for _ in range(8)), return_exceptions=True)

    failures = [result for result in results if isinstance(result, BaseException)]
    assert len(failures) < len(results)
    assert [failure for failure in failures if not isinstance(failure, Transient)] == []
    await auth.reconcile_auth(subject.step)
    clients = await administrator.read(f"/{realm_name}/clients?clientId={realm_name}-app")
    assert len(clients) == 1
    assert sorted(await administrator.providers(realm_name)) == ["github", "google"]


async def test_a_provider_is_added_and_removed_with_the_spec(
    auth: AuthActivities, subjects: Subjects, administrator: Administrator, realm_name: str
) -> None:
    await auth.reconcile_auth((await subjects.apply(realm_name, providers=("google",))).step)
    by_hand = {"alias": "corporate", "providerId": "github", "config": {"clientId": "x", "clientSecret": "y"}}
    await administrator.send("POST", f"/{realm_name}/identity-provider/instances", by_hand)
    assert sorted(await administrator.providers(realm_name)) == ["corporate", "google"]

    await auth.reconcile_auth((await subjects.apply(realm_name, providers=("github",))).step)

    providers = await administrator.providers(realm_name)
    assert sorted(providers) == ["corporate", "github"]
    assert providers["github"]["config"]["clientId"] == "local-github-client"


async def test_missing_credentials_are_named_and_everything_else_is_made(
    connect_auth: Connect, subjects: Subjects, auth_kube: KubeClient, administrator: Administrator, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name, providers=("google", "github", "oidc"))

    async with connect_auth(idp_google_client_secret=None) as activities:
        with pytest.raises(ProviderCredentialsMissing) as raised:
            await activities.reconcile_auth(subject.step)

    for word in ("'google'", "IDP_GOOGLE_CLIENT_SECRET", "'oidc'", "IDP_OIDC_ISSUER_URL"):
        assert word in str(raised.value)
    assert "IDP_GITHUB" not in str(raised.value)
    assert sorted(await administrator.providers(realm_name)) == ["github"]
    assert await administrator.client(realm_name, f"{realm_name}-app") is not None
    assert (await config_map(auth_kube, subjects, realm_name))["data"]["AUTH_CLIENT_ID"] == f"{realm_name}-app"


async def test_a_new_provider_secret_is_sent_once_and_never_shown(
    connect_auth: Connect, subjects: Subjects, administrator: Administrator, keycloak_relay: Relay, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name, providers=("google",))
    old, new = secrets.token_hex(16), secrets.token_hex(16)
    async with connect_auth(idp_google_client_secret=old) as activities:
        await activities.reconcile_auth(subject.step)
    before = (await administrator.providers(realm_name))["google"]
    keycloak_relay.forget()

    async with connect_auth(idp_google_client_secret=new) as activities:
        await activities.reconcile_auth(subject.step)
        await activities.reconcile_auth(subject.step)

    after = (await administrator.providers(realm_name))["google"]
    path = f"/admin/realms/{realm_name}/identity-provider/instances/google"
    assert keycloak_relay.writes == [("PUT", path)]
    assert after["config"][FINGERPRINT] != before["config"][FINGERPRINT]
    assert after["internalId"] == before["internalId"]
    assert old not in str(after)
    assert new not in str(after)


async def test_oidc_and_saml_take_their_addresses_from_their_metadata(
    connect_auth: Connect,
    auth_settings: Settings,
    subjects: Subjects,
    administrator: Administrator,
    keycloak_relay: Relay,
    realm_name: str,
) -> None:
    issuer = f"{auth_settings.keycloak_url}/realms/master"
    credentials = {
        "idp_oidc_client_id": "shop",
        "idp_oidc_client_secret": secrets.token_hex(16),
        "idp_oidc_issuer_url": issuer,
        "idp_saml_issuer_url": f"{issuer}/protocol/saml/descriptor",
    }
    subject = await subjects.apply(realm_name, providers=("oidc", "saml"))

    async with connect_auth(**credentials) as activities:
        await activities.reconcile_auth(subject.step)
        keycloak_relay.forget()
        await activities.reconcile_auth(subject.step)

    assert [call for call in keycloak_relay.calls if call[0] != "GET"] == []
    providers = await administrator.providers(realm_name)
    assert providers["oidc"]["config"]["tokenUrl"] == f"{issuer}/protocol/openid-connect/token"
    assert providers["oidc"]["config"]["validateSignature"] == "true"
    assert providers["saml"]["config"]["singleSignOnServiceUrl"] == f"{issuer}/protocol/saml"
    assert providers["saml"]["config"]["validateSignature"] == "true"


async def test_a_preview_has_a_realm_of_its_own_and_takes_only_that_with_it(
    auth: AuthActivities,
    auth_settings: Settings,
    auth_kube: KubeClient,
    subjects: Subjects,
    administrator: Administrator,
    realm_name: str,
) -> None:
    parent = await subjects.apply(realm_name)
    await auth.reconcile_auth(parent.step)
    spec: Json = {"applicationRef": realm_name, "pullRequest": 7, "branch": "feature"}
    preview = await subjects.apply(f"{realm_name}-7", kind=Kind.PREVIEW, spec=spec)
    realm = f"{realm_name}-pr7"
    claim = Claim(kind=ClaimKind.REALM, name=realm)
    claim_store = ClaimStore(auth_kube, auth_settings.lease_namespace)
    await claim_store.acquire(preview.custom_object.owner, [claim])

    # Its ConfigMap has no namespace to go to, which the namespace step would have made before.
    with pytest.raises(PlattrError):
        await auth.reconcile_auth(preview.step)
    made = await administrator.read(f"/{realm}")
    await auth.delete_auth(preview.cleanup())
    await claim_store.release(estate(preview.reference), [claim])

    assert made["attributes"][OWNER_ATTRIBUTE] == preview.reference.key
    assert await administrator.read(f"/{realm}") is None
    assert await administrator.read(f"/{realm_name}") is not None
