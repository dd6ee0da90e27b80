"""Secrets as cert-manager makes them, or a developer with openssl; and cert-manager's own kind."""

import base64
from functools import cache

import trustme

from clients.resources import Json, Resource

CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)


@cache
def key_pair(*hosts: str) -> tuple[str, str]:
    """Return a certificate for these hosts, and its key, in base64 as a Secret has them."""
    authority = trustme.CA()
    issued = authority.issue_cert(*hosts, common_name=hosts[0])
    parts = (issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes())
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
