"""What an application's Keycloak realm looks like: representations as Keycloak's admin API takes them.

Source of the fields: https://www.keycloak.org/docs-api/latest/rest-api/index.html
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from plattr.marks import Mark
from plattr.objects import Owner
from plattr.settings import ProviderCredentials
from plattr.spec import Provider
from plattr.target import Target

Representation = dict[str, Any]

OWNER_ATTRIBUTE = "plattr.owner"
OWNER_UID_ATTRIBUTE = "plattr.ownerUid"
OWNER_CLUSTER_ATTRIBUTE = "plattr.ownerCluster"
OWNER_NAMESPACE_UID_ATTRIBUTE = "plattr.ownerNamespaceUid"
# In a provider's config: says that Plattr made it, and from which credentials.
FINGERPRINT = "plattrFingerprint"

# Providers whose addresses Keycloak does not know by itself; it reads them from the provider's metadata.
DISCOVERED = frozenset({Provider.OIDC, Provider.SAML})


def build_realm(target: Target) -> Representation:
    """Return the fields of the realm that are Plattr's; the others are the realm's administrators'."""
    return {
        "realm": target.names.realm,
        "displayName": target.names.stem,
        "enabled": True,
        "registrationAllowed": False,
        "bruteForceProtected": True,
        # external: plain HTTP from private addresses only, which is what an ingress forwards.
        "sslRequired": "external",
        "attributes": build_owner_attributes(target.owner),
    }


def build_owner_attributes(owner: Owner) -> dict[str, str]:
    """Return the realm attributes that say whose a realm is."""
    return {
        OWNER_ATTRIBUTE: owner.reference.key,
        OWNER_UID_ATTRIBUTE: owner.uid,
        OWNER_CLUSTER_ATTRIBUTE: owner.cluster,
        OWNER_NAMESPACE_UID_ATTRIBUTE: owner.namespace_uid,
    }


def build_client(target: Target) -> Representation:
    """Return the fields of the public client that are Plattr's: authorization code with PKCE and nothing else."""
    return {
        "clientId": target.names.client_id,
        "protocol": "openid-connect",
        "enabled": True,
        "publicClient": True,
        "bearerOnly": False,
        "standardFlowEnabled": True,
        "implicitFlowEnabled": False,
        "directAccessGrantsEnabled": False,
        "serviceAccountsEnabled": False,
        "redirectUris": [f"{target.names.url}/*"],
        "webOrigins": [target.names.url],
        "attributes": {
            "pkce.code.challenge.method": "S256",
            # "+": the redirect URIs hold for the way out too; without it every logout redirect is refused.
            "post.logout.redirect.uris": "+",
        },
    }


def build_provider(provider: Provider, credentials: ProviderCredentials) -> Representation:
    """Return the fields of an identity provider that can be compared: all but the secret, which is never shown."""
    config = {FINGERPRINT: fingerprint(credentials)}
    if provider is Provider.SAML:
        config |= {
            # Follows the provider's signing keys; without any, everybody could forge a login.
            "validateSignature": "true",
            "useMetadataDescriptorUrl": "true",
            "metadataDescriptorUrl": credentials.issuer_url,
        }
        if credentials.client_id:
            config["entityId"] = credentials.client_id
    else:
        config["clientId"] = credentials.client_id
    return {"alias": provider.value, "providerId": provider.value, "enabled": True, "config": config}


def metadata_url(provider: Provider, credentials: ProviderCredentials) -> str:
    """Return where a discovered provider describes itself; SAML's setting is that very address."""
    if provider is Provider.SAML:
        return credentials.issuer_url
    # https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig
    return f"{credentials.issuer_url.rstrip('/')}/.well-known/openid-configuration"


def fingerprint(credentials: ProviderCredentials) -> str:
    """Return what tells whether Keycloak holds these credentials; it shows a secret as asterisks only.

    Readable by the realm's administrators, so it is short: 32 bits notice a change, and cannot cost
    a provider's random secret of 128 bits and more anything that matters. Without a salt on purpose:
    many realms with many salts would tell 32 bits each, this way all of them tell the same.
    """
    parts = (credentials.client_id, credentials.client_secret.get_secret_value(), credentials.issuer_url)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def mark_of(realm: Mapping[str, Any]) -> Mark | None:
    """Return a realm's owner; None when it has none, or Keycloak may not show us its attributes."""
    attributes = realm.get("attributes", {})
    if OWNER_ATTRIBUTE not in attributes:
        return None
    return Mark(
        key=attributes[OWNER_ATTRIBUTE],
        cluster=attributes.get(OWNER_CLUSTER_ATTRIBUTE, ""),
        namespace_uid=attributes.get(OWNER_NAMESPACE_UID_ATTRIBUTE, ""),
        uid=attributes.get(OWNER_UID_ATTRIBUTE, ""),
    )


def is_visible(realm: Mapping[str, Any]) -> bool:
    """Tell whether Keycloak shows the realm whole: to an account without rights in it, it shows no attributes."""
    return "attributes" in realm


def changes(actual: Mapping[str, Any], wanted: Mapping[str, Any]) -> Representation:
    """Return the wanted fields that differ, ready to be sent; empty when there is nothing to do.

    A map is compared by the wanted keys alone and comes back whole, the others' keys in it; lists are sets.
    """
    return {
        field: _merged(actual.get(field), value) for field, value in wanted.items() if _differs(actual, field, value)
    }


def _differs(actual: Mapping[str, Any], field: str, value: Any) -> bool:
    existing = actual.get(field)
    if isinstance(value, dict):
        return any(_differs(existing or {}, key, entry) for key, entry in value.items())
    if isinstance(value, list):
        return sorted(existing or []) != sorted(value)
    return bool(existing != value)


def _merged(existing: Any, value: Any) -> Any:
    return {**(existing or {}), **value} if isinstance(value, dict) else value
