"""What Keycloak answers on a bad day; the answers of traps C1 and C2 among them."""

import asyncio
import secrets
import time
import traceback

import pytest
from aiohttp import web

from activities.auth import AuthActivities
from clients import fence
from clients.claim_store import ClaimStore
from clients.keycloak import KeycloakClient
from plattr.backends import NothingPending
from plattr.claims import Claim
from plattr.errors import (
    BackendRefused,
    BackendUnavailable,
    Conflict,
    FencedOff,
    OwnedElsewhere,
    PlattrError,
    Transient,
)
from plattr.features import ClaimKind
from plattr.settings import Settings
from tests.fix_keycloak import TOKEN_PATH, Administrator, Connect, Fault, Relay, Subject, Subjects

CREATE = r"/admin/realms$"
TAKEN = {"errorMessage": "Realm acme already exists"}
RACED = {"errorMessage": "Database operation failed"}


def unseen(realm: str) -> Fault:
    """Let the first look at a realm find nothing, as before somebody else made it."""
    return Fault("GET", f"/{realm}$", status=404, body={"error": "Realm not found."})


@pytest.mark.parametrize(
    "answer",
    [None, Fault("POST", CREATE, status=409, body=TAKEN), Fault("POST", CREATE, status=400, body=RACED)],
    ids=["real-409", "409", "400-of-h2"],
)
async def test_a_realm_that_appears_meanwhile_and_is_ours_is_taken(
    auth: AuthActivities,
    subjects: Subjects,
    administrator: Administrator,
    keycloak_relay: Relay,
    realm_name: str,
    answer: Fault | None,
) -> None:
    subject = await subjects.apply(realm_name)
    await auth.reconcile_auth(subject.step)
    before = await administrator.read(f"/{realm_name}")
    keycloak_relay.forget()
    keycloak_relay.faults += [unseen(realm_name), *([answer] if answer else [])]

    await auth.reconcile_auth(subject.step)

    assert keycloak_relay.writes == [("POST", "/admin/realms")]
    assert await administrator.read(f"/{realm_name}") == before


async def test_a_realm_that_appears_meanwhile_and_is_foreign_is_refused(
    auth: AuthActivities, subjects: Subjects, administrator: Administrator, keycloak_relay: Relay, realm_name: str
) -> None:
    await administrator.send("POST", "", {"realm": realm_name, "enabled": True})
    subject = await subjects.apply(realm_name)
    keycloak_relay.faults.append(unseen(realm_name))

    with pytest.raises(OwnedElsewhere):
        await auth.reconcile_auth(subject.step)

    assert keycloak_relay.writes == [("POST", "/admin/realms")]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, BackendRefused),
        (403, BackendRefused),
        (409, Conflict),
        (429, NothingPending),
        (500, NothingPending),
    ],
)
async def test_a_create_that_fails_without_a_realm_says_why(
    auth: AuthActivities,
    subjects: Subjects,
    keycloak_relay: Relay,
    realm_name: str,
    status: int,
    expected: type[PlattrError],
) -> None:
    subject = await subjects.apply(realm_name)
    keycloak_relay.faults.append(Fault("POST", CREATE, status=status, body={"errorMessage": "because of the test"}))

    with pytest.raises(expected, match="because of the test") as raised:
        await auth.reconcile_auth(subject.step)

    assert type(raised.value) is expected


async def test_losing_a_race_before_the_winner_can_be_seen_is_a_conflict(
    auth: AuthActivities, subjects: Subjects, keycloak_relay: Relay, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name)
    keycloak_relay.faults.append(Fault("POST", CREATE, status=400, body=RACED))

    with pytest.raises(Conflict):
        await auth.reconcile_auth(subject.step)


async def test_a_client_that_appears_meanwhile_is_a_conflict_and_then_taken(
    auth: AuthActivities, subjects: Subjects, administrator: Administrator, keycloak_relay: Relay, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name)
    await auth.reconcile_auth(subject.step)
    keycloak_relay.faults.append(Fault("GET", "/clients$", status=200, body=[]))

    with pytest.raises(Conflict):
        await auth.reconcile_auth(subject.step)
    await auth.reconcile_auth(subject.step)

    assert len(await administrator.read(f"/{realm_name}/clients?clientId={realm_name}-app")) == 1


async def test_a_create_answered_too_late_ends_in_one_realm_with_one_client(
    connect_auth: Connect, subjects: Subjects, administrator: Administrator, keycloak_relay: Relay, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name)
    keycloak_relay.faults.append(Fault("POST", CREATE, late_seconds=4))

    async with connect_auth(seconds=3.0) as activities:
        with pytest.raises(BackendUnavailable):
            await activities.reconcile_auth(subject.step)
    async with connect_auth() as activities:
        await activities.reconcile_auth(subject.step)

    # No hidden second POST by the library either.
    assert keycloak_relay.writes == [("POST", "/admin/realms")]
    assert len(await administrator.read(f"/{realm_name}/clients?clientId={realm_name}-app")) == 1


