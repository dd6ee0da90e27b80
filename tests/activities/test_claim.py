"""Claiming an object, and planning its cleanup, on a real API server under the worker's rights."""

from typing import Any

import pytest

from clients.claim_store import Acquisition
from clients.resources import APPLICATIONS
from plattr.claims import Claim, is_data
from plattr.errors import Conflict, InvalidSpec, OwnedElsewhere, ParentNotFound, Superseded
from plattr.features import ClaimKind, ConditionType, Step, cleanup_order
from plattr.objects import FINALIZER, PAUSED_ANNOTATION, CustomObject, Kind, ObjectReference
from plattr.status import ConditionUpdate, Phase
from plattr.steps import ClaimInput, CleanupInput
from plattr.target import OWNER_UID_ANNOTATION
from tests.fix_kubernetes import Cluster, application_spec, random_name
from tests.inputs import estate, status_of
from tests.kstatus import kstatus

FOREIGN_FINALIZER = "example.test/foreign"
ALL_DATA = {
    "database": {"enabled": True},
    "storage": {"enabled": True, "buckets": [{"name": "uploads"}]},
    "auth": {"enabled": True},
}


DATABASE_READY = ConditionUpdate(type=ConditionType.DATABASE, status="True", reason="Provisioned")


def claim_of(custom_object: CustomObject, *, every_step: bool = False) -> ClaimInput:
    return ClaimInput(reference=custom_object.reference, every_step=every_step)


class TestVerdicts:
    async def test_an_object_that_does_not_exist_is_gone(self, cluster: Cluster, namespace: str) -> None:
        reference = ObjectReference(namespace=namespace, name="missing")

        result = await cluster.claims.claim_object(ClaimInput(reference=reference))

        assert result.verdict == "gone"

    async def test_an_object_that_is_being_deleted_is_left_alone(self, cluster: Cluster, namespace: str) -> None:
        application = await cluster.apply(namespace, random_name(), metadata={"finalizers": [FOREIGN_FINALIZER]})
        await cluster.delete(application.reference)

        result = await cluster.claims.claim_object(claim_of(application))

        assert (result.verdict, result.uid) == ("deleting", application.metadata.uid)
        assert (await cluster.read(application.reference)).metadata.finalizers == (FOREIGN_FINALIZER,)

    async def test_a_paused_object_is_left_alone(self, cluster: Cluster, namespace: str) -> None:
        metadata = {"annotations": {PAUSED_ANNOTATION: "true"}}
        application = await cluster.apply(namespace, random_name(), metadata=metadata)

        result = await cluster.claims.claim_object(claim_of(application))

        assert result.verdict == "paused"
        assert (await cluster.read(application.reference)).metadata == application.metadata

    async def test_a_settled_object_has_no_work_unless_every_step_is_asked_for(
        self, cluster: Cluster, namespace: str
    ) -> None:
        application = await cluster.settle(await cluster.apply(namespace, random_name()))

        settled = await cluster.claims.claim_object(claim_of(application))
        resync = await cluster.claims.claim_object(claim_of(application, every_step=True))

        assert (settled.verdict, settled.environment) == ("settled", "production")
        assert resync.verdict == "proceed"


