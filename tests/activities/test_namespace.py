"""The namespaces of previews on a real API server."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from activities import namespace
from activities.namespace import NamespaceActivities
from clients.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    LIMIT_RANGES,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    RESOURCE_QUOTAS,
    SERVICE_ACCOUNTS,
    Json,
)
from plattr.claims import Claim
from plattr.errors import BackendRefused, OwnedElsewhere, StillDeleting
from plattr.features import ClaimKind
from plattr.naming import PREVIEW_LIMITS
from plattr.steps import StepInput
from stack.platform import Platform
from tests.fix_kubernetes import config_map
from tests.fix_tenant import ROLE_BINDINGS, Tenant
from tests.fix_workload import Team
from tests.inputs import estate, rollout_of


@pytest.fixture
async def parent(team: Team) -> AsyncIterator[str]:
    """The name of an Application; the namespaces of its previews go in the end."""
    step = await team.create(f"p{secrets.token_hex(4)}", redis={"enabled": True})
    yield step.reference.name
    for body in await team.kube.list(NAMESPACES, label_selector=f"platform.internal/app={step.reference.name}"):
        await team.kube.delete(NAMESPACES, body["metadata"]["name"])


async def made(team: Team, parent: str, pull_request: int = 7) -> tuple[StepInput, Json]:
    step = await team.create_preview(parent, pull_request)
    await team.namespaces.reconcile_namespace(step)
    body = await team.kube.get(NAMESPACES, f"preview-{parent}-pr-{pull_request}")
    assert body is not None
    return step, body


async def test_the_namespace_says_what_it_is_for(team: Team, parent: str) -> None:
    _, body = await made(team, parent)

    labels = body["metadata"]["labels"]
    assert labels["platform.internal/type"] == "preview"
    assert labels["platform.internal/app"] == parent
    assert labels["platform.internal/pr"] == "7"
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


async def test_a_second_run_writes_nothing(team: Team, parent: str) -> None:
    step, before = await made(team, parent)

    await team.namespaces.reconcile_namespace(step)

    assert await team.kube.get(NAMESPACES, before["metadata"]["name"]) == before


async def test_a_preview_runs_in_its_own_namespace_and_leaves_it(team: Team, parent: str) -> None:
    step, body = await made(team, parent)
    name = body["metadata"]["name"]
    await team.redis.reconcile_redis(step)
    await team.workload.reconcile_workload(step)
    rollout = await team.rollout.await_rollout(rollout_of(step))
    deployments = await team.kube.list(DEPLOYMENTS, name)
    cleanup = await team.delete(step)

    await team.workload.delete_workload(cleanup)
    await team.redis.delete_redis(cleanup)

    assert rollout.is_done
    assert [each["metadata"]["name"] for each in deployments] == [f"{parent}-pr7"]
    assert await team.kube.list(DEPLOYMENTS, name) == []
    assert await team.kube.list(PODS, name) == []
    left = {each["metadata"]["name"] for each in await team.kube.list(CONFIG_MAPS, name)}
    assert left == {"kube-root-ca.crt"}


async def test_an_existing_namespace_of_somebody_else_is_refused_and_survives_the_deletion(
    team: Team, parent: str
) -> None:
    name = f"preview-{parent}-pr-7"
    labels = {"platform.internal/app": parent}
    theirs = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    await team.kube.create(NAMESPACES, theirs)
    before = await team.kube.get(NAMESPACES, name)
    step = await team.create_preview(parent, 7)

    with pytest.raises(OwnedElsewhere):
        await team.namespaces.reconcile_namespace(step)
    await team.namespaces.delete_namespace(await team.delete(step))

    assert await team.kube.get(NAMESPACES, name) == before


async def test_deletion_waits_until_the_namespace_is_gone_and_a_second_one_succeeds(team: Team, parent: str) -> None:
    step, body = await made(team, parent)
    claim = Claim(kind=ClaimKind.NAMESPACE, name=body["metadata"]["name"])
    await team.claim_store.acquire((await team.target(step)).owner, [claim])
    cleanup = await team.delete(step)

    await team.namespaces.delete_namespace(cleanup)
    await team.namespaces.delete_namespace(cleanup)

    assert await team.kube.get(NAMESPACES, body["metadata"]["name"]) is None
    assert await team.claim_store.held_by(estate(step.reference)) == []


async def test_what_is_on_its_way_out_is_neither_reported_gone_nor_used_again(
    team: Team, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace, "WAIT_SECONDS", 0.5)
    step, body = await made(team, parent)
    name = body["metadata"]["name"]
    cleanup = await team.delete(step)

    with pytest.raises(StillDeleting, match=name):
        await team.namespaces.delete_namespace(cleanup)
    again = await team.create_preview(parent, 7)
    with pytest.raises(StillDeleting, match=name):
        await team.namespaces.reconcile_namespace(again)


async def test_deletion_leaves_the_namespace_of_a_new_incarnation(team: Team, parent: str) -> None:
    first, _ = await made(team, parent)
    cleanup = await team.delete(first)
    _, before = await made(team, parent)

    await team.namespaces.delete_namespace(cleanup)

    assert await team.kube.get(NAMESPACES, before["metadata"]["name"]) == before


async def claimed(team: Team, parent: str) -> tuple[StepInput, str]:
    """Make a preview's namespace with the claim of its name, as a run does."""
    step, name = await team.create_preview(parent, 7), f"preview-{parent}-pr-7"
    await team.claim_store.acquire((await team.target(step)).owner, [Claim(kind=ClaimKind.NAMESPACE, name=name)])
    await team.namespaces.reconcile_namespace(step)
    return step, name


