"""The state that one run works towards: the effective application, the same for an Application and a preview."""

from collections.abc import Mapping
from typing import Any

from plattr import naming
from plattr.errors import InvalidSpec
from plattr.features import secret_names
from plattr.hosts import HostRules
from plattr.marks import Mark
from plattr.naming import Names
from plattr.objects import GROUP, CustomObject, FrozenModel, Kind, ObjectReference, Owner
from plattr.spec import (
    ApplicationSpec,
    Environment,
    EnvVar,
    PreviewSpec,
    ScalingSpec,
    parse_application_spec,
    parse_preview_spec,
)

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
NAME_LABEL = "app.kubernetes.io/name"
KIND_LABEL = f"{GROUP}/kind"
OWNER_NAMESPACE_LABEL = f"{GROUP}/owner-namespace"
OWNER_NAME_LABEL = f"{GROUP}/owner-name"
OWNER_ANNOTATION = f"{GROUP}/owner"
OWNER_UID_ANNOTATION = f"{GROUP}/owner-uid"
OWNER_CLUSTER_ANNOTATION = f"{GROUP}/owner-cluster"
OWNER_NAMESPACE_UID_ANNOTATION = f"{GROUP}/owner-namespace-uid"

# A preview runs few pods, each at a higher load.
PREVIEW_SCALING = ScalingSpec.model_validate({"min": 1, "max": 2, "targetCPU": 80})


class Target(FrozenModel):
    """An effective spec with its names and its owner; every step reads only this."""

    owner: Owner
    generation: int
    spec: ApplicationSpec
    names: Names
    parent: str = ""
    """The Application of a preview, in the owner's namespace."""
    pull_request: int | None = None
    dropped_variables: tuple[str, ...] = ()
    """Variables of the parent that come from Secrets; a preview does not get them."""

    @property
    def is_preview(self) -> bool:
        """Tell whether this is a pull request's environment."""
        return self.owner.reference.kind is Kind.PREVIEW

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels of every Kubernetes object of this target."""
        return owner_labels(self.owner.reference) | {NAME_LABEL: self.names.stem}

    @property
    def selector_labels(self) -> dict[str, str]:
        """Return the labels that select the pods; they never change, because a selector is immutable."""
        return {NAME_LABEL: self.names.stem, KIND_LABEL: self.owner.reference.kind.lower()}

    @property
    def annotations(self) -> dict[str, str]:
        """Return the annotations that name the owner of a Kubernetes object."""
        return owner_annotations(self.owner)


def owner_labels(reference: ObjectReference) -> dict[str, str]:
    """Return the labels that find everything of one owner in Kubernetes."""
    return {
        MANAGED_BY_LABEL: "plattr",
        KIND_LABEL: reference.kind.lower(),
        OWNER_NAMESPACE_LABEL: reference.namespace,
        OWNER_NAME_LABEL: reference.name,
    }


def owner_annotations(owner: Owner) -> dict[str, str]:
    """Return the annotations that name an owner and its uid."""
    return {
        OWNER_ANNOTATION: owner.reference.key,
        OWNER_UID_ANNOTATION: owner.uid,
        OWNER_CLUSTER_ANNOTATION: owner.cluster,
        OWNER_NAMESPACE_UID_ANNOTATION: owner.namespace_uid,
    }


def mark_of(body: Mapping[str, Any]) -> Mark | None:
    """Return the mark of a Kubernetes object; None when it names no owner."""
    return annotated_mark(body["metadata"].get("annotations") or {})


def annotated_mark(annotations: Mapping[str, str]) -> Mark | None:
    """Return the owner that a Kubernetes object's annotations name; None when they name none."""
    key = annotations.get(OWNER_ANNOTATION)
    if key is None:
        return None
    return Mark(
        key=key,
        cluster=annotations.get(OWNER_CLUSTER_ANNOTATION, ""),
        namespace_uid=annotations.get(OWNER_NAMESPACE_UID_ANNOTATION, ""),
        uid=annotations.get(OWNER_UID_ANNOTATION, ""),
    )


