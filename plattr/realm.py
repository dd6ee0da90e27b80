"""An application's Keycloak realm: the representations as Keycloak's admin API takes them.

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
# In a provider's config: Plattr made this provider, and from these credentials.
FINGERPRINT = "plattrFingerprint"

# Keycloak does not know the addresses of these providers. It reads them from the provider's metadata.
DISCOVERED = frozenset({Provider.OIDC, Provider.SAML})


def build_realm(target: Target) -> Representation:
    """Return the realm's fields that belong to Plattr; the other fields belong to the realm's administrators."""
    return {
        "realm": target.names.realm,
        "displayName": target.names.stem,
        "enabled": True,
        "registrationAllowed": False,
        "bruteForceProtected": True,
        # external: Keycloak accepts plain HTTP only from private addresses. An ingress forwards from such an address.
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
    """Return the public client's fields that belong to Plattr: authorization code with PKCE and nothing else."""
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
            # "+": the redirect URIs are valid for logouts too. Without it, Keycloak refuses every logout redirect.
            "post.logout.redirect.uris": "+",
        },
    }


def build_provider(provider: Provider, credentials: ProviderCredentials) -> Representation:
    """Return an identity provider's fields that can be compared: all but the secret, which Keycloak never shows."""
    config = {FINGERPRINT: fingerprint(credentials)}
    if provider is Provider.SAML:
        config |= {
            # Follows the provider's signing keys. Without them, anybody could forge a login.
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
    """Return where a discovered provider describes itself; for SAML the setting holds this very address."""
    if provider is Provider.SAML:
        return credentials.issuer_url
    # https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig
    return f"{credentials.issuer_url.rstrip('/')}/.well-known/openid-configuration"


def fingerprint(credentials: ProviderCredentials) -> str:
    """Return the fingerprint by which to compare credentials with Keycloak, which shows a secret as asterisks only.

    The realm's administrators can read the fingerprint, so it is short. 32 bits suffice to notice a change. They reveal
    nothing that matters about a provider's random secret of 128 bits or more. The missing salt is deliberate: many
    realms with many salts would reveal 32 bits each, but without a salt all of them reveal the same 32 bits.
    """
    parts = (credentials.client_id, credentials.client_secret.get_secret_value(), credentials.issuer_url)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def mark_of(realm: Mapping[str, Any]) -> Mark | None:
    """Return a realm's owner; None when it has none, or when Keycloak may not show us its attributes."""
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
    """Tell whether Keycloak shows the whole realm; it shows no attributes to an account without rights in the realm."""
    return "attributes" in realm


def changes(actual: Mapping[str, Any], wanted: Mapping[str, Any]) -> Representation:
    """Return the wanted fields that differ, ready to be sent; empty when there is nothing to do.

    Of a map only the wanted keys are compared. The map is returned whole, with the keys of others. Lists are sets.
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