@pytest.mark.parametrize("lost", range(6), ids=lambda index: f"write-{index}")
async def test_a_crash_after_any_write_is_mended_by_the_next_run(
    auth: AuthActivities,
    subjects: Subjects,
    administrator: Administrator,
    keycloak_relay: Relay,
    realm_name: str,
    lost: int,
) -> None:
    # The second spec changes all there is: realm by hand, client, one provider goes, one comes.
    await auth.reconcile_auth((await subjects.apply(realm_name, providers=("google",))).step)
    await administrator.send("PUT", f"/{realm_name}", {"registrationAllowed": True})
    subject = await subjects.apply(realm_name, domain=f"{realm_name}.test", providers=("github",))
    keycloak_relay.forget()
    keycloak_relay.faults.append(Fault("PUT|POST|DELETE", r"/admin/", is_lost=True, skip=lost))

    crashed = False
    try:
        await auth.reconcile_auth(subject.step)
    except BackendUnavailable:
        crashed = True
    await auth.reconcile_auth(subject.step)

    # Four writes: PUT realm, PUT client, DELETE google, POST github.
    assert crashed == (lost < 4)
    assert len(keycloak_relay.writes) == 4
    keycloak_relay.forget()
    await auth.reconcile_auth(subject.step)
    assert keycloak_relay.writes == []
    assert (await administrator.read(f"/{realm_name}"))["registrationAllowed"] is False
    assert sorted(await administrator.providers(realm_name)) == ["github"]


async def is_reconciled(activities: AuthActivities, subject: Subject) -> bool:
    try:
        await activities.reconcile_auth(subject.step)
    except BackendRefused as error:
        assert "cannot tell whose realm" in str(error)  # noqa: PT017  any other refusal is a failure
        return False
    return True


async def test_a_keycloak_that_goes_and_comes_back_is_unavailable_and_nothing_else(
    auth_settings: Settings,
    connect_auth: Connect,
    auth_claims: ClaimStore,
    subjects: Subjects,
    administrator: Administrator,
    realm_name: str,
) -> None:
    relay = Relay(auth_settings.keycloak_url)
    await relay.start()
    subject = await subjects.apply(realm_name, providers=("google", "github"))
    await auth_claims.acquire(subject.custom_object.owner, [Claim(kind=ClaimKind.REALM, name=realm_name)])
    async with connect_auth(keycloak_url=relay.url) as activities:
        runs = [asyncio.create_task(activities.reconcile_auth(subject.step)) for _ in range(4)]
        await asyncio.sleep(0.1)

        await relay.stop()
        results = [*await asyncio.gather(*runs, return_exceptions=True)]
        results += await asyncio.gather(activities.reconcile_auth(subject.step), return_exceptions=True)
        await relay.start()
        # What Keycloak answers while it starts.
        relay.faults.append(Fault("GET|POST", "/", status=503, times=3))
        results += await asyncio.gather(activities.reconcile_auth(subject.step), return_exceptions=True)
        await asyncio.sleep(0.1)
        relay.forget()
        # Seen once: a realm that Keycloak made while four asked for it, it showed to its maker only later.
        async with asyncio.timeout(30):
            while not await is_reconciled(activities, subject):
                await asyncio.sleep(0.5)
    await relay.stop()

    errors = [result for result in results if isinstance(result, BaseException)]
    assert len(errors) >= 5
    assert {type(error) for error in errors if not isinstance(error, BackendUnavailable)} == set()
    assert await administrator.client(realm_name, f"{realm_name}-app") is not None


async def test_a_revoked_token_is_replaced_within_the_call(
    auth: AuthActivities, subjects: Subjects, keycloak_relay: Relay, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name)
    keycloak_relay.faults.append(Fault("POST", CREATE, status=401, body={"error": "HTTP 401 Unauthorized"}))

    await auth.reconcile_auth(subject.step)

    assert ("POST", TOKEN_PATH) in keycloak_relay.calls
    assert keycloak_relay.writes == [("POST", "/admin/realms")] * 2


async def test_concurrent_calls_share_one_login(
    connect_auth: Connect, subjects: Subjects, keycloak_relay: Relay, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name)

    async with connect_auth() as activities:
        await asyncio.gather(*(activities.delete_auth(subject.cleanup()) for _ in range(8)))

    assert keycloak_relay.calls.count(("POST", TOKEN_PATH)) == 1


async def test_an_admin_user_can_log_in_instead_of_the_service_account(
    connect_auth: Connect, platform: object, subjects: Subjects, administrator: Administrator, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name)

    async with connect_auth(**admin_login(platform)) as activities:
        await activities.reconcile_auth(subject.step)

    assert await administrator.read(f"/{realm_name}") is not None


def admin_login(platform: object, **changes: str) -> dict[str, str | None]:
    endpoints = platform.endpoints  # type: ignore[attr-defined]
    return {
        "keycloak_client_id": None,
        "keycloak_client_secret": None,
        "keycloak_admin_user": endpoints.keycloak_admin_user,
        "keycloak_admin_password": endpoints.keycloak_admin_password,
    } | changes


