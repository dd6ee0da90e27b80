"""Writing the status of an object, from updates and from what is really there."""

import asyncio
from datetime import datetime

import pytest

from clients.resources import DEPLOYMENTS, INGRESSES, SERVICE_ACCOUNTS, Json
from plattr.errors import Conflict, Superseded
from plattr.features import ConditionType
from plattr.manifests.deployment import build_deployment
from plattr.manifests.ingress import build_ingress, ingress_profile
from plattr.manifests.pod import Placeholder
from plattr.manifests.service_account import build_service_account
from plattr.objects import PAUSED_ANNOTATION, CustomObject, ObjectReference
from plattr.status import ConditionUpdate, Phase
from plattr.steps import StatusInput
from plattr.target import Target
from tests.fix_kubernetes import Cluster, application_spec, random_name
from tests.inputs import status_of, step_of
from tests.kstatus import kstatus

DATABASE_READY = ConditionUpdate(type=ConditionType.DATABASE, status="True", reason="Ready", message="schema is there")
AVAILABLE = ConditionUpdate(type=ConditionType.DEPLOYMENT, status="True", reason="Available", message="2 replicas")
ROUTED = ConditionUpdate(type=ConditionType.INGRESS, status="True", reason="Applied", message="routes are set")


def failed(reason: str = "BackendUnavailable", message: str = "cannot reach PostgreSQL") -> ConditionUpdate:
    return ConditionUpdate(type=ConditionType.DATABASE, status="False", reason=reason, message=message)


def condition_of(custom_object: CustomObject, kind: ConditionType) -> Json:
    (condition,) = [each for each in custom_object.status["conditions"] if each["type"] == kind]
    return dict(condition)


async def running_workload(cluster: Cluster, target: Target, *, outcome: str = "ready") -> None:
    """Put up the Deployment and the Ingress as the workload step does; `outcome` is what becomes of the pods."""
    names = target.names
    placeholder = Placeholder(image=cluster.settings.placeholder_image, port=8080)
    deployment = build_deployment(target, placeholder=placeholder, checksum="none", postgrest_pool=5)
    deployment["spec"]["template"]["metadata"].setdefault("annotations", {})["sim/outcome"] = outcome
    profile = ingress_profile("nginx", platform_namespace="plattr-system")
    ingress = build_ingress(target, profile=profile, cluster_issuer="letsencrypt")
    account = build_service_account(target, role_template=None)
    await cluster.kube.apply_owned(SERVICE_ACCOUNTS, account, target.owner, names.namespace)
    await cluster.kube.apply_owned(DEPLOYMENTS, deployment, target.owner, names.namespace)
    await cluster.kube.apply_owned(INGRESSES, ingress, target.owner, names.namespace)


async def await_availability(cluster: Cluster, target: Target, wanted: str) -> None:
    async with asyncio.timeout(20):
        while True:
            body = await cluster.admin.get(DEPLOYMENTS, target.names.stem, target.names.namespace)
            conditions = (body or {}).get("status", {}).get("conditions", [])
            if any(each["type"] == "Available" and each["status"] == wanted for each in conditions):
                return
            await asyncio.sleep(0.1)


@pytest.fixture
async def application(cluster: Cluster, namespace: str) -> CustomObject:
    return await cluster.apply(namespace, random_name())