async def unmark(team: Team, name: str, *parts: str) -> None:
    operations: list[Json] = [{"op": "replace", "path": f"/metadata/{part}", "value": {}} for part in parts]
    await team.kube.json_patch(NAMESPACES, name, operations)


@pytest.mark.attack
async def test_a_namespace_without_its_labels_is_found_by_its_claim_and_goes(team: Team, parent: str) -> None:
    step, name = await claimed(team, parent)
    await unmark(team, name, "labels")

    await team.namespaces.delete_namespace(await team.delete(step))

    assert await team.kube.get(NAMESPACES, name) is None
    assert await team.claim_store.held_by(estate(step.reference)) == []


@pytest.mark.attack
async def test_a_namespace_of_which_every_mark_was_taken_holds_the_deletion(team: Team, parent: str) -> None:
    step, name = await claimed(team, parent)
    await unmark(team, name, "labels", "annotations")
    cleanup = await team.delete(step)

    with pytest.raises(StillDeleting, match=f"'{name}': it was made for"):
        await team.namespaces.delete_namespace(cleanup)
    body = await team.kube.get(NAMESPACES, name)
    await team.kube.delete(NAMESPACES, name)
    await team.namespaces.delete_namespace(cleanup)

    assert body is not None
    assert "deletionTimestamp" not in body["metadata"]
    assert await team.claim_store.held_by(estate(step.reference)) == []


async def test_a_namespace_that_others_made_under_a_claimed_name_stays(team: Team, parent: str) -> None:
    name = f"preview-{parent}-pr-7"
    await team.kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    before = await team.kube.get(NAMESPACES, name)
    step = await team.create_preview(parent, 7)
    await team.claim_store.acquire((await team.target(step)).owner, [Claim(kind=ClaimKind.NAMESPACE, name=name)])
    with pytest.raises(OwnedElsewhere):
        await team.namespaces.reconcile_namespace(step)

    await team.namespaces.delete_namespace(await team.delete(step))

    assert await team.kube.get(NAMESPACES, name) == before
    await team.kube.delete(NAMESPACES, name)


