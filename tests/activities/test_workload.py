"""The workload on a real API server, in a namespace that admits `restricted` pods only."""

import asyncio
import secrets

import pytest

from clients.resources import (
    AUTOSCALERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    INGRESSES,
    REPLICA_SETS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from plattr.claims import Claim, claims_of
from plattr.errors import Conflict, OwnedElsewhere, Superseded
from plattr.features import ClaimKind, ConditionType
from plattr.objects import ObjectReference, Owner
from plattr.steps import StepInput
from plattr.target import OWNER_UID_ANNOTATION, owner_annotations, owner_labels
from tests.fix_workload import EVERY_FEATURE, WORKLOAD_KINDS, Team, foreign
from tests.inputs import estate


async def container_names(team: Team, step: StepInput) -> set[str]:
    deployment = await team.get(DEPLOYMENTS, step.reference.name)
    return {container["name"] for container in deployment["spec"]["template"]["spec"]["containers"]}


async def test_a_workload_is_admitted_as_restricted_and_runs(team: Team) -> None:
    step = await team.create(**EVERY_FEATURE)

    await team.running(step)

    pods = await team.pods_of(step)
    assert {pod["status"]["phase"] for pod in pods} == {"Running"}
    assert await container_names(team, step) == {"app", "postgrest"}


async def test_everything_of_the_specification_is_made(team: Team) -> None:
    step = await team.create(**EVERY_FEATURE)
    name = step.reference.name

    result = await team.workload.reconcile_workload(step)

    host = f"{name}.{team.settings.base_domain}"
    (update,) = result.updates
    assert (update.type, update.status, update.reason) == (ConditionType.INGRESS, "True", "Applied")
    assert f"https://{host}/api/rest" in update.message
    service = await team.get(SERVICES, name)
    assert [port["port"] for port in service["spec"]["ports"]] == [80, 3001]
    autoscaler = (await team.get(AUTOSCALERS, name))["spec"]
    assert (autoscaler["minReplicas"], autoscaler["maxReplicas"]) == (2, 20)
    ingresses = [(await team.get(INGRESSES, each))["spec"] for each in (name, f"{name}-api")]
    assert {ingress["rules"][0]["host"] for ingress in ingresses} == {host}
    # The local platform has no cert-manager; tests/manifests/test_ingress.py has the Secret.
    assert [ingress["tls"] for ingress in ingresses] == [[{"hosts": [host]}]] * 2
    assert (await team.get(SERVICE_ACCOUNTS, name))["automountServiceAccountToken"] is False


async def test_a_second_reconcile_writes_nothing(team: Team) -> None:
    step = await team.running(await team.create(**EVERY_FEATURE))
    before = await team.versions(step)

    await team.workload.reconcile_workload(step)

    assert await team.versions(step) == before


async def test_the_autoscalers_replicas_survive_a_reconcile(team: Team) -> None:
    step = await team.running(await team.create())
    name = step.reference.name
    scale = [{"op": "replace", "path": "/spec/replicas", "value": 7}]
    await team.kube.json_patch(DEPLOYMENTS, name, scale, team.namespace, subresource="scale")

    await team.running(await team.change(step, envVars=[{"name": "COLOUR", "value": "red"}]))

    deployment = await team.get(DEPLOYMENTS, name)
    assert deployment["spec"]["replicas"] == 7
    assert deployment["status"]["availableReplicas"] == 7


async def test_drift_is_repaired(team: Team) -> None:
    step = await team.create()
    name = step.reference.name
    await team.workload.reconcile_workload(step)
    port = [{"op": "replace", "path": "/spec/ports/0/targetPort", "value": 9}]
    await team.kube.json_patch(SERVICES, name, port, team.namespace)
    await team.kube.delete(INGRESSES, name, team.namespace)

    await team.workload.reconcile_workload(step)

    assert (await team.get(SERVICES, name))["spec"]["ports"][0]["targetPort"] == "http"
    assert (await team.get(INGRESSES, name))["spec"]["ingressClassName"] == "nginx"


async def test_a_disabled_features_config_map_goes(team: Team) -> None:
    step = await team.create(**EVERY_FEATURE)
    name = step.reference.name
    await team.workload.reconcile_workload(step)

    step = await team.change(step, redis={"enabled": False}, storage={"enabled": False})
    await team.workload.reconcile_workload(step)

    assert await team.names_of(CONFIG_MAPS, name) == {f"{name}-auth", f"{name}-search"}


async def test_a_disabled_database_takes_sidecar_port_and_api_ingress_but_not_the_secret(team: Team) -> None:
    step = await team.create(**EVERY_FEATURE)
    name = step.reference.name
    await team.workload.reconcile_workload(step)

    step = await team.change(step, database={"enabled": False})
    await team.running(step)

    assert await container_names(team, step) == {"app"}
    assert [port["port"] for port in (await team.get(SERVICES, name))["spec"]["ports"]] == [80]
    assert await team.names_of(INGRESSES, name) == {name}
    assert await team.names_of(SECRETS, name) == {f"{name}-db"}


async def test_a_value_that_becomes_a_reference_leaves_no_trace_of_the_value(team: Team) -> None:
    step = await team.create(envVars=[{"name": "TOKEN", "value": "in the clear"}])
    await team.workload.reconcile_workload(step)

    reference = {"name": "mail", "key": "token"}
    step = await team.change(step, envVars=[{"name": "TOKEN", "secretKeyRef": reference}])
    await team.workload.reconcile_workload(step)

    deployment = await team.get(DEPLOYMENTS, step.reference.name)
    variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [each for each in variables if each["name"] == "TOKEN"] == [
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": reference}}
    ]


async def test_a_replaced_secret_rolls_the_pods(team: Team) -> None:
    step = await team.create(database={"enabled": True})
    await team.running(step)
    before, pods_before = await team.checksum(step), {pod["metadata"]["uid"] for pod in await team.pods_of(step)}
    await team.kube.delete(SECRETS, f"{step.reference.name}-db", team.namespace)
    await team.prepare(step)
    password = [{"op": "add", "path": "/data/DB_PASSWORD", "value": "bmV3"}]
    await team.kube.json_patch(SECRETS, f"{step.reference.name}-db", password, team.namespace)

    await team.running(step)

    assert await team.checksum(step) != before
    assert pods_before.isdisjoint({pod["metadata"]["uid"] for pod in await team.pods_of(step)})


@pytest.mark.parametrize("resource", [SECRETS, CONFIG_MAPS], ids=["secret", "config map"])
async def test_the_users_own_variables_roll_the_pods(team: Team, resource: Resource) -> None:
    step = await team.create()
    await team.workload.reconcile_workload(step)
    before = await team.checksum(step)
    body = {
        "apiVersion": "v1",
        "kind": resource.kind,
        "metadata": {"name": f"{step.reference.name}-env"},
        "data": {"COLOUR": "cmVk"},
    }
    await team.kube.create(resource, body, team.namespace)

    await team.workload.reconcile_workload(step)

    assert await team.checksum(step) != before


async def test_what_the_pods_do_not_read_leaves_the_checksum_alone(team: Team) -> None:
    step = await team.create(redis={"enabled": True})
    await team.workload.reconcile_workload(step)
    before = await team.checksum(step)
    label = [{"op": "add", "path": "/metadata/labels/colour", "value": "red"}]
    await team.kube.json_patch(CONFIG_MAPS, f"{step.reference.name}-redis", label, team.namespace)

    step = await team.change(step, scaling={"min": 1, "max": 3, "targetCPU": 50})
    await team.workload.reconcile_workload(step)

    assert await team.checksum(step) == before


async def test_a_secret_that_vanished_stops_the_workload_before_a_write(team: Team) -> None:
    step = await team.create(database={"enabled": True})
    await team.kube.delete(SECRETS, f"{step.reference.name}-db", team.namespace)

    with pytest.raises(Conflict):
        await team.workload.reconcile_workload(step)

    for resource in WORKLOAD_KINDS:
        assert await team.names_of(resource, step.reference.name) == set()


async def test_the_workload_comes_up_without_auth(team: Team) -> None:
    step = await team.create(auth={"enabled": True})
    await team.kube.delete(CONFIG_MAPS, f"{step.reference.name}-auth", team.namespace)

    await team.running(step)

    assert len(await team.pods_of(step)) == 1


FOREIGN = [
    pytest.param(SERVICE_ACCOUNTS, "", id="service account"),
    pytest.param(DEPLOYMENTS, "", id="deployment"),
    pytest.param(SERVICES, "", id="service"),
    pytest.param(INGRESSES, "", id="ingress"),
    pytest.param(INGRESSES, "-api", id="api ingress"),
    pytest.param(AUTOSCALERS, "", id="autoscaler"),
]


@pytest.mark.parametrize(("resource", "suffix"), FOREIGN)
@pytest.mark.parametrize("holder", ["nobody", "another owner"])
async def test_a_foreign_object_is_refused_untouched_and_nothing_else_is_written(
    team: Team, resource: Resource, suffix: str, holder: str
) -> None:
    step = await team.create(database={"enabled": True})
    name = step.reference.name
    theirs = foreign(resource, f"{name}{suffix}")
    if holder == "another owner":
        other = Owner(reference=ObjectReference(namespace=team.namespace, name="other"), uid="u")
        theirs["metadata"] |= {"labels": owner_labels(other.reference), "annotations": owner_annotations(other)}
    await team.kube.create(resource, theirs, team.namespace)
    before = await team.get(resource, f"{name}{suffix}")

    with pytest.raises(OwnedElsewhere) as refusal:
        await team.workload.reconcile_workload(step)

    assert f"{name}{suffix}" in str(refusal.value)
    assert refusal.value.condition == (ConditionType.INGRESS if resource is INGRESSES else None)
    after = await team.get(resource, f"{name}{suffix}")
    if resource is DEPLOYMENTS:
        # Its controller writes the status; the generation counts every other change.
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
    else:
        assert after == before
    for other_kind in WORKLOAD_KINDS:
        assert await team.names_of(other_kind, name) == ({f"{name}{suffix}"} if other_kind is resource else set())


async def test_a_foreign_config_map_never_reaches_the_pods(team: Team) -> None:
    step = await team.create(redis={"enabled": True})
    name = f"{step.reference.name}-redis"
    await team.kube.delete(CONFIG_MAPS, name, team.namespace)
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"REDIS_URL": "evil"}}
    await team.kube.create(CONFIG_MAPS, theirs, team.namespace)

    with pytest.raises(OwnedElsewhere):
        await team.workload.reconcile_workload(step)

    assert await team.names_of(DEPLOYMENTS, step.reference.name) == set()