def application_target(
    custom_object: CustomObject, *, base_domain: str, client_suffix: str = "", hosts: HostRules | None = None
) -> Target:
    """Return what an Application asks for.

    Args:
        custom_object: the Application.
        base_domain: the platform's domain.
        client_suffix: what the platform appends to OIDC client ids.
        hosts: the installation's rules for hosts; None: the built-in rules.

    Raises:
        InvalidSpec: a rule is broken; no backend has been called yet.
    """
    spec = parse_application_spec(custom_object.spec)
    names = naming.application_names(
        custom_object.reference, spec, base_domain=base_domain, client_suffix=client_suffix
    )
    _check_domain(spec, names, base_domain, hosts or HostRules())
    _check_secret_references(spec, names)
    return Target(owner=custom_object.owner, generation=custom_object.metadata.generation, spec=spec, names=names)


def preview_target(
    custom_object: CustomObject, parent: dict[str, Any], *, base_domain: str, hosts: HostRules | None = None
) -> Target:
    """Return what a preview asks for: its parent's features under names of its own.

    Args:
        custom_object: the PreviewEnvironment.
        parent: the spec of the Application it names, as the API server holds it.
        base_domain: the platform's domain.
        hosts: the installation's rules for hosts; None: the built-in rules.

    Raises:
        InvalidSpec: a rule is broken, in the preview or in its parent.
    """
    # No other name derives from this name, but it becomes the value of a label.
    naming.check_object_name(custom_object.metadata.name)
    preview = parse_preview_spec(custom_object.spec)
    application = parse_application_spec(parent)
    spec, dropped = _effective(preview, application)
    names = naming.preview_names(preview, spec, base_domain=base_domain)
    (hosts or HostRules()).ensure_free(names.host, base_domain=base_domain, field="spec.applicationRef")
    return Target(
        owner=custom_object.owner,
        generation=custom_object.metadata.generation,
        spec=spec,
        names=names,
        parent=preview.application_ref,
        pull_request=preview.pull_request,
        dropped_variables=dropped,
    )


def _effective(preview: PreviewSpec, parent: ApplicationSpec) -> tuple[ApplicationSpec, tuple[str, ...]]:
    # A Secret of the parent stays in the parent's namespace. Only the parent is trusted with it, so it is never copied.
    kept: tuple[EnvVar, ...] = tuple(v for v in parent.env_vars if v.secret_key_ref is None)
    dropped = tuple(v.name for v in parent.env_vars if v.secret_key_ref is not None)
    spec = parent.model_copy(
        update={
            "environment": Environment.PREVIEW,
            "branch": preview.branch,
            "image_ref": preview.image_ref or parent.image_ref,
            "domain": None,
            "env_vars": kept,
            "database": parent.database.model_copy(update={"schema_name": None}),
            "scaling": PREVIEW_SCALING,
            "deletion_policy": "Delete",
        }
    )
    return spec, dropped


def _check_domain(spec: ApplicationSpec, names: Names, base_domain: str, hosts: HostRules) -> None:
    hosts.ensure_free(names.host, base_domain=base_domain, field="spec.domain" if spec.domain else "metadata.name")
    if spec.domain and spec.domain.endswith(f".preview.{base_domain}"):
        raise InvalidSpec("spec.domain", f"hosts below 'preview.{base_domain}' belong to PreviewEnvironments")
    if spec.domain:
        hosts.ensure_allowed(spec.domain, names.namespace)


def _check_secret_references(spec: ApplicationSpec, names: Names) -> None:
    for index, variable in enumerate(spec.env_vars):
        reference = variable.secret_key_ref
        if reference is None:
            continue
        for own in secret_names(names):
            ending = own.removeprefix(names.stem)
            # Any other such Secret in the namespace holds, or may later hold, another application's password.
            if reference.name.endswith(ending) and reference.name != own:
                raise InvalidSpec(
                    f"spec.envVars[{index}].secretKeyRef.name",
                    f"{reference.name!r} is another application's Secret; of those that end in {ending} only"
                    f" {own!r} may be used here",
                )
