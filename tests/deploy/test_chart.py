"""What the chart renders, whoever runs it."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from telemetry.metrics import BACKEND_ERRORS, STEP_ATTEMPTS, STEP_SECONDS, VANISHED
from tests.deploy.helm import CHART, EXAMPLES, PROCESSES, ROOT, Helm, Json, container_of, environment_of, only
from watcher.metrics import PhaseCollector, WatcherMetrics
from worker.__main__ import GRACE

WITH_EVERYTHING: Json = {
    "keda": {"enabled": True},
    "metrics": {
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    },
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_passes_lint(helm: Helm, path: Path) -> None:
    done = helm.run("lint", "--strict", CHART, "--values", path)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_names_every_secret_and_holds_none(helm: Helm, path: Path) -> None:
    text = helm.call("template", "plattr", CHART, "--values", path)
    objects = [document for document in yaml.safe_load_all(text) if document]

    assert not [each for each in objects if each["kind"] == "Secret"]
    for name, variable in environment_of(objects, "worker").items():
        if re.search(r"_SECRET$|PASSWORD|API_KEY|ADMIN_URL|KEY_DATA|ACCESS_KEY", name):
            assert set(variable["valueFrom"]) == {"secretKeyRef"}, name


def test_the_crds_are_those_of_deploy_crds(helm: Helm) -> None:
    shown = [document for document in yaml.safe_load_all(helm.call("show", "crds", CHART)) if document]

    source = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "deploy" / "crds").glob("*.yaml"))]
    assert shown == source


def test_a_crd_begins_a_document_of_its_own() -> None:
    # Helm 3 shows them one after the other with nothing between: kubectl would apply the last alone.
    paths = (ROOT / "deploy" / "crds").glob("*.yaml")

    assert {path.read_text().partition("\n")[0] for path in paths} == {"---"}


def test_no_template_makes_a_crd(helm: Helm) -> None:
    objects = helm.render(WITH_EVERYTHING)

    # What is in a release's manifest goes with the release, and a CRD takes its objects along.
    assert not [each for each in objects if each["kind"] == "CustomResourceDefinition"]


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("kind", ["ClusterRole", "Role"])
def test_the_rights_are_those_of_deploy_rbac(helm: Helm, process: str, kind: str) -> None:
    source = list(yaml.safe_load_all((ROOT / "deploy" / "rbac" / f"{process}.yaml").read_text()))

    rendered = only(helm.render(), kind, process)

    assert rendered["rules"] == only(source, kind)["rules"]


@pytest.mark.parametrize("role", ["edit", "view"])
def test_the_rights_of_people_are_those_of_deploy_rbac(helm: Helm, role: str) -> None:
    source = only(list(yaml.safe_load_all((ROOT / "deploy" / "rbac" / "users.yaml").read_text())), "ClusterRole", role)

    rendered = only(helm.render(), "ClusterRole", f"-{role}")

    assert rendered["rules"] == source["rules"]
    assert source["metadata"]["labels"].items() <= rendered["metadata"]["labels"].items()


def test_the_finalizers_policy_is_that_of_deploy_admission_for_the_releases_own_worker(helm: Helm) -> None:
    text = (ROOT / "deploy" / "admission" / "finalizer.yaml").read_text()
    account = "system:serviceaccount:platform:fleet-plattr-worker"
    policy, binding = yaml.safe_load_all(text.replace("system:serviceaccount:plattr-system:plattr-worker", account))

    objects = helm.render(release="fleet", namespace="platform")

    name = "fleet-plattr-cleanup-finalizer"
    assert only(objects, policy["kind"], name)["spec"] == policy["spec"]
    assert only(objects, binding["kind"], name)["spec"] == binding["spec"] | {"policyName": name}
    assert not any("admission" in each["apiVersion"] for each in helm.render({"admission": {"create": False}}))


@pytest.mark.parametrize("subject", ["limits", "namespace"])
def test_the_previews_policies_are_those_of_deploy_admission(helm: Helm, subject: str) -> None:
    documents = list(yaml.safe_load_all((ROOT / "deploy" / "admission" / "previews.yaml").read_text()))
    policy, binding = (each for each in documents if each["metadata"]["name"] == f"plattr-preview-{subject}")

    objects = helm.render(release="fleet", namespace="platform")

    name = f"fleet-plattr-preview-{subject}"
    assert only(objects, policy["kind"], name)["spec"] == policy["spec"]
    assert only(objects, binding["kind"], name)["spec"] == binding["spec"] | {"policyName": name}


def test_nothing_else_grants_a_right(helm: Helm) -> None:
    objects = helm.render(WITH_EVERYTHING)

    granting = [(each["kind"], each["metadata"]["name"]) for each in objects if "rbac" in each["apiVersion"]]
    bound = {(subject["namespace"], subject["name"]) for each in objects for subject in each.get("subjects", [])}
    kinds = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    # Nobody is bound to the last two.
    users = [("ClusterRole", "plattr-edit"), ("ClusterRole", "plattr-view")]
    assert sorted(granting) == sorted([(kind, f"plattr-{each}") for kind in kinds for each in PROCESSES] + users)
    assert bound == {("plattr-system", "plattr-worker"), ("plattr-system", "plattr-watcher")}


def test_each_process_runs_as_its_own_account(helm: Helm) -> None:
    objects = helm.render({"worker": {"serviceAccount": {"create": False, "name": "made-by-terraform"}}})

    accounts = {
        process: only(objects, "Deployment", process)["spec"]["template"]["spec"]["serviceAccountName"]
        for process in PROCESSES
    }
    made = [each["metadata"]["name"] for each in objects if each["kind"] == "ServiceAccount"]
    bound = only(objects, "ClusterRoleBinding", "worker")["subjects"][0]["name"]
    assert accounts == {"worker": "made-by-terraform", "watcher": "plattr-watcher"}
    assert made == ["plattr-watcher"]
    assert bound == "made-by-terraform"


def test_an_irsa_role_is_the_workers_alone(helm: Helm) -> None:
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/plattr"}

    objects = helm.render({"worker": {"serviceAccount": {"annotations": role}}})

    assert only(objects, "ServiceAccount", "worker")["metadata"]["annotations"] == role
    assert "annotations" not in only(objects, "ServiceAccount", "watcher")["metadata"]


def test_the_watcher_is_given_no_backend(helm: Helm) -> None:
    objects = helm.render({"secrets": {"TEMPORAL_API_KEY": {"name": "temporal", "key": "key"}}})

    assert set(environment_of(objects, "watcher")) == {
        *("METRICS_PORT", "LEASE_NAMESPACE", "LEADER_ELECTION"),
        *("TEMPORAL_ADDRESS", "TEMPORAL_API_KEY"),
    }


def test_a_worker_outlives_its_graceful_shutdown(helm: Helm) -> None:
    pod = only(helm.render(), "Deployment", "worker")["spec"]["template"]["spec"]

    # 10 s more: the last results are reported and the connections closed after it.
    assert pod["terminationGracePeriodSeconds"] >= GRACE.total_seconds() + 10


@pytest.mark.parametrize("process", PROCESSES)
def test_a_rollout_keeps_the_old_ones_until_the_new_are_ready(helm: Helm, process: str) -> None:
    objects = helm.render()
    spec = only(objects, "Deployment", process)["spec"]
    budget = only(objects, "PodDisruptionBudget", process)["spec"]

    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert budget["selector"]["matchLabels"] == spec["selector"]["matchLabels"]
    assert budget["maxUnavailable"] == 1


@pytest.mark.parametrize("process", PROCESSES)
def test_a_pod_that_is_not_ready_holds_up_no_drain(helm: Helm, process: str) -> None:
    budget = only(helm.render(), "PodDisruptionBudget", process)["spec"]

    # While Temporal is away none is ready, so none could be evicted.
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize("process", PROCESSES)
def test_the_probes_ask_where_the_process_answers(helm: Helm, process: str) -> None:
    objects = helm.render({"metrics": {"port": 9191}})
    container = container_of(objects, process)

    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert asked == {
        "startup": {"path": "/healthz", "port": "metrics"},
        "liveness": {"path": "/healthz", "port": "metrics"},
        "readiness": {"path": "/readyz", "port": "metrics"},
    }
    assert container["ports"] == [{"name": "metrics", "containerPort": 9191}]
    assert environment_of(objects, process)["METRICS_PORT"]["value"] == "9191"


def test_the_root_file_system_is_read_only_and_tmp_is_not(helm: Helm) -> None:
    for process in PROCESSES:
        container = container_of(helm.render(), process)

        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp"}


def test_nobody_but_a_scraper_comes_in(helm: Helm) -> None:
    objects = helm.render({"networkPolicy": {"egress": {"worker": [{"ports": [{"port": 5432}]}]}}})
    worker, watcher = (only(objects, "NetworkPolicy", process)["spec"] for process in PROCESSES)

    assert worker["ingress"] == [{"ports": [{"port": "metrics", "protocol": "TCP"}]}]
    assert [port["port"] for rule in worker["egress"] for port in rule["ports"]] == [53, 53, 5353, 5353, 5432]
    assert worker["policyTypes"] == ["Ingress", "Egress"]
    assert watcher["policyTypes"] == ["Ingress"]


def test_keda_counts_the_task_queue_and_owns_the_replicas(helm: Helm) -> None:
    changes = {"keda": {"enabled": True}, "secrets": {"TEMPORAL_API_KEY": {"name": "temporal", "key": "api-key"}}}

    objects = helm.render(changes)

    scaled = only(objects, "ScaledObject")["spec"]
    authentication = only(objects, "TriggerAuthentication")
    (trigger,) = scaled["triggers"]
    assert "replicas" not in only(objects, "Deployment", "worker")["spec"]
    assert scaled["scaleTargetRef"]["name"] == only(objects, "Deployment", "worker")["metadata"]["name"]
    assert scaled["minReplicaCount"] == 2
    behavior = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 300
    # It concerns the step from one to none only, which is never made.
    assert "cooldownPeriod" not in scaled
    assert (trigger["metadata"]["taskQueue"], trigger["metadata"]["endpoint"]) == ("plattr", "temporal:7233")
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    assert authentication["spec"]["secretTargetRef"] == [{"parameter": "apiKey", "name": "temporal", "key": "api-key"}]


def test_what_needs_an_operator_is_off_unless_asked_for(helm: Helm) -> None:
    native = {"v1", "apps/v1", "policy/v1", "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1"}
    native |= {"admissionregistration.k8s.io/v1"}

    assert {each["apiVersion"] for each in helm.render()} <= set(native)


# Of Temporal's SDK, which makes a metric when it counts first; seen on a worker of temporalio 1.35.
SDK_METRICS = {
    *("temporal_workflow_completed_total", "temporal_workflow_failed_total"),
    *("temporal_workflow_continue_as_new_total", "temporal_workflow_task_execution_failed_total"),
    "temporal_activity_schedule_to_start_latency_seconds_bucket",
    "temporal_workflow_task_schedule_to_start_latency_seconds_bucket",
    "temporal_worker_task_slots_available",
}


def test_alerts_and_dashboard_ask_for_metrics_that_exist(helm: Helm) -> None:
    objects = helm.render(WITH_EVERYTHING)
    rules = [rule for group in only(objects, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    dashboard = json.loads(only(objects, "ConfigMap", "dashboard")["data"]["plattr.json"])
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", [])]
    expressions = [rule["expr"] for rule in rules] + [target["expr"] for target in targets]

    asked = {name for text in expressions for name in re.findall(r"\b(?:plattr|temporal)_[a-z_]+\b", text)}

    registry = CollectorRegistry()
    WatcherMetrics(registry)
    registry.register(PhaseCollector(lambda: {("Application", "production", "Running"): 1}))
    for metric in (STEP_SECONDS, STEP_ATTEMPTS, BACKEND_ERRORS, VANISHED):
        registry.register(metric)
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    reported = {f"{metric.name}{suffix}" for metric in registry.collect() for suffix in suffixes[metric.type]}
    assert len(rules) >= 8
    assert asked <= reported | SDK_METRICS
    assert asked >= SDK_METRICS


def test_alerts_name_the_release_and_say_what_to_do(helm: Helm) -> None:
    objects = helm.render(WITH_EVERYTHING, release="fleet", namespace="platform")
    rules = [rule for group in only(objects, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    jobs = {job for rule in rules for job in re.findall(r'job="([^"]+)"', rule["expr"])}

    services = {each["metadata"]["name"] for each in objects if each["kind"] == "Service"}
    assert jobs == services == {"fleet-plattr-worker", "fleet-plattr-watcher"}
    assert not re.search(r"<[a-z]+>", json.dumps(rules))
    assert all(rule["annotations"]["runbook"] for rule in rules)


def test_a_monitor_selects_its_service(helm: Helm) -> None:
    objects = helm.render(WITH_EVERYTHING)

    for process in PROCESSES:
        wanted = only(objects, "ServiceMonitor", process)["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= only(objects, "Service", process)["metadata"]["labels"].items()


def test_traefik_gets_the_middleware_that_ingresses_name(helm: Helm) -> None:
    source = yaml.safe_load((ROOT / "deploy" / "traefik" / "middleware.yaml").read_text())

    middleware = only(helm.render({"settings": {"INGRESS_PROFILE": "traefik"}}), "Middleware")

    assert middleware["spec"] == source["spec"]
    assert middleware["metadata"]["name"] == source["metadata"]["name"]
    assert middleware["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