class TestClaiming:
    async def test_the_steps_are_those_the_spec_asks_for_in_order(self, cluster: Cluster, namespace: str) -> None:
        spec = application_spec(**ALL_DATA, search={"enabled": True})
        application = await cluster.apply(namespace, random_name(), spec)

        result = await cluster.claims.claim_object(claim_of(application))

        assert result.steps == (Step.DATABASE, Step.STORAGE, Step.AUTH, Step.SEARCH, Step.WORKLOAD)
        assert (result.uid, result.generation) == (application.metadata.uid, application.metadata.generation)
        assert result.environment == "production"

    async def test_a_new_object_gets_the_finalizer_and_is_provisioning(self, cluster: Cluster, namespace: str) -> None:
        application = await cluster.apply(namespace, random_name())

        await cluster.claims.claim_object(claim_of(application))

        claimed = await cluster.read(application.reference)
        assert claimed.metadata.finalizers == (FINALIZER,)
        assert claimed.status["phase"] == "Provisioning"

    @pytest.mark.attack
    @pytest.mark.parametrize("kind", list(Kind))
    async def test_nobody_who_waits_takes_an_object_that_has_begun_for_done(
        self, cluster: Cluster, namespace: str, kind: Kind
    ) -> None:
        name = random_name()
        created = await cluster.apply(namespace, name)
        if kind is Kind.PREVIEW:
            created = await cluster.preview(namespace, random_name(), name)
        said = [kstatus(await cluster.body(created.reference))]

        await cluster.claims.claim_object(claim_of(created))
        said.append(kstatus(await cluster.body(created.reference)))
        settled = await cluster.statuses.write_status(status_of(created, updates=(DATABASE_READY,)))
        said.append(kstatus(await cluster.body(created.reference)))
        if kind is Kind.PREVIEW:
            changed = await cluster.preview(namespace, created.metadata.name, name, ttl="5h")
        else:
            changed = await cluster.apply(namespace, name, application_spec(branch="next"))
        said.append(kstatus(await cluster.body(created.reference)))
        await cluster.claims.claim_object(claim_of(changed))
        said.append(kstatus(await cluster.body(created.reference)))

        ready = {each["type"]: each for each in (await cluster.read(created.reference)).status["conditions"]}["Ready"]
        assert settled.phase is Phase.RUNNING
        assert said == ["InProgress", "InProgress", "Current", "InProgress", "InProgress"]
        # What kubectl wait looks at: it takes no condition of an older generation.
        assert (ready["status"], ready["observedGeneration"]) == ("Unknown", changed.metadata.generation)

    async def test_a_refusal_whose_cause_is_gone_is_not_said_any_more(self, cluster: Cluster, namespace: str) -> None:
        application = await cluster.apply(namespace, random_name())
        refused = ConditionUpdate(
            type=ConditionType.READY, status="False", reason="OwnedElsewhere", message="cannot adopt it"
        )
        status = status_of(application, updates=(refused,), retries_exhausted=True, is_refused=True)
        await cluster.statuses.write_status(status)
        before = kstatus(await cluster.body(application.reference))

        await cluster.claims.claim_object(claim_of(application))

        assert (before, kstatus(await cluster.body(application.reference))) == ("Failed", "InProgress")

    async def test_a_foreign_finalizer_survives(self, cluster: Cluster, namespace: str) -> None:
        application = await cluster.apply(namespace, random_name(), metadata={"finalizers": [FOREIGN_FINALIZER]})

        await cluster.claims.claim_object(claim_of(application))

        claimed = await cluster.read(application.reference)
        assert claimed.metadata.finalizers == (FOREIGN_FINALIZER, FINALIZER)

    async def test_a_finalizer_added_between_our_read_and_our_write_survives(
        self, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        application = await cluster.apply(namespace, random_name())
        target_of = cluster.loader.target_of

        async def target_after_a_stranger(custom_object: CustomObject) -> object:
            added = [{"op": "add", "path": "/metadata/finalizers", "value": [FOREIGN_FINALIZER]}]
            await cluster.admin.json_patch(APPLICATIONS, custom_object.metadata.name, added, namespace)
            return await target_of(custom_object)

        monkeypatch.setattr(cluster.loader, "target_of", target_after_a_stranger)
        with pytest.raises(Conflict):
            await cluster.claims.claim_object(claim_of(application))
        monkeypatch.undo()

        await cluster.claims.claim_object(claim_of(application))

        claimed = await cluster.read(application.reference)
        assert claimed.metadata.finalizers == (FOREIGN_FINALIZER, FINALIZER)

    async def test_an_object_that_goes_between_our_read_and_our_write_claims_nothing(
        self, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        application = await cluster.apply(namespace, random_name(), application_spec(**ALL_DATA))
        target_of = cluster.loader.target_of

        async def target_before_it_goes(custom_object: CustomObject) -> object:
            await cluster.delete(custom_object.reference)
            return await target_of(custom_object)

        monkeypatch.setattr(cluster.loader, "target_of", target_before_it_goes)
        with pytest.raises(Superseded):
            await cluster.claims.claim_object(claim_of(application))

        assert await cluster.leases(namespace) == []

    async def test_an_object_that_goes_although_it_has_its_finalizer_leaves_no_claim(
        self, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        application = await cluster.apply(namespace, random_name(), application_spec(**ALL_DATA))
        older = Claim(kind=ClaimKind.SCHEMA, name=f"prod_{application.metadata.name}")
        await cluster.claim_store.acquire(application.owner, [older])
        acquire = cluster.claim_store.acquire

        async def acquire_while_it_goes(*arguments: Any, **keywords: Any) -> Acquisition:
            await cluster.force_away(application.reference)
            return await acquire(*arguments, **keywords)

        monkeypatch.setattr(cluster.claim_store, "acquire", acquire_while_it_goes)
        with pytest.raises(Superseded):
            await cluster.claims.claim_object(claim_of(application))

        # What an earlier incarnation held may stand for data.
        assert [held.claim for held in await cluster.claim_store.held_by(estate(application.reference))] == [older]

    async def test_claiming_twice_writes_nothing(self, cluster: Cluster, namespace: str) -> None:
        application = await cluster.apply(namespace, random_name(), application_spec(**ALL_DATA))
        await cluster.claims.claim_object(claim_of(application))
        before = (await cluster.body(application.reference), await cluster.leases(namespace))

        await cluster.claims.claim_object(claim_of(application))

        assert (await cluster.body(application.reference), await cluster.leases(namespace)) == before

    async def test_a_resync_of_what_runs_leaves_its_status_alone(self, cluster: Cluster, namespace: str) -> None:
        application = await cluster.apply(namespace, random_name())
        await cluster.claims.claim_object(claim_of(application))
        running = await cluster.settle(application)

        await cluster.claims.claim_object(claim_of(application, every_step=True))

        after = await cluster.read(application.reference)
        assert after.metadata.resource_version == running.metadata.resource_version

    async def test_a_changed_spec_of_what_runs_is_provisioning_again(self, cluster: Cluster, namespace: str) -> None:
        name = random_name()
        application = await cluster.settle(await cluster.apply(namespace, name))
        changed = await cluster.apply(namespace, name, application_spec(branch="next"))

        await cluster.claims.claim_object(claim_of(changed))

        after = await cluster.read(application.reference)
        assert (after.status["phase"], after.status["observedGeneration"]) == ("Provisioning", 2)

    async def test_an_invalid_spec_writes_nothing(self, cluster: Cluster, namespace: str) -> None:
        # The CRD cannot know the platform's own domain.
        spec = application_spec(domain=cluster.settings.base_domain)
        application = await cluster.apply(namespace, random_name(), spec)
        before = await cluster.body(application.reference)

        with pytest.raises(InvalidSpec) as caught:
            await cluster.claims.claim_object(claim_of(application))

        assert caught.value.field == "spec.domain"
        assert await cluster.body(application.reference) == before
        assert await cluster.leases(namespace) == []

    async def test_a_re_created_object_adopts_its_claims(self, cluster: Cluster, namespace: str) -> None:
        name, spec = random_name(), application_spec(**ALL_DATA)
        first = await cluster.apply(namespace, name, spec)
        await cluster.claims.claim_object(claim_of(first))
        of_the_first = await cluster.leases(namespace)
        await cluster.force_away(first.reference)
        second = await cluster.apply(namespace, name, spec)

        await cluster.claims.claim_object(claim_of(second))

        leases = await cluster.leases(namespace)
        assert [lease["metadata"]["uid"] for lease in leases] == [lease["metadata"]["uid"] for lease in of_the_first]
        assert {lease["metadata"]["annotations"][OWNER_UID_ANNOTATION] for lease in leases} == {second.metadata.uid}

    async def test_data_of_a_feature_that_is_switched_off_is_named_as_kept(
        self, cluster: Cluster, namespace: str
    ) -> None:
        name = random_name()
        await cluster.claims.claim_object(claim_of(await cluster.apply(namespace, name, application_spec(**ALL_DATA))))
        without = await cluster.apply(namespace, name, application_spec())

        result = await cluster.claims.claim_object(claim_of(without))

        kept = {update.type: update for update in result.kept}
        assert set(kept) == {ConditionType.DATABASE, ConditionType.STORAGE, ConditionType.AUTH}
        assert {(update.status, update.reason) for update in result.kept} == {("True", "DataKept")}
        assert f"prod_{name}" in kept[ConditionType.DATABASE].message
        assert f"plattr-prod-{name}-uploads" in kept[ConditionType.STORAGE].message


class TestCollisions:
    """Two objects in two namespaces that would share one external name."""

    @pytest.mark.parametrize(
        ("first", "second", "kind"),
        [
            pytest.param(
                ("{a}", {"database": {"enabled": True, "schemaName": "{a}_shared"}}),
                ("{b}", {"database": {"enabled": True, "schemaName": "{a}_shared"}}),
                ClaimKind.SCHEMA,
                id="schema",
            ),
            pytest.param(
                ("{a}", {"database": {"enabled": True, "schemaName": "{a}_one"}, "domain": "{a}.one.test"}),
                ("{a}", {"database": {"enabled": True, "schemaName": "{a}_two"}, "domain": "{a}.two.test"}),
                ClaimKind.ROLES,
                id="roles",
            ),
            pytest.param(
                ("{a}-b", {"storage": {"enabled": True, "buckets": [{"name": "c"}]}}),
                ("{a}", {"storage": {"enabled": True, "buckets": [{"name": "b-c"}]}}),
                ClaimKind.BUCKET,
                id="bucket",
            ),
            pytest.param(
                ("{a}", {"auth": {"enabled": True}, "domain": "{a}.one.test"}),
                ("{a}", {"auth": {"enabled": True}, "domain": "{a}.two.test"}),
                ClaimKind.REALM,
                id="realm",
            ),
            pytest.param(
                ("{a}", {"domain": "{a}.one.test"}), ("{b}", {"domain": "{a}.one.test"}), ClaimKind.HOST, id="host"
            ),
        ],
    )
    async def test_the_second_is_refused_by_both_names_and_claims_nothing(
        self,
        cluster: Cluster,
        first: tuple[str, dict[str, object]],
        second: tuple[str, dict[str, object]],
        kind: ClaimKind,
    ) -> None:
        names = {"a": random_name(), "b": random_name()}
        winner = await self._apply(cluster, first, names)
        loser = await self._apply(cluster, second, names)
        await cluster.claims.claim_object(claim_of(winner))

        with pytest.raises(OwnedElsewhere) as caught:
            await cluster.claims.claim_object(claim_of(loser))

        assert winner.reference.key in str(caught.value)
        assert loser.reference.key in str(caught.value)
        assert caught.value.condition == kind.condition
        assert await cluster.leases(loser.metadata.namespace) == []

    async def _apply(
        self, cluster: Cluster, template: tuple[str, dict[str, object]], names: dict[str, str]
    ) -> CustomObject:
        namespace = await cluster.new_namespace()
        spec = _filled(template[1], names)
        assert isinstance(spec, dict)
        return await cluster.apply(namespace, template[0].format(**names), application_spec(**spec))


def _filled(value: object, names: dict[str, str]) -> object:
    if isinstance(value, str):
        return value.format(**names)
    if isinstance(value, dict):
        return {key: _filled(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, names) for each in value]
    return value


class TestPreviews:
    async def test_a_preview_gets_a_namespace_before_its_parents_features(
        self, cluster: Cluster, namespace: str
    ) -> None:
        parent = random_name()
        await cluster.apply(namespace, parent, application_spec(database={"enabled": True}))
        preview = await cluster.preview(namespace, random_name(), parent)

        result = await cluster.claims.claim_object(claim_of(preview))

        held = {claim.claim for claim in await cluster.claim_store.held_by(estate(preview.reference))}
        assert result.steps == (Step.NAMESPACE, Step.DATABASE, Step.WORKLOAD)
        assert result.environment == "preview"
        assert Claim(kind=ClaimKind.NAMESPACE, name=f"preview-{parent}-pr-7") in held

    async def test_an_event_names_the_variables_that_a_preview_does_not_get(
        self, cluster: Cluster, namespace: str
    ) -> None:
        parent = random_name()
        variables = [
            {"name": "PLAIN", "value": "1"},
            {"name": "HIDDEN", "secretKeyRef": {"name": "tokens", "key": "hidden"}},
        ]
        await cluster.apply(namespace, parent, application_spec(envVars=variables))
        preview = await cluster.preview(namespace, random_name(), parent)

        await cluster.claims.claim_object(claim_of(preview))

        (event,) = await cluster.events_about(preview)
        assert event["reason"] == "VariablesNotCopied"
        assert "HIDDEN" in event["message"]
        assert "PLAIN" not in event["message"]

    async def test_a_parent_in_another_namespace_is_no_parent(self, cluster: Cluster, namespace: str) -> None:
        parent = random_name()
        await cluster.apply(await cluster.new_namespace(), parent)
        preview = await cluster.preview(namespace, random_name(), parent)
        before = await cluster.body(preview.reference)

        with pytest.raises(ParentNotFound):
            await cluster.claims.claim_object(claim_of(preview))

        assert await cluster.body(preview.reference) == before

    async def test_two_previews_of_one_pull_request_do_not_share(self, cluster: Cluster, namespace: str) -> None:
        parent = random_name()
        await cluster.apply(namespace, parent)
        first = await cluster.preview(namespace, random_name(), parent)
        second = await cluster.preview(namespace, random_name(), parent)
        await cluster.claims.claim_object(claim_of(first))

        with pytest.raises(OwnedElsewhere, match=first.reference.key):
            await cluster.claims.claim_object(claim_of(second))


class TestPlanningACleanup:
    async def _claimed(self, cluster: Cluster, namespace: str, **spec: object) -> CustomObject:
        application = await cluster.apply(namespace, random_name(), application_spec(**spec))
        await cluster.claims.claim_object(claim_of(application))
        return await cluster.read(application.reference)

    @pytest.mark.parametrize(("policy", "retain"), [("Delete", False), ("Retain", True)])
    async def test_a_deleted_object_is_terminating_and_its_policy_is_kept(
        self, cluster: Cluster, namespace: str, policy: str, *, retain: bool
    ) -> None:
        application = await self._claimed(cluster, namespace, deletionPolicy=policy)
        await cluster.delete(application.reference)

        plan = await cluster.claims.plan_cleanup(CleanupInput(reference=application.reference))

        assert (plan.verdict, plan.uid, plan.retain) == ("proceed", application.metadata.uid, retain)
        assert plan.steps == (*cleanup_order(Kind.APPLICATION), Step.RELEASE)
        status = (await cluster.read(application.reference)).status
        ready, reconciling = status["conditions"]
        assert status["phase"] == "Terminating"
        assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "False", "Terminating")
        assert (reconciling["type"], reconciling["status"]) == ("Reconciling", "True")

    async def test_planning_twice_writes_nothing(self, cluster: Cluster, namespace: str) -> None:
        application = await self._claimed(cluster, namespace)
        await cluster.delete(application.reference)
        await cluster.claims.plan_cleanup(CleanupInput(reference=application.reference))
        before = await cluster.body(application.reference)

        await cluster.claims.plan_cleanup(CleanupInput(reference=application.reference))

        assert await cluster.body(application.reference) == before

    async def test_a_living_object_is_not_cleaned_up(self, cluster: Cluster, namespace: str) -> None:
        application = await self._claimed(cluster, namespace)

        plan = await cluster.claims.plan_cleanup(CleanupInput(reference=application.reference))

        assert plan.verdict == "recreated"
        assert not (await cluster.read(application.reference)).is_deleting

    async def test_a_cleanup_by_hand_deletes_the_object_first(self, cluster: Cluster, namespace: str) -> None:
        application = await self._claimed(cluster, namespace)

        plan = await cluster.claims.plan_cleanup(CleanupInput(reference=application.reference, delete_object=True))

        assert (plan.verdict, plan.uid) == ("proceed", application.metadata.uid)
        assert (await cluster.read(application.reference)).is_deleting

    async def test_another_incarnation_than_the_one_to_delete_lives_on(self, cluster: Cluster, namespace: str) -> None:
        application = await self._claimed(cluster, namespace)

        plan = await cluster.claims.plan_cleanup(
            CleanupInput(reference=application.reference, delete_object=True, uid="of-the-expired-one")
        )

        assert plan.verdict == "recreated"
        assert not (await cluster.read(application.reference)).is_deleting

    async def test_an_object_that_never_was_can_be_cleaned_up(self, cluster: Cluster, namespace: str) -> None:
        reference = ObjectReference(kind=Kind.PREVIEW, namespace=namespace, name="never-was")

        plan = await cluster.claims.plan_cleanup(CleanupInput(reference=reference))

        assert (plan.verdict, plan.uid, plan.retain) == ("proceed", "", False)
        assert plan.steps == (*cleanup_order(Kind.PREVIEW), Step.RELEASE)

    @pytest.mark.parametrize(
        ("asked", "retain", "purge"),
        [
            pytest.param({}, True, False, id="watcher"),
            pytest.param({"delete_object": True}, False, True, id="by-hand"),
            pytest.param({"delete_object": True, "uid": "of-the-object"}, True, False, id="by-hand-for-an-object"),
            pytest.param({"purge": True}, False, True, id="second-round"),
        ],
    )
    async def test_what_is_to_be_retained_outlives_an_object_removed_by_force(
        self, cluster: Cluster, namespace: str, asked: dict[str, Any], *, retain: bool, purge: bool
    ) -> None:
        application = await self._claimed(cluster, namespace, **ALL_DATA, deletionPolicy="Retain")
        await cluster.force_away(application.reference)

        plan = await cluster.claims.plan_cleanup(CleanupInput(reference=application.reference, **asked))

        assert (plan.verdict, plan.retain, plan.purge) == ("proceed", retain, purge)

    async def test_what_the_predecessor_retained_outlives_an_object_that_was_refused(
        self, cluster: Cluster, namespace: str
    ) -> None:
        first = await self._claimed(cluster, namespace, **ALL_DATA, deletionPolicy="Retain")
        retained = {held.claim for held in await cluster.claim_store.held_by(estate(first.reference))}
        await cluster.force_away(first.reference)
        taken = await self._claimed(cluster, await cluster.new_namespace(), domain="taken.example.test")
        spec = application_spec(**ALL_DATA, domain=taken.spec["domain"])
        second = await cluster.apply(namespace, first.metadata.name, spec)
        with pytest.raises(OwnedElsewhere):
            await cluster.claims.claim_object(claim_of(second))
        await cluster.delete(second.reference)

        plan = await cluster.claims.plan_cleanup(CleanupInput(reference=second.reference))

        assert (plan.uid, plan.retain) == (second.metadata.uid, False)
        assert set(plan.outliving) == {claim for claim in retained if is_data(claim)}

    @pytest.mark.parametrize("policy", ["Delete", "Retain"])
    async def test_what_an_object_adopted_follows_its_own_policy(
        self, cluster: Cluster, namespace: str, policy: str
    ) -> None:
        first = await self._claimed(cluster, namespace, **ALL_DATA, deletionPolicy="Retain")
        await cluster.force_away(first.reference)
        # The realm is not asked for any more, so it stays the predecessor's.
        spec = application_spec(**ALL_DATA | {"auth": {"enabled": False}}, deletionPolicy=policy)
        second = await cluster.apply(namespace, first.metadata.name, spec)
        kept = (await cluster.claims.claim_object(claim_of(second))).kept
        await cluster.delete(second.reference)

        plan = await cluster.claims.plan_cleanup(CleanupInput(reference=second.reference))

        assert plan.retain is (policy == "Retain")
        assert plan.outliving == (Claim(kind=ClaimKind.REALM, name=first.metadata.name),)
        assert "stays even then" in kept[0].message

    async def test_a_purge_does_not_touch_an_object_that_has_the_name_again(
        self, cluster: Cluster, namespace: str
    ) -> None:
        application = await self._claimed(cluster, namespace, **ALL_DATA, deletionPolicy="Retain")
        purge = CleanupInput(reference=application.reference, purge=True)

        of_the_living = await cluster.claims.plan_cleanup(purge)
        await cluster.delete(application.reference)
        of_the_deleted = await cluster.claims.plan_cleanup(purge)

        assert (of_the_living.verdict, of_the_living.purge) == ("recreated", False)
        assert (of_the_deleted.retain, of_the_deleted.purge) == (True, False)
