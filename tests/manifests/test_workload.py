"""What must hold between the manifests of one workload, whatever the spec asks for."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given

from plattr.manifests.autoscaler import build_autoscaler
from plattr.manifests.deployment import build_deployment
from plattr.manifests.ingress import build_api_ingress, build_ingress, ingress_profile
from plattr.manifests.pod import Placeholder
from plattr.manifests.service import build_service
from plattr.manifests.service_account import build_service_account
from plattr.naming import role_arn
from plattr.target import OWNER_ANNOTATION, OWNER_UID_ANNOTATION, Target
from tests.manifests.targets import application, preview, targets

Json = dict[str, Any]
PLACEHOLDER = Placeholder(image="registry.test/page:1", port=8080)


def deployment_of(target: Target, checksum: str = "c0ffee") -> Json:
    return build_deployment(target, placeholder=PLACEHOLDER, checksum=checksum, postgrest_pool=5)


def pod_of(target: Target) -> Json:
    pod: Json = deployment_of(target)["spec"]["template"]["spec"]
    return pod


def container_of(target: Target, name: str = "app") -> Json:
    return next(container for container in pod_of(target)["containers"] if container["name"] == name)


def all_of(target: Target) -> Iterator[Json]:
    profile = ingress_profile("nginx", platform_namespace="plattr-system")
    yield deployment_of(target)
    yield build_service(target)
    yield build_service_account(target, role_template=None)
    yield build_autoscaler(target)
    yield build_ingress(target, profile=profile, cluster_issuer="letsencrypt")
    yield build_api_ingress(target, profile=profile, cluster_issuer="letsencrypt")


@given(targets())
def test_every_manifest_says_whose_it_is_and_where_it_lives(target: Target) -> None:
    for manifest in all_of(target):
        metadata = manifest["metadata"]

        assert json.loads(json.dumps(manifest)) == manifest
        assert metadata["namespace"] == target.names.namespace
        assert metadata["labels"].items() >= target.labels.items()
        assert metadata["annotations"][OWNER_ANNOTATION] == target.owner.reference.key
        assert metadata["annotations"][OWNER_UID_ANNOTATION] == target.owner.uid


@given(targets())
def test_service_autoscaler_and_spread_find_the_deployments_pods(target: Target) -> None:
    deployment = deployment_of(target)
    selector = deployment["spec"]["selector"]["matchLabels"]
    spread = pod_of(target)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]

    assert deployment["spec"]["template"]["metadata"]["labels"].items() >= selector.items()
    assert build_service(target)["spec"]["selector"] == selector == spread
    assert build_autoscaler(target)["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert pod_of(target)["serviceAccountName"] == build_service_account(target, role_template=None)["metadata"]["name"]


@given(targets())
def test_every_port_and_probe_leads_to_a_port_of_one_container(target: Target) -> None:
    containers = pod_of(target)["containers"]
    names = [port["name"] for container in containers for port in container["ports"]]

    assert len(set(names)) == len(names)
    assert [port["targetPort"] for port in build_service(target)["spec"]["ports"]] == names
    for container in containers:
        own = {port["name"] for port in container["ports"]}
        probed = {_probe_port(probe) for key, probe in container.items() if key.endswith("Probe")}
        assert probed <= own


@given(targets())
def test_every_ingress_leads_to_a_port_of_the_service(target: Target) -> None:
    service = build_service(target)
    served = {port["port"] for port in service["spec"]["ports"]}

    for profile in (ingress_profile(name, platform_namespace="plattr-system") for name in ("nginx", "traefik")):
        ingresses = [build_ingress(target, profile=profile, cluster_issuer="letsencrypt")]
        if target.spec.database.enabled:
            ingresses.append(build_api_ingress(target, profile=profile, cluster_issuer="letsencrypt"))
        for ingress in ingresses:
            for path in ingress["spec"]["rules"][0]["http"]["paths"]:
                backend = path["backend"]["service"]
                assert backend["name"] == service["metadata"]["name"]
                assert backend["port"]["number"] in served


@given(targets())
def test_no_variable_is_set_twice_in_a_container(target: Target) -> None:
    for container in pod_of(target)["containers"]:
        names = [variable["name"] for variable in container["env"]]

        assert len(set(names)) == len(names)


@given(targets())
def test_the_sidecar_and_its_port_are_there_exactly_with_a_database(target: Target) -> None:
    containers = {container["name"] for container in pod_of(target)["containers"]}
    ports = {port["port"] for port in build_service(target)["spec"]["ports"]}

    assert ("postgrest" in containers) == (3001 in ports) == target.spec.database.enabled


@given(targets())
def test_the_container_reads_exactly_what_its_features_write(target: Target) -> None:
    names, spec = target.names, target.spec
    sources = container_of(target)["envFrom"]
    config_maps = {source["configMapRef"]["name"] for source in sources if "configMapRef" in source}
    secrets = {source["secretRef"]["name"] for source in sources if "secretRef" in source}
    enabled = {f for f in ("storage", "auth", "redis", "search") if getattr(spec, f).enabled}

    assert config_maps == {names.config_map(feature) for feature in enabled} | {names.user_env}
    of_features = [
        (spec.database.enabled, names.database_secret),
        (spec.redis.enabled, names.redis_secret),
        (spec.storage.enabled, names.storage_keys),
    ]
    assert secrets == {secret for is_enabled, secret in of_features if is_enabled} | {names.user_env}


@given(targets())
def test_no_container_may_gain_rights(target: Target) -> None:
    pod = pod_of(target)

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@given(targets())
def test_the_replicas_are_left_to_the_autoscaler(target: Target) -> None:
    autoscaler = build_autoscaler(target)["spec"]

    assert "replicas" not in deployment_of(target)["spec"]
    assert (autoscaler["minReplicas"], autoscaler["maxReplicas"]) == (target.spec.scaling.min, target.spec.scaling.max)
    assert autoscaler["metrics"][0]["resource"]["target"]["averageUtilization"] == target.spec.scaling.target_cpu


def test_the_user_cannot_replace_what_plattr_injects() -> None:
    target = application(database={"enabled": True}, redis={"enabled": True})

    sources = [next(iter(source.values()))["name"] for source in container_of(target)["envFrom"]]

    # The last source wins.
    assert sources == ["shop-env", "shop-env", "shop-db", "shop-redis", "shop-redis"]


def test_only_auth_access_keys_and_the_users_own_variables_may_be_missing() -> None:
    every = {feature: {"enabled": True} for feature in ("database", "storage", "auth", "redis", "search")}

    sources = [next(iter(source.values())) for source in container_of(application(**every))["envFrom"]]

    # The Secrets of Redis and of S3: a platform without users there makes none.
    optional = {source["name"] for source in sources if source.get("optional")}
    assert optional == {"shop-auth", "shop-env", "shop-redis", "shop-storage-keys"}


def test_an_image_is_probed_at_the_health_path_on_port_3000() -> None:
    target = application(imageRef="registry.test/shop:1", healthCheck={"path": "/up"})

    container = container_of(target)

    assert container["image"] == "registry.test/shop:1"
    assert container["ports"] == [{"name": "http", "containerPort": 3000, "protocol": "TCP"}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/up", "port": "http"}


@pytest.mark.parametrize(
    ("framework", "path"), [("docker", "/healthz"), ("rails", "/up"), ("nextjs", "/"), ("static", "/")]
)
def test_without_a_health_path_the_framework_decides(framework: str, path: str) -> None:
    target = application(imageRef="registry.test/shop:1", framework=framework, healthCheck={})

    assert container_of(target)["readinessProbe"]["httpGet"]["path"] == path


def test_without_an_image_the_placeholder_runs_on_its_own_port_unprobed() -> None:
    container = container_of(application())

    assert container["image"] == PLACEHOLDER.image
    assert container["ports"][0]["containerPort"] == PLACEHOLDER.port
    assert not [key for key in container if key.endswith("Probe")]


def test_variables_come_from_the_spec_as_values_and_as_references() -> None:
    target = application(
        envVars=[
            {"name": "COLOUR", "value": "red"},
            {"name": "MAIL_TOKEN", "secretKeyRef": {"name": "shop-mail", "key": "token"}},
        ]
    )

    variables = container_of(target)["env"]

    assert {"name": "COLOUR", "value": "red"} in variables
    assert {
        "name": "MAIL_TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "shop-mail", "key": "token"}},
    } in variables


def test_resources_are_those_of_the_specification() -> None:
    target = application(database={"enabled": True})

    assert container_of(target)["resources"] == {
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"cpu": "1000m", "memory": "512Mi"},
    }
    assert container_of(target, "postgrest")["resources"] == {
        "requests": {"cpu": "50m", "memory": "64Mi"},
        "limits": {"cpu": "200m", "memory": "128Mi"},
    }


@pytest.mark.parametrize(
    ("target", "schema", "anon_role", "url"),
    [
        pytest.param(
            application(database={"enabled": True}),
            "prod_shop",
            "prod_shop_anon",
            "https://shop.platform.test/api/rest",
            id="application",
        ),
        pytest.param(
            preview(database={"enabled": True}),
            "shop_pr42",
            "shop_pr42_anon",
            "https://pr-42.shop.preview.platform.test/api/rest",
            id="preview",
        ),
    ],
)
def test_postgrest_exposes_the_schema_that_is_made(target: Target, schema: str, anon_role: str, url: str) -> None:
    sidecar = container_of(target, "postgrest")
    variables = {variable["name"]: variable.get("value") for variable in sidecar["env"]}
    app_variables = {variable["name"]: variable.get("value") for variable in container_of(target)["env"]}

    assert sidecar["image"] == "postgrest/postgrest:v12.2.3"
    assert sidecar["env"][0] == {
        "name": "PGRST_DB_URI",
        "valueFrom": {"secretKeyRef": {"name": target.names.database_secret, "key": "DATABASE_URL"}},
    }
    assert variables["PGRST_DB_SCHEMAS"] == schema
    assert variables["PGRST_DB_ANON_ROLE"] == anon_role
    assert variables["PGRST_SERVER_PORT"] == "3001"
    assert variables["PGRST_DB_CHANNEL_ENABLED"] == "true"
    assert app_variables["POSTGREST_URL"] == url
    assert app_variables["POSTGREST_INTERNAL_URL"] == "http://localhost:3001"


def test_a_new_incarnation_of_the_owner_leaves_the_pods_alone() -> None:
    target = application()
    reborn = target.model_copy(update={"owner": target.owner.model_copy(update={"uid": "another"})})

    assert deployment_of(reborn)["spec"] == deployment_of(target)["spec"]


def test_a_role_is_given_to_the_service_account_only_when_it_is_set() -> None:
    template = "arn:aws:iam::123456789012:role/plattr/{namespace}/{name}"

    with_role = build_service_account(application(), role_template=template)["metadata"]["annotations"]
    without = build_service_account(application(), role_template=None)["metadata"]["annotations"]

    assert with_role["eks.amazonaws.com/role-arn"] == "arn:aws:iam::123456789012:role/plattr/team-a/shop"
    assert "eks.amazonaws.com/role-arn" not in without


@pytest.mark.attack
@pytest.mark.parametrize("role", ["plattr/{namespace}/{name}", "{namespace}.{name}", "{name}@{namespace}"])
def test_no_two_applications_have_one_role(role: str) -> None:
    target = application()
    names = [("team-a", "shop"), ("team", "a-shop"), ("shop", "team-a"), ("team-a-shop", "x"), ("team", "shop")]

    roles = {
        role_arn(f"arn:aws:iam::123456789012:role/{role}", target.names.model_copy(update={"namespace": n, "stem": s}))
        for n, s in names
    }

    assert len(roles) == len(names)


def _probe_port(probe: Json) -> str:
    port: str = (probe.get("httpGet") or probe["tcpSocket"])["port"]
    return port
