"""The end of a cleanup: names given back, the finalizer gone, or a word about why not."""

from datetime import timedelta

import pytest

from clients import quarantine
from clients.resources import INGRESSES, NAMESPACES, Json
from plattr.claims import Claim
from plattr.errors import BackendUnavailable
from plattr.features import ClaimKind, ConditionType
from plattr.objects import FINALIZER, CustomObject, ObjectReference
from plattr.status import ConditionUpdate
from plattr.steps import ClaimInput, CleanupInput, CleanupStepInput, StatusInput
from plattr.target import OWNER_UID_ANNOTATION, owner_annotations, owner_labels
from tests.fix_kubernetes import Cluster, application_spec, random_name
from tests.inputs import cleanup_of, estate, status_of

FOREIGN_FINALIZER = "example.test/foreign"
STUCK = ConditionUpdate(
    type=ConditionType.STORAGE, status="False", reason="BackendUnavailable", message="cannot reach the S3 server"
)


async def deleted(cluster: Cluster, namespace: str, **spec: object) -> CustomObject:
    """An Application that was claimed and is being deleted; a foreign finalizer keeps it in sight."""
    wanted = application_spec(database={"enabled": True}, **spec)
    application = await cluster.apply(namespace, random_name(), wanted, metadata={"finalizers": [FOREIGN_FINALIZER]})
    await cluster.claims.claim_object(ClaimInput(reference=application.reference))
    await cluster.delete(application.reference)
    return await cluster.read(application.reference)


def ready(kind: str) -> Json:
    return {
        "type": kind,
        "status": "True",
        "reason": "Ready",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }


