"""The first step of every run: read the object, refuse or claim what it asks for; and the plan of its cleanup."""

from collections.abc import Collection, Sequence
from datetime import datetime

from temporalio import activity

from activities.clients.events import EventRecorder
from activities.clients.kube import KubeClient
from activities.clients.ledger import Ledger
from activities.clients.resources import NAMESPACES, Json, custom_resource
from activities.crowd import Crowd
from activities.families import Families
from activities.handover import Handover
from activities.loading import TargetLoader
from activities.status import conditions_of, with_summary
from plattr.claims import Claim, HeldClaim, Holding, claims_of, outliving
from plattr.errors import OwnedElsewhere, PlattrError, StillDeleting, Superseded
from plattr.marks import Estate, estate_of
from plattr.objects import FINALIZER, Envelope, Kind, ObjectReference, Owner
from plattr.parent import STATUS_FIELD
from plattr.spec import parse_preview_spec
from plattr.status import ConditionType, Finding, Phase, begun, ending
from plattr.steps import PROVISION_ORDER, ClaimInput, ClaimResult, CleanupInput, CleanupPlan, Step
from plattr.target import Target
from plattr.ttl import expires_at

# What outlives its feature being switched off, and the condition that says so.
_KEPT = {
    Holding.SCHEMA: ConditionType.DATABASE,
    Holding.BUCKET: ConditionType.STORAGE,
    Holding.REALM: ConditionType.AUTH,
    Holding.REDIS: ConditionType.REDIS,
    Holding.SEARCH: ConditionType.SEARCH,
}