async def test_the_same_owner_created_anew_adopts_its_workload_without_a_roll(team: Team) -> None:
    first = await team.running(await team.create())
    pods = {pod["metadata"]["uid"] for pod in await team.pods_of(first)}
    await team.delete(first)

    second = await team.running(await team.create(first.reference.name))

    deployment = await team.get(DEPLOYMENTS, first.reference.name)
    assert deployment["metadata"]["annotations"][OWNER_UID_ANNOTATION] == second.uid != first.uid
    assert {pod["metadata"]["uid"] for pod in await team.pods_of(second)} == pods


async def test_a_former_domain_is_given_back(team: Team) -> None:
    token = secrets.token_hex(4)
    step = await team.create(domain=f"old-{token}.test")
    claims = [Claim(kind=ClaimKind.HOST, name=f"{age}-{token}.test") for age in ("old", "new")]
    await team.claim_store.acquire((await team.target(step)).owner, claims)

    step = await team.change(step, domain=f"new-{token}.test")
    await team.workload.reconcile_workload(step)

    held = await team.claim_store.held_by(estate(step.reference), ClaimKind.HOST)
    assert [each.claim for each in held] == [claims[1]]
    await team.claim_store.release(estate(step.reference), claims)


async def test_the_api_ingress_of_a_disabled_database_is_given_back_and_the_schema_kept(team: Team) -> None:
    step = await team.create(database={"enabled": True})
    target = await team.target(step)
    await team.claim_store.acquire(target.owner, claims_of(target))
    await team.workload.reconcile_workload(step)

    step = await team.change(step, database={"enabled": False})
    await team.workload.reconcile_workload(step)

    held = {each.claim for each in await team.claim_store.held_by(estate(step.reference))}
    api_ingress = Claim(kind=ClaimKind.INGRESS, name=f"{team.namespace}.{step.reference.name}-api")
    assert set(claims_of(target)) - held == {api_ingress}
    await team.claim_store.release(estate(step.reference), list(held))


async def test_a_newer_generation_stops_the_step_before_a_write(team: Team) -> None:
    step = await team.create()
    await team.change(step, branch="other")

    with pytest.raises(Superseded):
        await team.workload.reconcile_workload(step)

    assert await team.names_of(SERVICES, step.reference.name) == set()


async def test_two_reconciles_at_once_end_in_one_workload(team: Team) -> None:
    step = await team.create(**EVERY_FEATURE)

    results = await asyncio.gather(*(team.workload.reconcile_workload(step) for _ in range(4)), return_exceptions=True)

    # Who lost a race is told so and tries again.
    assert all(isinstance(result, Conflict) for result in results if isinstance(result, BaseException))
    await team.running(step)
    selector = f"app.kubernetes.io/name={step.reference.name}"
    assert len(await team.kube.list(REPLICA_SETS, team.namespace, label_selector=selector)) == 1
