"""Load the target of a step: every step reads its object again first."""

from collections import OrderedDict

from clients.kube import KubeClient
from clients.resources import APPLICATIONS, NAMESPACES, custom_resource, is_deleting
from plattr.errors import ParentNotFound, Superseded
from plattr.objects import CustomObject, Kind, ObjectReference
from plattr.parent import Parent, taken_parent, with_parent
from plattr.settings import Settings
from plattr.spec import parse_preview_spec
from plattr.steps import StepInput
from plattr.target import Target, application_target, preview_target

# 10,000: the namespace uids of so many objects are cached, in some 2 MB.
KNOWN_OBJECTS = 10_000


class TargetLoader:
    """Read objects and say what they ask for."""

    def __init__(self, kube: KubeClient, settings: Settings) -> None:
        self._kube = kube
        self._settings = settings
        self._namespace_uids: OrderedDict[str, str] = OrderedDict()

    async def load(self, step: StepInput) -> Target:
        """Return what the step works towards.

        Raises:
            Superseded: the object is gone, is being deleted, is paused, was created again, or has a newer spec.
            ParentNotFound: a preview's Application is missing.
            InvalidSpec: a rule is broken, in the object or in a preview's parent.
        """
        custom_object = await self.read(step.reference)
        if custom_object is None:
            raise Superseded(f"cannot go on with {step.reference}: it is gone")
        if custom_object.metadata.uid != step.uid:
            raise Superseded(f"cannot go on with {step.reference}: it was created again")
        if custom_object.is_deleting:
            raise Superseded(f"cannot go on with {step.reference}: it is being deleted")
        # A run may miss a pause: the watcher does not know about resyncs, and it may be down.
        if custom_object.is_paused:
            raise Superseded(f"cannot go on with {step.reference}: it is paused")
        if custom_object.metadata.generation != step.generation:
            raise Superseded(
                f"cannot go on with generation {step.generation} of {step.reference}:"
                f" generation {custom_object.metadata.generation} is newer"
            )
        return await self.target_of(custom_object)

    async def read(self, reference: ObjectReference) -> CustomObject | None:
        """Return the object as it is now, without validating its spec; None when it is gone."""
        body = await self._kube.get(custom_resource(reference.kind), reference.name, reference.namespace)
        return None if body is None else CustomObject.from_api(reference.kind, body)

    async def namespace_uid(self, custom_object: CustomObject) -> str:
        """Return the uid of the object's namespace; it is read once for each object, because it never changes.

        Raises:
            Superseded: the namespace is gone, and the object with it.
        """
        uid, name = custom_object.metadata.uid, custom_object.metadata.namespace
        if uid not in self._namespace_uids:
            body = await self._kube.get(NAMESPACES, name)
            if body is None:
                raise Superseded(f"cannot go on with {custom_object.reference}: namespace {name!r} is gone")
            self._namespace_uids[uid] = body["metadata"]["uid"]
            if len(self._namespace_uids) > KNOWN_OBJECTS:
                self._namespace_uids.popitem(last=False)
        return self._namespace_uids[uid]

    async def at_home(self, custom_object: CustomObject) -> CustomObject:
        """Return the object with its cluster and its namespace's uid, which the owner's marks name."""
        home = {"cluster": self._kube.cluster, "namespace_uid": await self.namespace_uid(custom_object)}
        return custom_object.model_copy(update=home)

    async def with_parent(self, custom_object: CustomObject, *, take_over: bool) -> CustomObject:
        """Return a preview with its parent in its status; return an Application as it is.

        The parent is the one that the preview was built from before. Only a new preview, or one that must take over its
        parent's changes, gets the live parent.

        Raises:
            ParentNotFound: the live parent is needed, and is missing or being deleted.
            InvalidSpec: a rule of the preview is broken.
        """
        if custom_object.kind is Kind.APPLICATION or (taken_parent(custom_object) is not None and not take_over):
            return custom_object
        return with_parent(custom_object, await self._living_parent(custom_object))

    async def target_of(self, custom_object: CustomObject) -> Target:
        """Return what an object asks for; read the live parent if a preview's status has none yet.

        Raises:
            ParentNotFound: the live parent is needed, and is missing or being deleted.
            InvalidSpec: a rule is broken, in the object or in a preview's parent.
        """
        custom_object = await self.at_home(custom_object)
        if custom_object.kind is Kind.APPLICATION:
            return application_target(
                custom_object,
                base_domain=self._settings.base_domain,
                client_suffix=self._settings.oidc_client_suffix,
                hosts=self._settings.host_rules,
            )
        parent = taken_parent(custom_object) or await self._living_parent(custom_object)
        return preview_target(
            custom_object, parent.spec, base_domain=self._settings.base_domain, hosts=self._settings.host_rules
        )

    async def _living_parent(self, custom_object: CustomObject) -> Parent:
        name = parse_preview_spec(custom_object.spec).application_ref
        # Look only in the preview's own namespace: a preview must not copy another team's Application.
        body = await self._kube.get(APPLICATIONS, name, custom_object.metadata.namespace)
        if body is None or is_deleting(body):
            state = "does not exist" if body is None else "is being deleted"
            raise ParentNotFound(
                f"cannot provision {custom_object.reference}: Application {name!r} {state}"
                f" in namespace {custom_object.metadata.namespace!r}; create it there"
            )
        return Parent.of(CustomObject.from_api(Kind.APPLICATION, body))
