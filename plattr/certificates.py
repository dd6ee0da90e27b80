"""Certificates: which hosts one is valid for, and whether cert-manager made its Secret for an Ingress of ours.

The ingress-shim of cert-manager creates a Certificate, named by the Ingress's `tls.secretName`. The Ingress owns this
Certificate. The Secret that the Certificate fills has no owner, and stays. https://cert-manager.io/docs/usage/ingress/
"""

from collections.abc import Collection, Mapping

from cryptography import x509

GROUP = "cert-manager.io"
CLUSTER_ISSUER_ANNOTATION = f"{GROUP}/cluster-issuer"
# What cert-manager writes on a Secret. https://cert-manager.io/docs/reference/annotations/
CERTIFICATE_NAME_ANNOTATION = f"{GROUP}/certificate-name"
ISSUER_NAME_ANNOTATION = f"{GROUP}/issuer-name"
ISSUER_KIND_ANNOTATION = f"{GROUP}/issuer-kind"
ALT_NAMES_ANNOTATION = f"{GROUP}/alt-names"


def is_by_cert_manager(annotations: Mapping[str, str]) -> bool:
    """Tell whether cert-manager fills the Secret that has these annotations."""
    return CERTIFICATE_NAME_ANNOTATION in annotations


def is_for_our_ingress(secret_name: str, annotations: Mapping[str, str], *, cluster_issuer: str) -> bool:
    """Tell whether a Secret looks like one that an Ingress of ours requested.

    Its Certificate has the Secret's name, since ingress-shim names both alike. Its issuer is the platform's own.
    """
    form = {
        CERTIFICATE_NAME_ANNOTATION: secret_name,
        ISSUER_NAME_ANNOTATION: cluster_issuer,
        ISSUER_KIND_ANNOTATION: "ClusterIssuer",
    }
    return form.items() <= dict(annotations).items()


def covers(names: Collection[str], host: str) -> bool:
    """Tell whether a certificate for these names is valid for the host; a wildcard stands for one label."""
    known = {name.lower() for name in names}
    return host in known or f"*.{host.partition('.')[2]}" in known


def alt_names(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names that cert-manager has noted on its Secret."""
    return tuple(name.strip() for name in annotations.get(ALT_NAMES_ANNOTATION, "").split(",") if name.strip())


def names_in(pem: bytes) -> tuple[str, ...] | None:
    """Return the DNS names of a certificate; None when it is not a certificate. Of a chain, the first counts."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return tuple(names.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        return ()
    except ValueError:
        return None
