"""The first step of every run: read the object and claim the names it needs. Also the plan of its cleanup."""

from collections.abc import Collection, Sequence

from temporalio import activity

from activities.crowd import Crowd
from activities.families import Families
from activities.handover import Handover
from activities.loading import TargetLoader
from activities.status import conditions_of, with_summary
from clients.claim_store import ClaimStore
from clients.events import EventRecorder
from clients.kube import KubeClient
from clients.resources import NAMESPACES, Json, custom_resource
from plattr.claims import Claim, HeldClaim, claims_of, outliving
from plattr.errors import OwnedElsewhere, PlattrError, StillDeleting, Superseded
from plattr.features import ConditionType, Feature, Step, cleanup_order, features_of, missing_features
from plattr.marks import Estate, estate_of
from plattr.objects import FINALIZER, CustomObject, Kind, ObjectReference, Owner
from plattr.parent import STATUS_FIELD
from plattr.status import ConditionUpdate, Phase, begun, ending
from plattr.steps import ClaimInput, ClaimResult, CleanupInput, CleanupPlan
from plattr.target import Target


class ClaimActivities:
    """Begin a run that provisions, or a cleanup."""

    def __init__(
        self,
        kube: KubeClient,
        claim_store: ClaimStore,
        loader: TargetLoader,
        events: EventRecorder,
        *,
        previews_per_namespace: int | None = None,
    ) -> None:
        self._kube = kube
        self._claim_store = claim_store
        self._loader = loader
        self._events = events
        self._families = Families(kube, claim_store)
        self._handover = Handover(kube, claim_store, loader)
        self._crowd = Crowd(kube, claim_store, previews_per_namespace)

    @activity.defn
    async def claim_object(self, claim: ClaimInput) -> ClaimResult:
        """Read the object; if it has work to do, add the finalizer and claim every name it needs.

        When all this is done already, the only possible write restores a lost finalizer. Nothing is written before the
        spec is known to be valid.

        Raises:
            InvalidSpec: a rule is broken.
            OwnedElsewhere: a name belongs to another object, or to another namespace's previews. This object gets no
                new claim. When the holder gives the name back, this object's run gets a reconcile request.
            StillDeleting: a name belongs to another object that is being deleted.
            NameQuarantined: a name belonged to an object that is gone, and a lost call may still take effect on it.
            ParentNotFound: a preview's Application is missing.
            TooManyPreviews: the namespace has as many previews as the limit allows.
            Conflict: the object changed during this attempt.
            Superseded: the object was removed during this attempt.
        """
        resource, reference = custom_resource(claim.reference.kind), claim.reference
        body = await self._kube.get(resource, reference.name, reference.namespace)
        if body is None:
            return ClaimResult(verdict="gone")
        custom_object = CustomObject.from_api(reference.kind, body)
        # Check this before the generation, because a deletion raises the generation.
        if custom_object.is_deleting:
            return _without_work("deleting", custom_object)
        if custom_object.is_paused:
            return _without_work("paused", custom_object)
        if custom_object.is_settled and not claim.every_step:
            # Somebody may have removed the finalizer, for example by replacing the object with a manifest without it.
            await self._with_finalizer(body, custom_object)
            return _without_work("settled", custom_object)

        found = custom_object.status
        custom_object = await self._loader.with_parent(custom_object, take_over=claim.take_over)
        target = await self._loader.target_of(custom_object)
        is_retained = target.spec.deletion_policy == "Retain"
        if _is_new_spec(custom_object) and custom_object.metadata.generation > 1:
            # End the waits for names of the previous spec. Names that are refused below start new waits.
            await self._claim_store.stop_waiting(reference)
        await self._families.ensure_own(target)
        await self._crowd.ensure_room(target)
        needed, wanted = self._families.claims_of(target)
        body = await self._with_finalizer(body, custom_object)
        try:
            claims = await self._claim_store.acquire(
                target.owner, [*claims_of(target), *needed], optional=wanted, is_retained=is_retained
            )
        except (OwnedElsewhere, StillDeleting):
            await self._handover.hand_over_left_host(target)
            raise
        try:
            if _is_new_spec(custom_object) or custom_object.status != found:
                # Record the Event before the status: after the status write, no attempt can tell that this is new.
                await self._tell_dropped_variables(target)
            is_shown = await self._show_begun(body, custom_object)
        except PlattrError:
            await self._ensure_held_back(target.owner, claims.new)
            raise
        # A successful status write proves that the object still exists.
        if not is_shown and not custom_object.has_finalizer:
            await self._ensure_held_back(target.owner, claims.new)
        return ClaimResult(
            verdict="proceed",
            uid=custom_object.metadata.uid,
            generation=custom_object.metadata.generation,
            environment=target.spec.environment,
            steps=tuple(feature.step for feature in features_of(target)),
            kept=_kept(target, claims.held),
        )

    @activity.defn
    async def plan_cleanup(self, cleanup: CleanupInput) -> CleanupPlan:
        """Find out what a cleanup has to remove; delete the object first if the input asks for it.

        An object that is gone still gets its cleanup: the later steps find what its owner left. Retained data stays,
        unless a person requested this cleanup by hand without naming an object's uid.

        Raises:
            Conflict: the object changed during this attempt.
        """
        resource, reference = custom_resource(cleanup.reference.kind), cleanup.reference
        steps = (*cleanup_order(reference.kind), Step.RELEASE)
        custom_object = await self._loader.read(reference)
        if custom_object is None:
            if cleanup.purge or (cleanup.delete_object and not cleanup.uid):
                return CleanupPlan(verdict="proceed", steps=steps, purge=True)
            namespace = await self._kube.get(NAMESPACES, reference.namespace)
            # When a namespace of this name exists again, data of the earlier namespace waits for a person.
            namespace_uid = namespace["metadata"]["uid"] if namespace else None
            held = await self._claim_store.held_by(self._estate(reference, namespace_uid))
            retained = [claim for claim in held if claim.is_retained and claim.quarantined_until is None]
            return CleanupPlan(verdict="proceed", steps=steps, namespace_uid=namespace_uid, retain=bool(retained))
        if not custom_object.is_deleting:
            if not cleanup.delete_object or cleanup.uid not in ("", custom_object.metadata.uid):
                return CleanupPlan(verdict="recreated", uid=custom_object.metadata.uid)
            # Pass the uid, so that a newer object of the same name is not deleted.
            await self._kube.delete(resource, reference.name, reference.namespace, uid=custom_object.metadata.uid)
        namespace_uid = await self._loader.namespace_uid(custom_object)
        body = await self._kube.get(resource, reference.name, reference.namespace)
        if body is not None and body["metadata"]["uid"] == custom_object.metadata.uid:
            fields: Json = {"phase": str(Phase.TERMINATING)}
            # The deletion has raised the generation.
            generation = body["metadata"]["generation"]
            fields = with_summary(fields, conditions_of(custom_object), ending(), generation=generation)
            await self._show(body, custom_object.kind, fields)
        return CleanupPlan(
            verdict="proceed",
            steps=steps,
            uid=custom_object.metadata.uid,
            namespace_uid=namespace_uid,
            # Read the raw spec, because an object with an invalid spec must still be deletable.
            retain=custom_object.spec.get("deletionPolicy") == "Retain",
            outliving=outliving(
                await self._claim_store.held_by(self._estate(reference, namespace_uid)), custom_object.metadata.uid
            ),
        )

    def _estate(self, reference: ObjectReference, namespace_uid: str | None) -> Estate:
        return Estate(reference=reference, cluster=self._kube.cluster, namespace_uid=namespace_uid)

    async def _with_finalizer(self, body: Json, custom_object: CustomObject) -> Json:
        """Return the object with Plattr's finalizer; all other finalizers stay."""
        present = list(custom_object.metadata.finalizers)
        if custom_object.has_finalizer:
            return body
        metadata = custom_object.metadata
        operations: list[Json] = [
            {"op": "test", "path": "/metadata/uid", "value": metadata.uid},
            # A deletion raises the generation. After it, Kubernetes accepts no new finalizer.
            {"op": "test", "path": "/metadata/generation", "value": metadata.generation},
            {"op": "test", "path": "/metadata/finalizers", "value": present or None},
            {"op": "add", "path": "/metadata/finalizers", "value": [*present, FINALIZER]},
        ]
        patched = await self._kube.json_patch(
            custom_resource(custom_object.kind), metadata.name, operations, metadata.namespace
        )
        if patched is None:
            # The object is gone, so nothing would ever release a claim made now.
            raise _gone(custom_object.reference)
        return patched

    async def _ensure_held_back(self, owner: Owner, claimed: Sequence[Claim]) -> None:
        """Return if the finalizer holds the object back; otherwise release the claims made for it.

        The API server checks finalizers before it deletes, not during the deletion. A finalizer that is added in these
        milliseconds is lost.
        https://github.com/kubernetes/apiserver/blob/master/pkg/registry/generic/registry/store.go
        """
        found = await self._loader.read(owner.reference)
        if found is not None and found.metadata.uid == owner.uid:
            return
        await self._claim_store.release(estate_of(owner), claimed)
        raise _gone(owner.reference)

    async def _show_begun(self, body: Json, custom_object: CustomObject) -> bool:
        """Write to the status that work has begun, and a preview's parent; return whether the status changed.

        A resync of an object that runs already writes nothing.
        """
        fields: Json = {}
        if STATUS_FIELD in custom_object.status:
            fields[STATUS_FIELD] = custom_object.status[STATUS_FIELD]
        old = conditions_of(custom_object)
        is_refused = any(condition.type is ConditionType.STALLED for condition in old)
        if _is_new_spec(custom_object) or is_refused:
            generation = custom_object.metadata.generation
            fields |= {"phase": str(Phase.PROVISIONING), "observedGeneration": generation}
            fields |= with_summary(fields, old, begun(), generation=generation)
        return await self._show(body, custom_object.kind, fields)

    async def _show(self, body: Json, kind: Kind, fields: Json) -> bool:
        status = body.get("status", {})
        if status == status | fields:
            return False
        await self._kube.replace_status(
            custom_resource(kind), {**body, "status": status | fields}, body["metadata"]["namespace"]
        )
        return True

    async def _tell_dropped_variables(self, target: Target) -> None:
        if target.dropped_variables:
            await self._events.record(
                target.owner,
                kind_of="Normal",
                reason="VariablesNotCopied",
                message=f"variables {', '.join(target.dropped_variables)} of Application {target.parent!r} come from"
                " Secrets and are not copied into the preview; set them with `plattr env set`",
            )


