"""From a step's input to its target: the object is read afresh before every step."""

from activities.clients.kube import KubeClient
from activities.clients.resources import APPLICATIONS, custom_resource
from plattr.errors import ParentNotFound, Superseded
from plattr.objects import Envelope, Kind, ObjectReference
from plattr.settings import Settings
from plattr.spec import parse_preview_spec
from plattr.steps import StepInput
from plattr.target import Target, application_target, preview_target


class TargetLoader:
    """Reads objects and says what they ask for."""

    def __init__(self, kube: KubeClient, settings: Settings) -> None:
        self._kube = kube
        self._settings = settings

    async def load(self, step: StepInput) -> Target:
        """Return what the step works towards.

        Raises:
            Superseded: the object is gone, is being deleted, or is not the one the run was started for.
            ParentNotFound: a preview's Application is missing.
            InvalidSpec: a rule is broken, in the object or in a preview's parent.
        """
        envelope = await self.read(step.reference)
        if envelope is None:
            raise Superseded(f"cannot go on with {step.reference}: it is gone")
        if envelope.metadata.uid != step.uid:
            raise Superseded(f"cannot go on with {step.reference}: it was created anew")
        if envelope.is_deleting:
            raise Superseded(f"cannot go on with {step.reference}: it is being deleted")
        if envelope.metadata.generation != step.generation:
            raise Superseded(
                f"cannot go on with generation {step.generation} of {step.reference}:"
                f" generation {envelope.metadata.generation} is newer"
            )
        return await self.target_of(envelope)

    async def read(self, reference: ObjectReference) -> Envelope | None:
        """Return the object as it is now, its spec not yet validated; None when it is gone."""
        body = await self._kube.get(custom_resource(reference.kind), reference.name, reference.namespace)
        return None if body is None else Envelope.from_api(reference.kind, body)

    async def target_of(self, envelope: Envelope) -> Target:
        """Return what an object asks for; a preview's parent is read, nothing else.

        Raises:
            ParentNotFound: a preview's Application is missing or is being deleted.
            InvalidSpec: a rule is broken, in the object or in a preview's parent.
        """
        if envelope.kind is Kind.APPLICATION:
            return application_target(
                envelope,
                base_domain=self._settings.base_domain,
                client_suffix=self._settings.oidc_client_suffix,
                reserved_hosts=self._settings.own_hosts,
            )
        name = parse_preview_spec(envelope.spec).application_ref
        # Only ever in the preview's own namespace: another team's Application is not the preview's to copy.
        body = await self._kube.get(APPLICATIONS, name, envelope.metadata.namespace)
        if body is None or body["metadata"].get("deletionTimestamp"):
            state = "does not exist" if body is None else "is being deleted"
            raise ParentNotFound(
                f"cannot provision {envelope.reference}: Application {name!r} {state}"
                f" in namespace {envelope.metadata.namespace!r}; create it there"
            )
        return preview_target(envelope, body.get("spec", {}), base_domain=self._settings.base_domain)
