import pytest
from pydantic import SecretStr

from plattr.naming import possible_realms
from plattr.objects import CustomObject, Kind, ObjectReference
from plattr.realm import (
    FINGERPRINT,
    build_client,
    build_provider,
    build_realm,
    changes,
    fingerprint,
    mark_of,
    metadata_url,
)
from plattr.settings import ProviderCredentials
from plattr.spec import Environment, Provider
from plattr.target import Target, application_target


def target(*, environment: str = "production", domain: str | None = None, name: str = "shop") -> Target:
    metadata = {"namespace": "team", "name": name, "uid": "u-1", "creationTimestamp": "2026-11-23T00:00:00Z"}
    spec = {"repository": "r", "framework": "docker", "environment": environment, "auth": {"enabled": True}}
    body = {"metadata": metadata, "spec": spec | ({"domain": domain} if domain else {})}
    return application_target(CustomObject.from_api(Kind.APPLICATION, body), base_domain="example.test")


def credentials(secret: str = "s" * 32, *, client_id: str = "client", issuer: str = "") -> ProviderCredentials:
    return ProviderCredentials(client_id=client_id, client_secret=SecretStr(secret), issuer_url=issuer)


@pytest.mark.parametrize("environment", list(Environment))
def test_possible_realms_hold_the_realm_of_every_environment(environment: Environment) -> None:
    made = target(environment=environment)

    assert made.names.realm in possible_realms(made.owner.reference)


def test_a_previews_realms_are_not_guessed() -> None:
    assert possible_realms(ObjectReference(kind=Kind.PREVIEW, namespace="team", name="shop")) == ()


def test_the_client_takes_redirects_of_its_own_host_only() -> None:
    client = build_client(target(domain="shop.test"))

    assert client["redirectUris"] == ["https://shop.test/*"]
    assert client["webOrigins"] == ["https://shop.test"]


def test_what_was_built_differs_in_nothing_from_itself() -> None:
    for representation in (build_realm(target()), build_client(target())):
        assert changes({**representation, "others": 1}, representation) == {}


def test_a_map_comes_back_with_the_keys_of_others() -> None:
    actual = {"attributes": {"a": "1", "theirs": "x"}, "enabled": True}

    assert changes(actual, {"attributes": {"a": "2"}, "enabled": True}) == {"attributes": {"a": "2", "theirs": "x"}}


def test_lists_are_compared_as_sets() -> None:
    assert changes({"uris": ["b", "a"]}, {"uris": ["a", "b"]}) == {}
    assert changes({"uris": ["a", "*"]}, {"uris": ["a"]}) == {"uris": ["a"]}


def test_what_is_missing_differs() -> None:
    wanted = {"enabled": True, "attributes": {"a": "1"}, "uris": ["a"]}

    assert changes({}, wanted) == wanted


@pytest.mark.parametrize("realm", [{}, {"attributes": {}}, {"attributes": {"plattr": "x"}}])
def test_a_realm_without_our_attribute_has_no_holder(realm: dict[str, object]) -> None:
    assert mark_of(realm) is None


@pytest.mark.parametrize("provider", list(Provider))
def test_a_built_provider_holds_no_secret(provider: Provider) -> None:
    secret = "0123456789abcdef" * 2

    assert secret not in str(build_provider(provider, credentials(secret, issuer="https://idp.test")))


@pytest.mark.parametrize(
    "other",
    [credentials("t" * 32), credentials(client_id="other"), credentials(issuer="https://idp.test")],
    ids=["secret", "client-id", "issuer"],
)
def test_the_fingerprint_follows_every_part_of_the_credentials(other: ProviderCredentials) -> None:
    assert fingerprint(other) != fingerprint(credentials())


def test_the_fingerprint_tells_no_more_than_32_bits() -> None:
    assert len(fingerprint(credentials())) == 8
    assert build_provider(Provider.GOOGLE, credentials())["config"][FINGERPRINT] == fingerprint(credentials())


def test_saml_signatures_are_always_checked() -> None:
    config = build_provider(Provider.SAML, credentials("", issuer="https://idp.test/metadata"))["config"]

    assert config["validateSignature"] == "true"


@pytest.mark.parametrize(
    ("provider", "issuer", "url"),
    [
        (Provider.OIDC, "https://idp.test", "https://idp.test/.well-known/openid-configuration"),
        (Provider.OIDC, "https://idp.test/", "https://idp.test/.well-known/openid-configuration"),
        (Provider.SAML, "https://idp.test/metadata", "https://idp.test/metadata"),
    ],
)
def test_a_provider_describes_itself_at(provider: Provider, issuer: str, url: str) -> None:
    assert metadata_url(provider, credentials(issuer=issuer)) == url
