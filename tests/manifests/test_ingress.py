"""The Ingresses, as each controller wants them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from plattr.manifests.ingress import build_api_ingress, build_ingress, ingress_profile
from tests.manifests.targets import application

REPOSITORY = Path(__file__).parents[2]
TARGET = application(database={"enabled": True}, domain="shop.example.com")
NGINX = ingress_profile("nginx", platform_namespace="plattr-system")
TRAEFIK = ingress_profile("traefik", platform_namespace="plattr-system")


def paths_of(ingress: dict[str, Any]) -> list[tuple[str, str]]:
    return [(path["path"], path["pathType"]) for path in ingress["spec"]["rules"][0]["http"]["paths"]]


def test_both_share_the_host_and_the_tls_secret() -> None:
    main = build_ingress(TARGET, profile=NGINX, cluster_issuer="letsencrypt")
    api = build_api_ingress(TARGET, profile=NGINX, cluster_issuer="letsencrypt")

    assert main["spec"]["tls"] == api["spec"]["tls"] == [{"hosts": ["shop.example.com"], "secretName": "shop-tls"}]
    assert main["spec"]["rules"][0]["host"] == api["spec"]["rules"][0]["host"] == "shop.example.com"
    assert (main["metadata"]["name"], api["metadata"]["name"]) == ("shop", "shop-api")


@pytest.mark.parametrize("profile", [NGINX, TRAEFIK], ids=["nginx", "traefik"])
def test_only_the_main_one_asks_for_a_certificate(profile: Any) -> None:
    main = build_ingress(TARGET, profile=profile, cluster_issuer="letsencrypt")
    api = build_api_ingress(TARGET, profile=profile, cluster_issuer="letsencrypt")

    assert main["metadata"]["annotations"]["cert-manager.io/cluster-issuer"] == "letsencrypt"
    assert "cert-manager.io/cluster-issuer" not in api["metadata"]["annotations"]


@pytest.mark.parametrize("profile", [NGINX, TRAEFIK], ids=["nginx", "traefik"])
def test_where_tls_is_somebody_elses_no_certificate_is_asked_for_and_no_secret_named(profile: Any) -> None:
    main = build_ingress(TARGET, profile=profile, cluster_issuer=None)
    api = build_api_ingress(TARGET, profile=profile, cluster_issuer=None)

    assert main["spec"]["tls"] == api["spec"]["tls"] == [{"hosts": ["shop.example.com"]}]
    assert "cert-manager.io/cluster-issuer" not in main["metadata"]["annotations"]


def test_nginx_is_told_what_the_seed_says() -> None:
    main = build_ingress(TARGET, profile=NGINX, cluster_issuer="letsencrypt")
    api = build_api_ingress(TARGET, profile=NGINX, cluster_issuer="letsencrypt")

    assert main["spec"]["ingressClassName"] == "nginx"
    assert paths_of(main) == [("/", "Prefix")]
    assert paths_of(api) == [("/api/rest(/|$)(.*)", "ImplementationSpecific")]
    assert api["metadata"]["annotations"]["nginx.ingress.kubernetes.io/rewrite-target"] == "/$2"


@pytest.mark.parametrize(
    ("request_path", "seen"),
    [("/api/rest", "/"), ("/api/rest/", "/"), ("/api/rest/todos", "/todos"), ("/api/restaurants", None)],
    ids=["bare", "slash", "table", "another word"],
)
def test_nginx_path_and_rewrite_take_the_prefix_off(request_path: str, seen: str | None) -> None:
    api = build_api_ingress(TARGET, profile=NGINX, cluster_issuer="letsencrypt")
    pattern = paths_of(api)[0][0]
    rewrite = api["metadata"]["annotations"]["nginx.ingress.kubernetes.io/rewrite-target"]

    match = re.match(pattern, request_path)

    assert (match.expand(rewrite.replace("$", "\\")) if match else None) == seen


def test_traefik_matches_the_prefix_only_as_whole_segments() -> None:
    api = build_api_ingress(TARGET, profile=TRAEFIK, cluster_issuer="letsencrypt")

    assert api["spec"]["ingressClassName"] == "traefik"
    assert paths_of(api) == [("/api/rest", "Exact"), ("/api/rest/", "Prefix")]


def test_traefik_is_led_to_the_middleware_that_is_shipped() -> None:
    api = build_api_ingress(TARGET, profile=TRAEFIK, cluster_issuer="letsencrypt")
    middleware = yaml.safe_load((REPOSITORY / "deploy/traefik/middleware.yaml").read_text())
    metadata = middleware["metadata"]

    annotation = api["metadata"]["annotations"]["traefik.ingress.kubernetes.io/router.middlewares"]

    assert annotation == f"{metadata['namespace']}-{metadata['name']}@kubernetescrd"
    assert middleware["spec"] == {"stripPrefix": {"prefixes": ["/api/rest"]}}