PARTS = ("", "/status")
QUOTA = {"pods": "2", "requests.cpu": "1", "services.loadbalancers": "0"}
LIMIT = {"type": "Container", "default": {"cpu": "100m", "memory": "64Mi"}}
RULES: Json = {"ingress": [{"from": [{"podSelector": {}}]}], "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]}
BOUNDS = (RESOURCE_QUOTAS, LIMIT_RANGES, NETWORK_POLICIES)


@pytest.fixture
def bounded(team: Team) -> NamespaceActivities:
    """Activities of a platform that bounds its previews."""
    update = {
        "preview_quota": QUOTA,
        "preview_limit_range": [LIMIT],
        "preview_network_policy": RULES,
        "preview_namespace_labels": {"istio-injection": "enabled"},
        "preview_namespace_annotations": {"linkerd.io/inject": "enabled"},
    }
    return team.bounded(team.settings.model_copy(update=update))


async def bounds_of(team: Team, namespace: str) -> list[Json | None]:
    return [await team.kube.get(resource, PREVIEW_LIMITS, namespace) for resource in BOUNDS]


async def with_bounds(team: Team, parent: str, bounded: NamespaceActivities) -> tuple[StepInput, str]:
    step = await team.create_preview(parent, 7)
    await bounded.reconcile_namespace(step)
    return step, f"preview-{parent}-pr-7"


def pod(name: str) -> Json:
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    resources = {"requests": {"cpu": "10m"}}
    container = {"name": "app", "image": "x", "securityContext": security, "resources": resources}
    spec = {
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@pytest.mark.attack
async def test_more_pods_than_a_preview_may_have_are_refused(
    team: Team, parent: str, bounded: NamespaceActivities
) -> None:
    _, namespace = await with_bounds(team, parent, bounded)
    # The controller has to have counted once, or the API server refuses any.
    while not ((await team.kube.get(RESOURCE_QUOTAS, PREVIEW_LIMITS, namespace)) or {}).get("status", {}).get("used"):
        await asyncio.sleep(0.1)
    # The default account of a new namespace comes from a controller too.
    while await team.kube.get(SERVICE_ACCOUNTS, "default", namespace) is None:
        await asyncio.sleep(0.1)

    for name in ("one", "two"):
        await team.kube.create(PODS, pod(name), namespace)
    with pytest.raises(BackendRefused):
        await team.kube.create(PODS, pod("three"), namespace)

    assert {each["metadata"]["name"] for each in await team.kube.list(PODS, namespace)} == {"one", "two"}


async def test_the_bounds_are_those_of_the_settings_and_a_second_run_writes_nothing(
    team: Team, parent: str, bounded: NamespaceActivities
) -> None:
    step, namespace = await with_bounds(team, parent, bounded)
    before = await bounds_of(team, namespace)

    await bounded.reconcile_namespace(step)

    quota, limits, policy = before
    assert quota is not None
    assert limits is not None
    assert policy is not None
    assert quota["spec"]["hard"] == QUOTA
    assert limits["spec"]["limits"][0]["default"] == LIMIT["default"]
    assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], **RULES}
    after = await bounds_of(team, namespace)
    assert [each and each["spec"] for each in after] == [each and each["spec"] for each in before]
    # The quota's own controller writes its status.
    assert after[1:] == before[1:]


@pytest.mark.attack
async def test_bounds_that_were_lifted_are_back_after_the_next_look(
    team: Team, parent: str, bounded: NamespaceActivities
) -> None:
    step, namespace = await with_bounds(team, parent, bounded)
    raise_it: list[Json] = [{"op": "replace", "path": "/spec/hard/pods", "value": "99"}]
    await team.kube.json_patch(RESOURCE_QUOTAS, PREVIEW_LIMITS, raise_it, namespace)
    open_it: list[Json] = [{"op": "add", "path": "/spec/ingress", "value": [{}]}]
    await team.kube.json_patch(NETWORK_POLICIES, PREVIEW_LIMITS, open_it, namespace)
    await team.kube.delete(LIMIT_RANGES, PREVIEW_LIMITS, namespace)

    await bounded.reconcile_namespace(step)

    quota, limits, policy = await bounds_of(team, namespace)
    assert quota is not None
    assert quota["spec"]["hard"]["pods"] == "2"
    assert limits is not None
    assert policy is not None
    assert policy["spec"]["ingress"] == RULES["ingress"]


