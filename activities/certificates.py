"""The certificate of an Ingress: whether it exists, why it does not, and the removal of its Secret.

cert-manager makes the certificate, and may be absent. Plattr reads the Certificate only for its messages, and never
reads the Secret's key.
"""

import base64
import binascii

from activities.polling import moments
from clients.kube import KubeClient
from clients.resources import CERT_MANAGER, CERTIFICATES, INGRESSES, SECRETS, Json
from plattr.certificates import (
    CLUSTER_ISSUER_ANNOTATION,
    alt_names,
    covers,
    is_by_cert_manager,
    is_for_our_ingress,
    names_in,
)
from plattr.denials import one_line
from plattr.errors import BackendRefused, Conflict, StillDeleting
from plattr.features import ConditionType
from plattr.naming import tls_secret_of
from plattr.objects import Kind, ObjectReference
from plattr.status import ConditionUpdate

# 5 s: Kubernetes' garbage collector takes a second after the Ingress is gone. The next attempt continues to wait.
WAIT_SECONDS = 5.0


async def certificate_update(kube: KubeClient, ingress: Json, host: str) -> ConditionUpdate | None:
    """Return why an Ingress lacks the certificate that it asks for; None when it has one, or asks for none."""
    metadata = ingress["metadata"]
    namespace, tls = metadata["namespace"], ingress.get("spec", {}).get("tls") or [{}]
    secret_name = tls[0].get("secretName")
    if secret_name is None or CLUSTER_ISSUER_ANNOTATION not in metadata.get("annotations", {}):
        return None
    secret = await _secret_metadata(kube, secret_name, namespace)
    if secret is None:
        return await _pending(kube, secret_name, namespace, f"certificate for {host!r} not issued yet")
    annotations = secret.get("annotations", {})
    if is_by_cert_manager(annotations):
        if covers(alt_names(annotations), host):
            return None
        return await _pending(
            kube,
            secret_name,
            namespace,
            f"certificate for {host!r} not issued yet: Secret {secret_name!r} is for others",
        )
    return await _judged(kube, secret_name, namespace, host)


async def remove_certificate(kube: KubeClient, reference: ObjectReference, *, cluster_issuer: str) -> None:
    """Delete the Secret that cert-manager made for an Application's Ingress, after the Ingress is gone.

    A Secret of others stays. A preview's Secret goes with the preview's namespace.

    Raises:
        StillDeleting: the Certificate still exists, and cert-manager would make the Secret again.
    """
    if reference.kind is not Kind.APPLICATION:
        return
    name, namespace = tls_secret_of(reference.name), reference.namespace
    secret = await _secret_metadata(kube, name, namespace)
    if secret is None or not is_for_our_ingress(name, secret.get("annotations", {}), cluster_issuer=cluster_issuer):
        return
    async for _ in moments(WAIT_SECONDS):
        certificate = await _certificate(kube, name, namespace)
        if certificate is None:
            break
        is_ours = _is_of_ingress(certificate, reference.name)
        if not is_ours or await kube.get(INGRESSES, reference.name, namespace) is not None:
            # Somebody made the Certificate by hand, or for another Ingress that has replaced Plattr's.
            return
    else:
        raise StillDeleting(
            f"cannot delete Secret {name!r} in namespace {namespace!r}: its Certificate is still there, although the"
            " Ingress that owns it is gone; Kubernetes' garbage collector removes it"
        )
    try:
        await kube.delete(SECRETS, name, namespace, uid=secret["uid"])
    except Conflict:
        # Another Secret has the name now.
        return


async def _secret_metadata(kube: KubeClient, name: str, namespace: str) -> Json | None:
    """Return a Secret's metadata; the Secret's key does not leave the API server."""
    selector = f"metadata.name={name}"
    async for page in kube.pages(SECRETS, namespace, field_selector=selector, metadata_only=True):
        for body in page.items:
            found: Json = body["metadata"]
            return found
    return None


async def _judged(kube: KubeClient, name: str, namespace: str, host: str) -> ConditionUpdate | None:
    """Judge a Secret that somebody else made, by its certificate alone."""
    body = await kube.get(SECRETS, name, namespace)
    try:
        pem = base64.b64decode((body or {}).get("data", {}).get("tls.crt", ""), validate=True)
    except binascii.Error:
        pem = b""
    names = names_in(pem)
    what = f"Secret {name!r} in namespace {namespace!r}, which cert-manager did not make,"
    if names is None:
        return _not_ready("CertificateMissing", f"{what} holds no certificate as tls.crt", status="False")
    if not covers(names, host):
        shown = ", ".join(names[:5]) or "nobody"
        return _not_ready("CertificateForAnotherHost", f"{what} is for {shown}, not for {host}", status="False")
    return None


async def _pending(kube: KubeClient, name: str, namespace: str, message: str) -> ConditionUpdate | None:
    certificate = await _certificate(kube, name, namespace)
    if certificate is None:
        if await kube.get(CERT_MANAGER, "") is None:
            return ConditionUpdate(
                type=ConditionType.INGRESS,
                status="True",
                reason="NoCertManager",
                message=f"routes are set; nobody makes a certificate: there is no cert-manager in this cluster, and no"
                f" Secret {name!r}",
            )
        return _not_ready("CertificatePending", f"{message}; cert-manager has not made a Certificate {name!r}")
    if (cause := _failure(certificate)) is not None:
        return _not_ready("CertificateFailed", f"{message}: {cause}", status="False")
    ready = _condition(certificate, "Ready")
    return _not_ready("CertificatePending", f"{message}: {_quoted(ready)}" if ready else message)


async def _certificate(kube: KubeClient, name: str, namespace: str) -> Json | None:
    """Return cert-manager's Certificate; None also when there is no cert-manager or Plattr may not read it."""
    try:
        return await kube.get(CERTIFICATES, name, namespace)
    except BackendRefused:
        return None


def _failure(certificate: Json) -> str | None:
    """Return what cert-manager says about a failed attempt, unless a later attempt has succeeded."""
    issuing = _condition(certificate, "Issuing")
    if issuing and issuing.get("status") == "False" and issuing.get("reason") == "Failed":
        return _quoted(issuing)
    if attempts := certificate.get("status", {}).get("failedIssuanceAttempts"):
        ready = _condition(certificate, "Ready")
        return f"{attempts} attempts failed" + (f": {_quoted(ready)}" if ready else "")
    return None


def _condition(certificate: Json, kind: str) -> Json | None:
    conditions = certificate.get("status", {}).get("conditions") or []
    return next((each for each in conditions if each.get("type") == kind), None)


def _quoted(condition: Json) -> str:
    return one_line(str(condition.get("message") or condition.get("reason") or ""))


def _is_of_ingress(certificate: Json, ingress: str) -> bool:
    owners = certificate["metadata"].get("ownerReferences") or []
    return any((owner.get("kind"), owner.get("name")) == ("Ingress", ingress) for owner in owners)


def _not_ready(reason: str, message: str, *, status: str = "Unknown") -> ConditionUpdate:
    fields = {"type": ConditionType.INGRESS, "status": status, "reason": reason, "message": message}
    return ConditionUpdate.model_validate(fields)