class TestConditions:
    async def test_findings_become_conditions_of_the_generation(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        result = await cluster.statuses.write_status(status_of(application, updates=(DATABASE_READY,)))

        after = await cluster.read(application.reference)
        condition = condition_of(after, ConditionType.DATABASE)
        assert (result.phase, result.is_written) == (Phase.RUNNING, True)
        assert after.status["observedGeneration"] == application.metadata.generation
        assert condition["observedGeneration"] == application.metadata.generation
        assert (condition["status"], condition["reason"]) == ("True", "Ready")
        assert condition["lastTransitionTime"].endswith("Z")

    async def test_the_same_again_writes_nothing(self, cluster: Cluster, application: CustomObject) -> None:
        status = status_of(application, updates=(DATABASE_READY, failed().model_copy(update={"type": "AuthReady"})))
        await cluster.statuses.write_status(status)
        before = await cluster.body(application.reference)
        events = await cluster.events_about(application)

        result = await cluster.statuses.write_status(status)

        assert not result.is_written
        assert await cluster.body(application.reference) == before
        assert await cluster.events_about(application) == events

    async def test_the_transition_time_moves_only_with_the_status(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        times = []
        for update in (failed("BackendUnavailable"), failed("BackendRefused"), DATABASE_READY):
            await cluster.statuses.write_status(status_of(application, updates=(update,)))
            condition = condition_of(await cluster.read(application.reference), ConditionType.DATABASE)
            times.append(datetime.fromisoformat(condition["lastTransitionTime"]))
            # A time in the status has whole seconds.
            await asyncio.sleep(1.1)

        first, second, third = times
        assert first == second
        assert third > second

    async def test_a_condition_that_nothing_names_any_more_goes(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        await cluster.statuses.write_status(status_of(application, updates=(DATABASE_READY,)))

        await cluster.statuses.write_status(
            status_of(application, updates=(DATABASE_READY.model_copy(update={"type": ConditionType.AUTH}),))
        )

        conditions = (await cluster.read(application.reference)).status["conditions"]
        assert [condition["type"] for condition in conditions] == ["Ready", "AuthReady"]

    async def test_the_warning_of_a_previews_end_is_left_to_whoever_gave_it(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        expiring = ConditionUpdate(type=ConditionType.EXPIRING, status="True", reason="ExpiresSoon")
        await cluster.statuses.write_status(status_of(application, updates=(expiring,)))

        await cluster.statuses.write_status(status_of(application, updates=(DATABASE_READY,)))

        conditions = (await cluster.read(application.reference)).status["conditions"]
        assert [condition["type"] for condition in conditions] == ["Ready", "DatabaseReady", "Expiring"]

    async def test_what_a_run_did_not_reach_keeps_its_word_or_waits(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        storage = DATABASE_READY.model_copy(update={"type": ConditionType.STORAGE})
        await cluster.statuses.write_status(status_of(application, updates=(storage,)))

        result = await cluster.statuses.write_status(
            status_of(
                application,
                updates=(failed(),),
                unreached=(ConditionType.STORAGE, ConditionType.DEPLOYMENT),
                retries_exhausted=True,
            )
        )

        after = await cluster.read(application.reference)
        assert result.phase is Phase.FAILED
        assert condition_of(after, ConditionType.STORAGE)["status"] == "True"
        assert condition_of(after, ConditionType.DEPLOYMENT)["status"] == "Unknown"
        assert after.status["observedGeneration"] == application.metadata.generation

    async def test_a_stranger_who_writes_in_between_is_not_overwritten(
        self, cluster: Cluster, application: CustomObject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target_of = cluster.loader.target_of

        async def target_after_a_stranger(custom_object: CustomObject) -> object:
            await cluster.set_status(application, phase="Provisioning")
            return await target_of(custom_object)

        monkeypatch.setattr(cluster.loader, "target_of", target_after_a_stranger)

        with pytest.raises(Conflict):
            await cluster.statuses.write_status(status_of(application, updates=(failed(),)))


class TestSuperseded:
    async def test_an_object_that_is_gone_is_not_written(self, cluster: Cluster, namespace: str) -> None:
        reference = ObjectReference(namespace=namespace, name="gone")

        result = await cluster.statuses.write_status(StatusInput(reference=reference, updates=(failed(),)))

        assert not result.is_written

    async def test_a_newer_spec_is_not_given_the_status_of_an_older_one(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        reference = application.reference
        await cluster.apply(reference.namespace, reference.name, application_spec(branch="next"))

        with pytest.raises(Superseded):
            await cluster.statuses.write_status(status_of(application, updates=(DATABASE_READY,)))

        assert (await cluster.read(reference)).status["observedGeneration"] == 0

    async def test_a_re_created_object_is_not_given_the_status_of_the_first(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        reference = application.reference
        await cluster.force_away(reference)
        await cluster.apply(reference.namespace, reference.name)

        with pytest.raises(Superseded):
            await cluster.statuses.write_status(status_of(application, updates=(DATABASE_READY,)))

    async def test_an_object_that_was_paused_meanwhile_is_left_alone(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        metadata = {"annotations": {PAUSED_ANNOTATION: "true"}}
        reference = application.reference
        paused = await cluster.apply(reference.namespace, reference.name, metadata=metadata)

        for status in (status_of(paused, updates=(failed(),)), StatusInput(reference=reference, updates=(failed(),))):
            with pytest.raises(Superseded, match="paused"):
                await cluster.statuses.write_status(status)
        with pytest.raises(Superseded, match="paused"):
            await cluster.loader.load(step_of(paused))

        assert "conditions" not in (await cluster.read(reference)).status

    async def test_an_object_that_is_being_deleted_is_left_to_its_cleanup(
        self, cluster: Cluster, namespace: str
    ) -> None:
        application = await cluster.apply(namespace, random_name(), metadata={"finalizers": ["example.test/hold"]})
        await cluster.delete(application.reference)

        with pytest.raises(Superseded):
            await cluster.statuses.write_status(StatusInput(reference=application.reference, updates=(failed(),)))


class TestRefusedObjects:
    async def test_a_refused_spec_is_said_to_be_so_and_has_no_url(self, cluster: Cluster, namespace: str) -> None:
        spec = application_spec(domain=cluster.settings.base_domain)
        application = await cluster.apply(namespace, random_name(), spec)
        refused = ConditionUpdate(
            type=ConditionType.READY, status="False", reason="InvalidSpec", message="cannot accept"
        )

        result = await cluster.statuses.write_status(
            StatusInput(reference=application.reference, updates=(refused,), retries_exhausted=True, is_refused=True)
        )

        after = await cluster.read(application.reference)
        (event,) = await cluster.events_about(application)
        assert result.phase is Phase.FAILED
        assert condition_of(after, ConditionType.READY)["reason"] == "InvalidSpec"
        assert kstatus(await cluster.body(application.reference)) == "Failed"
        assert "url" not in after.status
        assert (event["type"], event["reason"], event["message"]) == ("Warning", "InvalidSpec", "cannot accept")

    async def test_what_ran_before_a_refusal_is_not_forgotten(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        await cluster.statuses.write_status(status_of(application, updates=(DATABASE_READY,)))
        refused = ConditionUpdate(
            type=ConditionType.READY, status="False", reason="InvalidSpec", message="cannot accept"
        )

        await cluster.statuses.write_status(
            StatusInput(reference=application.reference, updates=(refused,), retries_exhausted=True, is_refused=True)
        )

        after = await cluster.read(application.reference)
        assert condition_of(after, ConditionType.DATABASE)["status"] == "True"

    async def test_an_acceptance_later_takes_the_refusal_away(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        refused = ConditionUpdate(
            type=ConditionType.READY, status="False", reason="InvalidSpec", message="cannot accept"
        )
        await cluster.statuses.write_status(
            StatusInput(reference=application.reference, updates=(refused,), retries_exhausted=True, is_refused=True)
        )

        result = await cluster.statuses.write_status(status_of(application, updates=(DATABASE_READY,)))

        assert result.phase is Phase.RUNNING
        types = [each["type"] for each in (await cluster.read(application.reference)).status["conditions"]]
        assert types == ["Ready", "DatabaseReady"]
        assert kstatus(await cluster.body(application.reference)) == "Current"


class TestUnderway:
    """What is said before the rollout ends."""

    waits = ConditionUpdate(type=ConditionType.DEPLOYMENT, status="False", reason="RolloutInProgress", message="0 of 1")

    async def test_what_is_done_is_said_while_the_rollout_goes_on(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        updates = (DATABASE_READY, self.waits)

        result = await cluster.statuses.write_status(status_of(application, updates=updates, is_underway=True))

        after = await cluster.read(application.reference)
        assert (result.phase, result.is_written) == (Phase.PROVISIONING, True)
        assert condition_of(after, ConditionType.DATABASE)["status"] == "True"
        assert condition_of(after, ConditionType.DEPLOYMENT)["reason"] == "RolloutInProgress"
        assert condition_of(after, ConditionType.RECONCILING)["status"] == "True"
        assert kstatus(await cluster.body(application.reference)) == "InProgress"
        # Most rollouts are well in the end.
        assert await cluster.events_about(application) == []

    async def test_a_failure_that_was_said_on_the_way_has_its_event_once(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        updates = (failed(), self.waits)

        await cluster.statuses.write_status(status_of(application, updates=updates, is_underway=True))
        await cluster.statuses.write_status(status_of(application, updates=updates, retries_exhausted=True))

        events = [event for event in await cluster.events_about(application) if event["reason"] == "BackendUnavailable"]
        assert [event["count"] for event in events] == [1]

    @pytest.mark.parametrize(
        ("status", "reason", "is_written"),
        [("Unknown", "RolloutInProgress", False), ("Unknown", "Unhealthy", True), ("False", "RolloutInProgress", True)],
    )
    async def test_an_autoscaler_at_work_does_not_make_what_runs_provisioning(
        self, cluster: Cluster, application: CustomObject, *, status: str, reason: str, is_written: bool
    ) -> None:
        await cluster.statuses.write_status(status_of(application, updates=(DATABASE_READY,)))
        waits = self.waits.model_copy(update={"status": status, "reason": reason})

        result = await cluster.statuses.write_status(
            status_of(application, updates=(DATABASE_READY, waits), is_underway=True)
        )

        assert result.is_written is is_written


class TestEvents:
    async def test_a_failure_is_a_warning_and_its_repetition_after_a_recovery_counts_up(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        for update in (failed(), DATABASE_READY, failed()):
            await cluster.statuses.write_status(status_of(application, updates=(update,)))

        events = {event["reason"]: event for event in await cluster.events_about(application)}
        assert set(events) == {"BackendUnavailable", "Provisioned"}
        assert (events["BackendUnavailable"]["type"], events["BackendUnavailable"]["count"]) == ("Warning", 2)
        assert (events["Provisioned"]["type"], events["Provisioned"]["count"]) == ("Normal", 1)

    async def test_a_failure_for_another_reason_is_another_warning(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        for reason in ("BackendUnavailable", "BackendRefused"):
            await cluster.statuses.write_status(status_of(application, updates=(failed(reason),)))

        assert {event["reason"] for event in await cluster.events_about(application)} == {
            "BackendUnavailable",
            "BackendRefused",
        }


class TestObservation:
    async def test_a_running_workload_is_confirmed_and_has_its_url(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        target = await cluster.loader.load(step_of(application))
        await running_workload(cluster, target)
        await await_availability(cluster, target, "True")

        result = await cluster.statuses.write_status(status_of(application, updates=(AVAILABLE, ROUTED)))

        after = await cluster.read(application.reference)
        assert result.phase is Phase.RUNNING
        assert after.status["url"] == f"https://{application.metadata.name}.core.example.test"

    async def test_a_deployment_that_went_meanwhile_is_missed(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        result = await cluster.statuses.write_status(status_of(application, updates=(AVAILABLE, ROUTED)))

        after = await cluster.read(application.reference)
        assert result.phase is Phase.PROVISIONING
        assert condition_of(after, ConditionType.DEPLOYMENT)["reason"] == "DeploymentMissing"
        assert condition_of(after, ConditionType.INGRESS)["reason"] == "IngressMissing"
        assert "url" not in after.status

    async def test_a_deployment_that_broke_meanwhile_is_said_to_be_so(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        target = await cluster.loader.load(step_of(application))
        await running_workload(cluster, target, outcome="unready")
        await await_availability(cluster, target, "False")

        await cluster.statuses.write_status(status_of(application, updates=(AVAILABLE, ROUTED)))

        condition = condition_of(await cluster.read(application.reference), ConditionType.DEPLOYMENT)
        assert (condition["status"], condition["reason"]) == ("False", "MinimumReplicasUnavailable")

    async def test_an_ingress_that_leads_elsewhere_is_noticed(
        self, cluster: Cluster, application: CustomObject
    ) -> None:
        target = await cluster.loader.load(step_of(application))
        await running_workload(cluster, target)
        moved = [{"op": "replace", "path": "/spec/rules/0/host", "value": "elsewhere.example.test"}]
        await cluster.admin.json_patch(INGRESSES, target.names.stem, moved, target.names.namespace)

        await cluster.statuses.write_status(status_of(application, updates=(ROUTED,)))

        condition = condition_of(await cluster.read(application.reference), ConditionType.INGRESS)
        assert (condition["status"], condition["reason"]) == ("False", "HostMissing")

    async def test_a_preview_shows_its_namespace_and_its_end(self, cluster: Cluster, namespace: str) -> None:
        parent = random_name()
        await cluster.apply(namespace, parent)
        preview = await cluster.preview(namespace, random_name(), parent, ttl="2h")

        await cluster.statuses.write_status(status_of(preview, updates=(DATABASE_READY,)))

        status = (await cluster.read(preview.reference)).status
        end = datetime.fromisoformat(status["expiresAt"])
        assert status["namespace"] == f"preview-{parent}-pr-7"
        assert (end - preview.metadata.creation_timestamp).total_seconds() == 7200