async def test_bounds_that_the_settings_no_longer_ask_for_go_and_others_stay(
    team: Team, parent: str, bounded: NamespaceActivities
) -> None:
    step, namespace = await with_bounds(team, parent, bounded)
    theirs = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "theirs"}, "spec": {"limits": [LIMIT]}}
    await team.kube.create(LIMIT_RANGES, theirs, namespace)

    await team.namespaces.reconcile_namespace(step)

    assert await bounds_of(team, namespace) == [None, None, None]
    assert await team.kube.get(LIMIT_RANGES, "theirs", namespace) is not None


async def test_labels_for_a_mesh_stand_beside_ours(team: Team, parent: str, bounded: NamespaceActivities) -> None:
    step, name = await with_bounds(team, parent, bounded)
    body = await team.kube.get(NAMESPACES, name)
    await team.namespaces.reconcile_namespace(step)
    without = await team.kube.get(NAMESPACES, name)

    assert body is not None
    assert without is not None
    assert body["metadata"]["labels"]["istio-injection"] == "enabled"
    assert body["metadata"]["annotations"]["linkerd.io/inject"] == "enabled"
    assert body["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert "istio-injection" not in without["metadata"]["labels"]


@pytest.mark.attack
async def test_who_may_edit_a_previews_namespace_does_not_lift_its_bounds(
    team: Team, parent: str, bounded: NamespaceActivities, platform: Platform
) -> None:
    step, namespace = await with_bounds(team, parent, bounded)
    name = f"tenant-of-{namespace}"
    binding = {
        "apiVersion": ROLE_BINDINGS.api_version,
        "kind": ROLE_BINDINGS.kind,
        "metadata": {"name": "tenant", "namespace": namespace},
        # More than `edit`, which has no right on quotas at all.
        "roleRef": {"apiGroup": ROLE_BINDINGS.group, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": name, "apiGroup": ROLE_BINDINGS.group}],
    }
    await team.kube.create(ROLE_BINDINGS, binding, namespace)
    tenant = Tenant(platform, name)
    policies = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    spec = {"podSelector": {}, "ingress": [{}], "egress": [{}], "policyTypes": ["Ingress", "Egress"]}
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    hard = {"spec": {"hard": {"pods": "99"}}}
    core = f"/api/v1/namespaces/{namespace}"
    status = {"status": {"hard": {"pods": "1000"}}}
    unmarked: list[Json] = [
        {"metadata": {"labels": {"platform.internal/type": None}}},
        {"metadata": {"labels": {"platform.internal/owner-name": None}}},
        {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}},
        {"metadata": {"annotations": {"platform.internal/owner": None}}},
    ]
    bare = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}, "spec": {"finalizers": []}}

    answers = [
        await tenant.send("POST", policies, {**kind, "metadata": {"name": "open"}, "spec": spec}),
        await tenant.send("PATCH", f"{policies}/{PREVIEW_LIMITS}", {"spec": {"ingress": [{}]}}, patch="merge"),
        await tenant.send("DELETE", f"{policies}/{PREVIEW_LIMITS}", {}),
        await tenant.send("DELETE", policies, {}),
        await tenant.send("PATCH", f"{core}/resourcequotas/{PREVIEW_LIMITS}", hard, patch="merge"),
        await tenant.send("DELETE", f"{core}/resourcequotas/{PREVIEW_LIMITS}", {}),
        await tenant.send("DELETE", f"{core}/limitranges/{PREVIEW_LIMITS}", {}),
        await tenant.send("PATCH", f"{core}/resourcequotas/{PREVIEW_LIMITS}/status", status, patch="merge"),
        *[await tenant.send("PATCH", f"{core}{part}", each, patch="merge") for part in PARTS for each in unmarked],
        await tenant.send("PUT", f"{core}/finalize", bare),
    ]
    own = await tenant.send("POST", f"{core}/configmaps", config_map("mine"))
    await tenant.close()
    await team.namespaces.delete_namespace(await team.delete(step))

    assert [answer["code"] for answer in answers] == [403] * len(answers)
    assert all("PREVIEW_*" in answer["message"] for answer in answers)
    assert own["kind"] == "ConfigMap"
