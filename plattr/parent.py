"""The Application that a preview was built from: a copy of its spec, kept in the preview's own status."""

from typing import Any, Self

from pydantic import Field, ValidationError

from plattr.objects import CustomObject, FrozenModel

STATUS_FIELD = "parent"


class Parent(FrozenModel):
    """An Application as it was when a preview copied it; later changes of the Application do not reach the preview."""

    uid: str
    generation: int = Field(ge=0)
    spec: dict[str, Any]

    @classmethod
    def of(cls, application: CustomObject) -> Self:
        """Return the Application as it is now."""
        metadata = application.metadata
        return cls(uid=metadata.uid, generation=metadata.generation, spec=application.spec)


def taken_parent(preview: CustomObject) -> Parent | None:
    """Return what the preview was built from; None before its first claim, or if an earlier Plattr kept no copy."""
    try:
        return Parent.model_validate(preview.status.get(STATUS_FIELD))
    except ValidationError:
        return None


def with_parent(preview: CustomObject, parent: Parent) -> CustomObject:
    """Return the preview as its status will be after the parent has been written."""
    status = {**preview.status, STATUS_FIELD: parent.model_dump(mode="json", by_alias=True)}
    return preview.model_copy(update={"status": status})
