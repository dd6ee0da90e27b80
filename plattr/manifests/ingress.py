"""The Ingresses: `/` leads to the application, `/api/rest` to PostgREST."""

from typing import Any, Literal

from plattr.certificates import CLUSTER_ISSUER_ANNOTATION
from plattr.manifests.metadata import build_metadata
from plattr.manifests.ports import POSTGREST_PORT, SERVICE_PORT
from plattr.objects import FrozenModel
from plattr.target import Target

# The Middleware that deploy/traefik/middleware.yaml installs once for the whole cluster.
TRAEFIK_MIDDLEWARE = "plattr-strip-api-rest"


class Path(FrozenModel):
    """One path of a rule, and how the controller matches it."""

    path: str
    path_type: Literal["Exact", "Prefix", "ImplementationSpecific"]


class IngressProfile(FrozenModel):
    """What an ingress controller needs to know, and how it strips `/api/rest` from a path."""

    class_name: str
    annotations: dict[str, str]
    api_annotations: dict[str, str]
    api_paths: tuple[Path, ...]


def ingress_profile(name: Literal["nginx", "traefik"], *, platform_namespace: str) -> IngressProfile:
    """Return the profile of a controller; `platform_namespace` is where Traefik's Middleware lives."""
    if name == "nginx":
        return IngressProfile(
            class_name="nginx",
            annotations={},
            api_annotations={"nginx.ingress.kubernetes.io/rewrite-target": "/$2"},
            api_paths=(Path(path="/api/rest(/|$)(.*)", path_type="ImplementationSpecific"),),
        )
    # Traefik's Ingress provider rewrites paths only by a Middleware. The Middleware is the same for every application.
    # So the platform installs it once, and Plattr only names it and needs no right to write Traefik's resources.
    # https://doc.traefik.io/traefik/reference/routing-configuration/kubernetes/ingress/
    return IngressProfile(
        class_name="traefik",
        annotations={
            "traefik.ingress.kubernetes.io/router.entrypoints": "websecure",
            "traefik.ingress.kubernetes.io/router.tls": "true",
        },
        api_annotations={
            "traefik.ingress.kubernetes.io/router.middlewares": (
                f"{platform_namespace}-{TRAEFIK_MIDDLEWARE}@kubernetescrd"
            )
        },
        # Two paths: Traefik's prefix `/api/rest` alone would also match `/api/restaurants`.
        api_paths=(Path(path="/api/rest", path_type="Exact"), Path(path="/api/rest/", path_type="Prefix")),
    )


def build_ingress(target: Target, *, profile: IngressProfile, cluster_issuer: str | None) -> dict[str, Any]:
    """Return the Ingress that leads to the application; only this Ingress requests the certificate.

    Without an issuer it names no Secret either. Then the controller's own certificate, or what stands before the
    controller, serves TLS.
    """
    # Only one of the two Ingresses names the issuer. cert-manager creates one Certificate for their common Secret, and
    # refuses the second Ingress that asks for it.
    return _build(
        target,
        target.names.stem,
        profile=profile,
        annotations=({CLUSTER_ISSUER_ANNOTATION: cluster_issuer} if cluster_issuer else {}) | profile.annotations,
        has_certificate=cluster_issuer is not None,
        paths=(Path(path="/", path_type="Prefix"),),
        port=SERVICE_PORT,
    )


def build_api_ingress(target: Target, *, profile: IngressProfile, cluster_issuer: str | None) -> dict[str, Any]:
    """Return the Ingress that leads to PostgREST; PostgREST sees the path without `/api/rest`."""
    return _build(
        target,
        target.names.api_ingress,
        profile=profile,
        annotations=profile.annotations | profile.api_annotations,
        has_certificate=cluster_issuer is not None,
        paths=profile.api_paths,
        port=POSTGREST_PORT,
    )


def _build(
    target: Target,
    name: str,
    *,
    profile: IngressProfile,
    annotations: dict[str, str],
    has_certificate: bool,
    paths: tuple[Path, ...],
    port: int,
) -> dict[str, Any]:
    names = target.names
    backend = {"service": {"name": names.stem, "port": {"number": port}}}
    rule = {
        "host": names.host,
        "http": {"paths": [{"path": path.path, "pathType": path.path_type, "backend": backend} for path in paths]},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": build_metadata(target, name, annotations=annotations),
        "spec": {
            "ingressClassName": profile.class_name,
            "rules": [rule],
            "tls": [{"hosts": [names.host]} | ({"secretName": names.tls_secret} if has_certificate else {})],
        },
    }
