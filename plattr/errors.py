"""What can go wrong, sorted by what mends it.

The sort decides what the workflow does: a `Refusal` ends the run, an `Unmet` need is tried again slowly,
a `Transient` fault is tried again by the table of the seed, and `Superseded` means: read the object again.
"""

import re
from datetime import datetime
from typing import ClassVar

# What the API server takes as a condition's reason.
# https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/types.go
REASON_PATTERN = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"


class PlattrError(Exception):
    """Base of every error Plattr raises on purpose.

    The message is one line for a person: cannot + verb + what + where + cause + remedy. It never holds
    a secret: it goes to the workflow history, the object's condition and an Event.
    """

    reason: ClassVar[str] = "Error"
    condition: str | None = None
    """The ConditionType that the raiser knows to be False, where it knows better than the step does."""
    again_at: datetime | None = None
    """When trying again can help, where that is known."""
    backend: str | None = None
    """Which backend's answer, or silence, the error is; None when it is the object's or ours."""


class Refusal(PlattrError):
    """Raised when no retry can mend the cause: the spec, or what somebody else owns, has to change."""


class Unmet(PlattrError):
    """Raised when something outside has to happen first: tried again slowly, or at the next change."""


class Transient(PlattrError):
    """Raised when trying again soon may help: network, conflict, overload, a server that restarts."""


class InvalidSpec(Refusal):
    """Raised when a field of the object breaks a rule; names the field and the rule."""

    reason = "InvalidSpec"

    def __init__(self, field: str, rule: str) -> None:
        """Keep the field apart, so that tests and conditions need not parse the message."""
        super().__init__(f"cannot accept {field}: {rule}")
        self.field = field


class NameTooLong(InvalidSpec):
    """Raised when a derived name exceeds the limit of its backend; nothing is ever truncated."""

    reason = "NameTooLong"


class OwnedElsewhere(Refusal):
    """Raised when a resource exists with another owner, or with none; it is never adopted or changed."""

    reason = "OwnedElsewhere"


class MissingSetting(Refusal):
    """Raised when the platform's own settings lack a value or hold a bad one; names the setting."""

    reason = "MissingSetting"


class BackendRefused(Unmet):
    """Raised when a backend says no for a reason that a quick retry will not change (rights, quota)."""

    reason = "BackendRefused"


class ClusterHeldElsewhere(BackendRefused):
    """Raised when another installation is alive under this cluster's id: nothing may be written under it."""

    reason = "ClusterHeldElsewhere"


class HeldByDependents(Unmet):
    """Raised when what is to be removed is what somebody else's things depend on; names them."""

    reason = "HeldByDependents"


class TooManyPreviews(Unmet):
    """Raised when a namespace has as many previews as the platform allows it; one that goes makes room."""

    reason = "TooManyPreviews"
    condition = "Ready"


class ProviderCredentialsMissing(Unmet):
    """Raised when an identity provider is asked for whose credentials the platform does not have."""

    reason = "ProviderCredentialsMissing"


class ParentNotFound(Unmet):
    """Raised when a preview names an Application that does not exist in its namespace."""

    reason = "ParentNotFound"
    # Whichever step noticed it: no feature is at fault.
    condition = "Ready"


class NameQuarantined(Unmet):
    """Raised when no object may have a name yet: a call about it was never answered, and may still come true."""

    reason = "NameQuarantined"

    def __init__(self, message: str, until: datetime) -> None:
        """Keep the moment apart, so that the run starts again then and not at its next turn."""
        super().__init__(message)
        self.again_at = until


class BackendUnavailable(Transient):
    """Raised when a backend cannot be reached, times out, or answers that it is overloaded."""

    reason = "BackendUnavailable"


class Conflict(Transient):
    """Raised when somebody else wrote at the same time: read again and compare."""

    reason = "Conflict"


class StillDeleting(Transient):
    """Raised when a deletion was asked for and has not finished yet."""

    reason = "StillDeleting"


class RolloutFailed(Transient):
    """Raised when the Deployment does not become available; `cause` is the pods' own word for it."""

    reason = "RolloutFailed"

    def __init__(self, message: str, cause: str = "RolloutFailed") -> None:
        """Take the reason (CrashLoopBackOff, ImagePullBackOff, ProgressDeadlineExceeded) from the pods."""
        super().__init__(message)
        # A kubelet may say anything; one odd word must not make the whole status unacceptable.
        self.cause = cause if re.fullmatch(REASON_PATTERN, cause) else self.reason


class Superseded(PlattrError):
    """Raised when the object is gone, is being deleted, or has a newer spec than the run was started for."""

    reason = "Superseded"


class FencedOff(PlattrError):
    """Raised before a write whose attempt has outlived its deadline: another worker may act already."""

    reason = "FencedOff"


def reason_of(error: PlattrError) -> str:
    """Return the PascalCase reason that the condition carries for this error."""
    return error.cause if isinstance(error, RolloutFailed) else error.reason
