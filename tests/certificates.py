"""Secrets as cert-manager makes them, or a developer with openssl; and cert-manager's own kind."""

import base64
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from clients.resources import Json, Resource

CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)


@cache
def key_pair(*hosts: str) -> tuple[str, str]:
    """Return a self-signed certificate for these hosts, and its key, in base64 as a Secret has them."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0])])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    parts = (certificate.public_bytes(serialization.Encoding.PEM), pem)
    crt, private = (base64.b64encode(part).decode() for part in parts)
    return crt, private


def tls_secret(name: str, *hosts: str, issuer: str | None = "letsencrypt", kind: str = "ClusterIssuer") -> Json:
    """Return a Secret in cert-manager's form; without an issuer it is somebody's own."""
    certificate, key = key_pair(*hosts)
    annotations = {
        "cert-manager.io/alt-names": ",".join(hosts),
        "cert-manager.io/certificate-name": name,
        "cert-manager.io/common-name": hosts[0],
        "cert-manager.io/issuer-group": "cert-manager.io",
        "cert-manager.io/issuer-kind": kind,
        "cert-manager.io/issuer-name": issuer,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name} | ({"annotations": annotations} if issuer else {}),
        "data": {"tls.crt": certificate, "tls.key": key},
    }


def certificate(name: str, ingress: Json | None = None, **status: object) -> Json:
    """Return cert-manager's Certificate, as its ingress-shim makes it for an Ingress."""
    owners = []
    if ingress is not None:
        metadata = ingress["metadata"]
        reference = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress"}
        owners = [reference | {"name": metadata["name"], "uid": metadata["uid"], "controller": True}]
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": name, "ownerReferences": owners},
        "spec": {"secretName": name},
        "status": status,
    }


def certificate_definition() -> Json:
    """Return a definition of the kind that takes any content."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": CRDS.api_version,
        "kind": CRDS.kind,
        "metadata": {
            "name": "certificates.cert-manager.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": "cert-manager.io",
            "scope": "Namespaced",
            "names": {"kind": "Certificate", "plural": "certificates", "singular": "certificate"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}},
            ],
        },
    }