class TestRelease:
    async def test_names_and_finalizer_go_and_the_foreign_finalizer_stays(
        self, cluster: Cluster, namespace: str
    ) -> None:
        application = await deleted(cluster, namespace)

        await cluster.releases.release_object(cleanup_of(application))

        assert (await cluster.read(application.reference)).metadata.finalizers == (FOREIGN_FINALIZER,)
        assert await cluster.leases(namespace) == []

    async def test_releasing_twice_changes_nothing_more(self, cluster: Cluster, namespace: str) -> None:
        application = await deleted(cluster, namespace)
        await cluster.releases.release_object(cleanup_of(application))
        before = await cluster.body(application.reference)

        await cluster.releases.release_object(cleanup_of(application))

        assert await cluster.body(application.reference) == before

    async def test_the_object_goes_with_its_last_finalizer(self, cluster: Cluster, namespace: str) -> None:
        application = await cluster.apply(namespace, random_name())
        await cluster.claims.claim_object(ClaimInput(reference=application.reference))
        await cluster.delete(application.reference)

        for _ in range(2):
            await cluster.releases.release_object(cleanup_of(application))

        assert await cluster.body(application.reference) is None

    async def test_what_a_gone_owner_held_is_released(self, cluster: Cluster, namespace: str) -> None:
        application = await cluster.apply(namespace, random_name(), application_spec(database={"enabled": True}))
        await cluster.claims.claim_object(ClaimInput(reference=application.reference))
        await cluster.force_away(application.reference)

        await cluster.releases.release_object(CleanupStepInput(reference=application.reference))

        assert await cluster.leases(namespace) == []

    async def test_an_object_goes_although_a_call_about_its_realm_may_still_come_true(
        self, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        application = await deleted(cluster, namespace)
        claim = Claim(kind=ClaimKind.REALM, name=application.reference.name)
        await cluster.claim_store.acquire(application.owner, [claim])
        with pytest.raises(BackendUnavailable):
            async with cluster.claim_store.track_call(estate(application.reference), claim):
                raise BackendUnavailable("no answer")

        first = await cluster.releases.release_object(cleanup_of(application))
        before = await cluster.leases(namespace)
        second = await cluster.releases.release_object(CleanupStepInput(reference=application.reference, retain=True))

        (held,) = await cluster.claim_store.held_by(estate(application.reference))
        assert (await cluster.read(application.reference)).metadata.finalizers == (FOREIGN_FINALIZER,)
        assert (held.claim, held.quarantined_until, held.is_retained) == (claim, first.look_again_at, False)
        assert second.look_again_at == first.look_again_at
        assert await cluster.leases(namespace) == before
        monkeypatch.setattr(quarantine, "LATE_CALL", timedelta(0))
        last = await cluster.releases.release_object(CleanupStepInput(reference=application.reference))
        assert last.look_again_at is None
        assert await cluster.leases(namespace) == []

    async def test_with_retain_only_what_served_the_workload_is_free_again(
        self, cluster: Cluster, namespace: str
    ) -> None:
        application = await deleted(cluster, namespace, deletionPolicy="Retain")
        before = {claim.claim for claim in await cluster.claim_store.held_by(estate(application.reference))}

        await cluster.releases.release_object(cleanup_of(application, retain=True))

        after = {claim.claim for claim in await cluster.claim_store.held_by(estate(application.reference))}
        assert {claim.kind for claim in before - after} == {ClaimKind.HOST, ClaimKind.INGRESS, ClaimKind.PREVIEWS}
        assert FINALIZER not in (await cluster.read(application.reference)).metadata.finalizers

    async def test_what_the_predecessor_retained_stays_claimed(self, cluster: Cluster, namespace: str) -> None:
        first = await deleted(cluster, namespace, deletionPolicy="Retain")
        await cluster.releases.release_object(cleanup_of(first, retain=True))
        await cluster.force_away(first.reference)
        spec = application_spec(database={"enabled": True}, environment="staging")
        second = await cluster.apply(namespace, first.reference.name, spec)
        await cluster.claims.claim_object(ClaimInput(reference=second.reference))
        await cluster.delete(second.reference)
        plan = await cluster.claims.plan_cleanup(CleanupInput(reference=second.reference))

        await cluster.releases.release_object(cleanup_of(second, *plan.outliving))

        held = await cluster.claim_store.held_by(estate(second.reference))
        assert {each.claim for each in held} == set(plan.outliving)
        assert {(each.owner.uid, each.is_retained) for each in held} == {(first.metadata.uid, True)}

    async def test_a_second_cleanup_by_the_watcher_still_retains(self, cluster: Cluster, namespace: str) -> None:
        # The policy became Retain after the last claim: only the cleanup itself knew of it.
        application = await deleted(cluster, namespace)
        await cluster.releases.release_object(cleanup_of(application, retain=True))
        await cluster.force_away(application.reference)

        plan = await cluster.claims.plan_cleanup(CleanupInput(reference=application.reference))

        assert plan.retain

    async def test_a_living_object_of_the_same_name_keeps_its_names_and_its_finalizer(
        self, cluster: Cluster, namespace: str
    ) -> None:
        name, spec = random_name(), application_spec(database={"enabled": True})
        first = await cluster.apply(namespace, name, spec)
        await cluster.claims.claim_object(ClaimInput(reference=first.reference))
        await cluster.force_away(first.reference)
        second = await cluster.apply(namespace, name, spec)
        await cluster.claims.claim_object(ClaimInput(reference=second.reference))
        before = await cluster.leases(namespace)

        await cluster.releases.release_object(cleanup_of(first))

        assert await cluster.leases(namespace) == before
        assert {lease["metadata"]["annotations"][OWNER_UID_ANNOTATION] for lease in before} == {second.metadata.uid}
        assert (await cluster.read(second.reference)).metadata.finalizers == (FINALIZER,)


class TestStuckDeletion:
    async def test_the_object_and_an_event_say_what_it_waits_for(self, cluster: Cluster, namespace: str) -> None:
        application = await deleted(cluster, namespace)

        result = await cluster.releases.report_stuck(status_of(application, updates=(STUCK,), retries_exhausted=True))

        after = await cluster.read(application.reference)
        events = [event for event in await cluster.events_about(application) if event["reason"] == "DeletionStuck"]
        (condition,) = [each for each in after.status["conditions"] if each["type"] == "StorageReady"]
        assert result.is_written
        assert after.status["phase"] == "Terminating"
        assert (condition["status"], condition["message"]) == ("False", STUCK.message)
        assert [(event["type"], event["count"]) for event in events] == [("Warning", 1)]
        assert STUCK.message in events[0]["message"]

    async def test_saying_it_again_counts_the_event_up_and_leaves_the_object(
        self, cluster: Cluster, namespace: str
    ) -> None:
        application = await deleted(cluster, namespace)
        await cluster.releases.report_stuck(status_of(application, updates=(STUCK,), retries_exhausted=True))
        before = await cluster.body(application.reference)

        result = await cluster.releases.report_stuck(status_of(application, updates=(STUCK,), retries_exhausted=True))

        events = [event for event in await cluster.events_about(application) if event["reason"] == "DeletionStuck"]
        assert not result.is_written
        assert await cluster.body(application.reference) == before
        assert [event["count"] for event in events] == [2]

    async def test_what_only_takes_its_time_is_no_event(self, cluster: Cluster, namespace: str) -> None:
        application = await deleted(cluster, namespace)

        result = await cluster.releases.report_stuck(status_of(application, updates=(STUCK,)))

        assert result.is_written
        assert [event["reason"] for event in await cluster.events_about(application)] == []

    @pytest.mark.attack
    async def test_what_is_gone_is_not_said_to_be_there(self, cluster: Cluster, namespace: str) -> None:
        application = await deleted(cluster, namespace)
        present = ("DatabaseReady", "StorageReady", "AuthReady", "DeploymentReady", "IngressReady")
        await cluster.set_status(application, conditions=[ready(kind) for kind in present])
        # The Deployment is gone already, the Ingress has yet to go.
        ingress = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {
                "name": application.reference.name,
                "labels": owner_labels(application.reference),
                "annotations": owner_annotations(application.owner),
            },
            "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}},
        }
        await cluster.admin.create(INGRESSES, ingress, namespace)
        removed = tuple(
            ConditionUpdate(type=kind, status="False", reason="Removed")
            for kind in (ConditionType.AUTH, ConditionType.REDIS)
        )

        await cluster.releases.report_stuck(status_of(application, updates=(STUCK,), removed=removed))
        first = await self._conditions(cluster, application)
        await cluster.admin.delete(INGRESSES, application.reference.name, namespace)
        await cluster.releases.report_stuck(status_of(application, updates=(STUCK,), removed=removed))
        second = await self._conditions(cluster, application)

        assert first == {
            "DatabaseReady": ("True", "Ready"),
            "StorageReady": ("False", STUCK.reason),
            "AuthReady": ("False", "Removed"),
            "DeploymentReady": ("False", "Removed"),
            "IngressReady": ("True", "Ready"),
        }
        assert second == first | {"IngressReady": ("False", "Removed")}

    async def _conditions(self, cluster: Cluster, application: CustomObject) -> dict[str, tuple[str, str]]:
        conditions = (await cluster.read(application.reference)).status["conditions"]
        return {each["type"]: (each["status"], each["reason"]) for each in conditions}

    async def test_conditions_of_other_steps_stay(self, cluster: Cluster, namespace: str) -> None:
        application = await deleted(cluster, namespace)
        other = ready("DatabaseReady")
        await cluster.set_status(application, conditions=[other])

        await cluster.releases.report_stuck(status_of(application, updates=(STUCK,)))

        assert other in (await cluster.read(application.reference)).status["conditions"]

    @pytest.mark.parametrize("is_there", [True, False], ids=["living", "gone"])
    async def test_an_object_that_is_not_being_deleted_is_left_alone(
        self, cluster: Cluster, namespace: str, *, is_there: bool
    ) -> None:
        reference = ObjectReference(namespace=namespace, name=random_name())
        if is_there:
            await cluster.apply(namespace, reference.name)
        before = await cluster.body(reference)

        result = await cluster.releases.report_stuck(StatusInput(reference=reference, updates=(STUCK,)))

        assert not result.is_written
        assert await cluster.body(reference) == before

    async def test_a_namespace_that_ends_does_not_keep_the_word_from_the_object(
        self, cluster: Cluster, namespace: str
    ) -> None:
        application = await deleted(cluster, namespace)
        await cluster.admin.delete(NAMESPACES, namespace)

        result = await cluster.releases.report_stuck(status_of(application, updates=(STUCK,)))

        assert result.is_written