class ClaimActivities:
    """Begin a provisioning run, or a cleanup."""

    def __init__(
        self,
        kube: KubeClient,
        ledger: Ledger,
        loader: TargetLoader,
        events: EventRecorder,
        *,
        previews_per_namespace: int | None = None,
    ) -> None:
        self._kube = kube
        self._ledger = ledger
        self._loader = loader
        self._events = events
        self._families = Families(kube, ledger)
        self._handover = Handover(kube, ledger, loader)
        self._crowd = Crowd(kube, ledger, previews_per_namespace)

    @activity.defn
    async def claim_object(self, claim: ClaimInput) -> ClaimResult:
        """Read the object; if it has work to do, add the finalizer and claim every name it needs.

        Writes nothing but a lost finalizer when all that is done already, and nothing at all before the spec is known
        to be good.

        Raises:
            InvalidSpec: a rule is broken.
            OwnedElsewhere: a name belongs to another object, or to another namespace's previews; this one has no new
                claim. It is woken when the other gives the name back.
            StillDeleting: the same, while the other is being deleted.
            NameQuarantined: a name was an object's that is gone, and a call about it may still come true.
            ParentNotFound: a preview's Application is missing.
            TooManyPreviews: its namespace has as many as it may have.
            Conflict: the object changed under our hands.
            Superseded: the object went under our hands.
        """
        resource, reference = custom_resource(claim.reference.kind), claim.reference
        body = await self._kube.get(resource, reference.name, reference.namespace)
        if body is None:
            return ClaimResult(verdict="gone")
        envelope = Envelope.from_api(reference.kind, body)
        # Before the generation is looked at: a deletion raises it.
        if envelope.is_deleting:
            return _without_work("deleting", envelope)
        if envelope.is_paused:
            return _without_work("paused", envelope)
        if envelope.is_settled and not claim.every_step:
            # Somebody may have taken it off, as by replacing the object with a manifest that does not have it.
            await self._with_finalizer(body, envelope)
            return _without_work("settled", envelope)

        found = envelope.status
        envelope = await self._loader.with_parent(envelope, take_over=claim.take_over)
        target = await self._loader.target_of(envelope)
        is_retained = target.spec.deletion_policy == "Retain"
        if _is_new_spec(envelope) and envelope.metadata.generation > 1:
            # For what it asked for before; what it is refused now it waits for from here on.
            await self._ledger.stop_waiting(reference)
        await self._families.ensure_own(target)
        await self._crowd.ensure_room(target)
        needed, wanted = self._families.claims_of(target)
        body = await self._with_finalizer(body, envelope)
        try:
            claims = await self._ledger.acquire(
                target.owner, [*claims_of(target), *needed], optional=wanted, is_retained=is_retained
            )
        except (OwnedElsewhere, StillDeleting):
            await self._handover.hand_over_left_host(target)
            raise
        try:
            if _is_new_spec(envelope) or envelope.status != found:
                # Before the status: once that is written nobody would know any more that these are news.
                await self._tell_dropped_variables(target)
            is_shown = await self._show_begun(body, envelope)
        except PlattrError:
            await self._ensure_held_back(target.owner, claims.new)
            raise
        # A status that was written says that the object is still there.
        if not is_shown and FINALIZER not in envelope.metadata.finalizers:
            await self._ensure_held_back(target.owner, claims.new)
        return ClaimResult(
            verdict="proceed",
            uid=envelope.metadata.uid,
            generation=envelope.metadata.generation,
            environment=target.spec.environment,
            steps=_steps(target),
            kept=_kept(target, claims.held),
            expires_at=target.expires_at,
        )

    @activity.defn
    async def plan_cleanup(self, cleanup: CleanupInput) -> CleanupPlan:
        """Find out what a cleanup is for; delete the object first where that is asked for.

        An object that is gone is still cleaned up after: the later steps find what its owner left. What was to be
        retained stays then, unless a person asked for this cleanup by hand and meant no object.

        Raises:
            Conflict: the object changed under our hands.
        """
        resource, reference = custom_resource(cleanup.reference.kind), cleanup.reference
        envelope = await self._loader.read(reference)
        if envelope is None:
            if cleanup.purge or (cleanup.delete_object and not cleanup.uid):
                return CleanupPlan(verdict="proceed", purge=True)
            namespace = await self._kube.get(NAMESPACES, reference.namespace)
            # What is left of an earlier namespace waits for a person while the name is somebody's again.
            namespace_uid = namespace["metadata"]["uid"] if namespace else None
            held = await self._ledger.held_by(self._estate(reference, namespace_uid))
            retained = [claim for claim in held if claim.is_retained and claim.quarantined_until is None]
            return CleanupPlan(verdict="proceed", namespace_uid=namespace_uid, retain=bool(retained))
        if not envelope.is_deleting:
            if not cleanup.delete_object or cleanup.uid not in ("", envelope.metadata.uid):
                return CleanupPlan(verdict="recreated", uid=envelope.metadata.uid)
            # The uid: an object that took the name since we looked must live.
            await self._kube.delete(resource, reference.name, reference.namespace, uid=envelope.metadata.uid)
        namespace_uid = await self._loader.namespace_uid(envelope)
        body = await self._kube.get(resource, reference.name, reference.namespace)
        if body is not None and body["metadata"]["uid"] == envelope.metadata.uid:
            fields: Json = {"phase": str(Phase.TERMINATING)}
            # The deletion has raised the generation.
            generation = body["metadata"]["generation"]
            fields = with_summary(fields, conditions_of(envelope), ending(), generation=generation)
            await self._show(body, envelope.kind, fields)
        return CleanupPlan(
            verdict="proceed",
            uid=envelope.metadata.uid,
            namespace_uid=namespace_uid,
            # The raw spec: one that the models refuse must still be deletable.
            retain=envelope.spec.get("deletionPolicy") == "Retain",
            outliving=outliving(
                await self._ledger.held_by(self._estate(reference, namespace_uid)), envelope.metadata.uid
            ),
        )

    def _estate(self, reference: ObjectReference, namespace_uid: str | None) -> Estate:
        return Estate(reference=reference, cluster=self._kube.cluster, namespace_uid=namespace_uid)

    async def _with_finalizer(self, body: Json, envelope: Envelope) -> Json:
        """Return the object with our finalizer; everybody else's stays."""
        present = list(envelope.metadata.finalizers)
        if FINALIZER in present:
            return body
        metadata = envelope.metadata
        operations: list[Json] = [
            {"op": "test", "path": "/metadata/uid", "value": metadata.uid},
            # A deletion raises the generation: no finalizer can be added then.
            {"op": "test", "path": "/metadata/generation", "value": metadata.generation},
            {"op": "test", "path": "/metadata/finalizers", "value": present or None},
            {"op": "add", "path": "/metadata/finalizers", "value": [*present, FINALIZER]},
        ]
        patched = await self._kube.json_patch(
            custom_resource(envelope.kind), metadata.name, operations, metadata.namespace
        )
        if patched is None:
            # A claim made now would be nobody's to give back.
            raise _gone(envelope.reference)
        return patched

    async def _ensure_held_back(self, owner: Owner, claimed: Sequence[Claim]) -> None:
        """Return when the finalizer holds the object back; else give back what was claimed for it.

        The API server looks for finalizers before it deletes, not while: one added in those milliseconds is lost.
        https://github.com/kubernetes/apiserver/blob/master/pkg/registry/generic/registry/store.go
        """
        found = await self._loader.read(owner.reference)
        if found is not None and found.metadata.uid == owner.uid:
            return
        await self._ledger.release(estate_of(owner), claimed)
        raise _gone(owner.reference)

    async def _show_begun(self, body: Json, envelope: Envelope) -> bool:
        """Say that work has begun, and from which parent a preview is built; return whether that was news.

        A resync of what runs already says nothing.
        """
        fields: Json = {}
        if STATUS_FIELD in envelope.status:
            fields[STATUS_FIELD] = envelope.status[STATUS_FIELD]
        old = conditions_of(envelope)
        is_refused = any(condition.type is ConditionType.STALLED for condition in old)
        if _is_new_spec(envelope) or is_refused:
            generation = envelope.metadata.generation
            fields |= {"phase": str(Phase.PROVISIONING), "observedGeneration": generation}
            fields |= with_summary(fields, old, begun(), generation=generation)
        return await self._show(body, envelope.kind, fields)

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