def _is_new_spec(custom_object: CustomObject) -> bool:
    return custom_object.observed_generation != custom_object.metadata.generation


def _gone(reference: ObjectReference) -> Superseded:
    return Superseded(f"cannot go on with {reference}: it went before anything was made for it")


def _without_work(verdict: str, custom_object: CustomObject) -> ClaimResult:
    return ClaimResult.model_validate(
        {
            "verdict": verdict,
            "uid": custom_object.metadata.uid,
            "generation": custom_object.metadata.generation,
            "environment": custom_object.environment,
        }
    )


def _kept(target: Target, held: Sequence[HeldClaim]) -> tuple[ConditionUpdate, ...]:
    """Return the conditions of features that are switched off and whose data is still there."""
    staying = {claim.name for claim in outliving(held, target.owner.uid)}
    disabled = [feature for feature in missing_features(target) if feature.keeps_data]
    updates = (_data_kept(feature, held, staying) for feature in disabled)
    return tuple(update for update in updates if update is not None)


def _data_kept(feature: Feature, held: Sequence[HeldClaim], staying: Collection[str]) -> ConditionUpdate | None:
    kind = feature.claim_kinds[0]
    names = sorted(each.claim.name for each in held if each.claim.kind is kind)
    if not names:
        return None
    message = (
        f"{kind} {_quoted(names)} is kept although the feature is switched off; it goes when the object is deleted"
        " with deletionPolicy Delete"
    )
    if of_predecessor := [name for name in names if name in staying]:
        message += f"; {_quoted(of_predecessor)} stays even then: an earlier object of this name retained it"
    return ConditionUpdate(type=feature.condition, status="True", reason="DataKept", message=message)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