async def test_after_its_lease_an_attempt_sends_no_write(
    auth: AuthActivities, subjects: Subjects, keycloak_relay: Relay, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name)
    token = fence.lease.set(fence.Lease(time.monotonic() - 1))
    try:
        with pytest.raises(FencedOff):
            await auth.reconcile_auth(subject.step)
    finally:
        fence.lease.reset(token)

    assert keycloak_relay.writes == []


async def test_wrong_credentials_are_refused_without_telling_them(
    connect_auth: Connect, platform: object, subjects: Subjects, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name)
    wrong = secrets.token_hex(16)

    for login in ({"keycloak_client_secret": wrong}, admin_login(platform, keycloak_admin_password=wrong)):
        async with connect_auth(**login) as activities:
            with pytest.raises(BackendRefused, match="KEYCLOAK_") as raised:
                await activities.reconcile_auth(subject.step)

        assert wrong not in "".join(traceback.format_exception(raised.value))


FAULTS = {
    "login-refused": Fault("POST", TOKEN_PATH, status=401, body={"error": "unauthorized_client"}),
    "login-without-token": Fault("POST", TOKEN_PATH, status=200, body={"surprise": True}),
    "login-lost": Fault("POST", TOKEN_PATH, is_lost=True),
    "login-busy": Fault("POST", TOKEN_PATH, status=503),
    "read-lost": Fault("GET", "/admin/", is_lost=True),
    "read-moved": Fault("GET", "/admin/", status=302, headers={"Location": "/elsewhere"}, body=""),
    "create-lost": Fault("POST", CREATE, is_lost=True),
    "create-refused": Fault("POST", CREATE, status=403, body={"error": "HTTP 403 Forbidden"}),
    "token-refused": Fault("POST", CREATE, status=401, times=9),
    "provider-lost": Fault("POST", "/instances$", is_lost=True),
    "provider-refused": Fault("POST", "/instances$", status=400, body={"errorMessage": "no"}),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_no_failure_tells_a_secret(
    connect_auth: Connect,
    auth_settings: Settings,
    subjects: Subjects,
    keycloak_relay: Relay,
    realm_name: str,
    fault: Fault,
) -> None:
    subject = await subjects.apply(realm_name, providers=("google",))
    keycloak_relay.faults.append(Fault(**vars(fault)))
    assert auth_settings.keycloak_client_secret is not None
    assert auth_settings.idp_google_client_secret is not None

    async with connect_auth() as activities:
        with pytest.raises(PlattrError) as raised:
            await activities.reconcile_auth(subject.step)
        token = activities._keycloak._transport._token

    text = "".join(traceback.format_exception(raised.value))
    hidden = [
        auth_settings.keycloak_client_secret.get_secret_value(),
        auth_settings.idp_google_client_secret.get_secret_value(),
        *([token] if token else []),
        "Bearer",
    ]
    assert [secret for secret in hidden if secret in text] == []
    assert "\n" not in str(raised.value)


async def test_a_server_that_is_down_is_unavailable(auth_settings: Settings) -> None:
    # Nothing listens on port 1.
    settings = Settings(**auth_settings.model_dump() | {"keycloak_url": "http://127.0.0.1:1"})
    keycloak = KeycloakClient.connect(settings)

    with pytest.raises(BackendUnavailable, match=r"http://127\.0\.0\.1:1"):
        await keycloak.get_realm("any")

    await keycloak.close()


async def test_a_provider_whose_metadata_cannot_be_had_does_not_stop_the_others(
    connect_auth: Connect, subjects: Subjects, administrator: Administrator, realm_name: str
) -> None:
    subject = await subjects.apply(realm_name, providers=("oidc", "google"))
    credentials = {
        "idp_oidc_client_id": "shop",
        "idp_oidc_client_secret": secrets.token_hex(16),
        "idp_oidc_issuer_url": "http://127.0.0.1:1",
    }

    async with connect_auth(**credentials) as activities:
        with pytest.raises(Transient, match="oidc"):
            await activities.reconcile_auth(subject.step)

    assert sorted(await administrator.providers(realm_name)) == ["google"]


async def test_saml_metadata_without_a_signing_certificate_are_refused(
    connect_auth: Connect, subjects: Subjects, administrator: Administrator, realm_name: str
) -> None:
    metadata = """<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="https://idp.test">
      <md:IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">
        <md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="https://idp.test/s"/>
      </md:IDPSSODescriptor></md:EntityDescriptor>"""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=metadata, content_type="application/xml")

    runner = web.ServerRunner(web.Server(serve, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/metadata"
    subject = await subjects.apply(realm_name, providers=("saml",))

    async with connect_auth(idp_saml_issuer_url=url) as activities:
        with pytest.raises(BackendRefused, match="signing certificate"):
            await activities.reconcile_auth(subject.step)
    await runner.cleanup()

    assert await administrator.providers(realm_name) == {}