def _is_new_spec(envelope: Envelope) -> bool:
    return envelope.status.get("observedGeneration") != envelope.metadata.generation


def _gone(reference: ObjectReference) -> Superseded:
    return Superseded(f"cannot go on with {reference}: it went before anything was made for it")


def _without_work(verdict: str, envelope: Envelope) -> ClaimResult:
    return ClaimResult.model_validate(
        {
            "verdict": verdict,
            "uid": envelope.metadata.uid,
            "generation": envelope.metadata.generation,
            "environment": "preview" if envelope.kind is Kind.PREVIEW else str(envelope.spec.get("environment", "")),
            "expires_at": _end_of(envelope),
        }
    )


def _end_of(envelope: Envelope) -> datetime | None:
    """Return when a preview ends, whether it has work to do or not."""
    if envelope.kind is not Kind.PREVIEW or envelope.is_deleting:
        return None
    return expires_at(envelope.metadata.creation_timestamp, parse_preview_spec(envelope.spec).ttl)


def _steps(target: Target) -> tuple[Step, ...]:
    spec = target.spec
    is_wanted = {
        Step.DATABASE: spec.database.enabled,
        Step.STORAGE: spec.storage.enabled,
        Step.AUTH: spec.auth.enabled,
        Step.REDIS: spec.redis.enabled,
        Step.SEARCH: spec.search.enabled,
        Step.WORKLOAD: True,
    }
    steps = tuple(step for step in PROVISION_ORDER if is_wanted[step])
    return (Step.NAMESPACE, *steps) if target.is_preview else steps


def _kept(target: Target, held: Sequence[HeldClaim]) -> tuple[Finding, ...]:
    """Return what is true of features that are switched off and whose data is still there."""
    spec = target.spec
    is_enabled = {
        Holding.SCHEMA: spec.database.enabled,
        Holding.BUCKET: spec.storage.enabled,
        Holding.REALM: spec.auth.enabled,
        Holding.REDIS: spec.redis.enabled,
        Holding.SEARCH: spec.search.enabled,
    }
    names = {
        holding: sorted(claim.claim.name for claim in held if claim.claim.holding is holding)
        for holding in sorted(is_enabled)
        if not is_enabled[holding]
    }
    staying = {claim.name for claim in outliving(held, target.owner.uid)}
    return tuple(_data_kept(holding, kept, staying) for holding, kept in names.items() if kept)


def _data_kept(holding: Holding, names: list[str], staying: Collection[str]) -> Finding:
    message = (
        f"{holding} {_quoted(names)} is kept although the feature is switched off; it goes when the object is deleted"
        " with deletionPolicy Delete"
    )
    if of_predecessor := [name for name in names if name in staying]:
        message += f"; {_quoted(of_predecessor)} stays even then: an earlier object of this name retained it"
    return Finding(type=_KEPT[holding], status="True", reason="DataKept", message=message)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
