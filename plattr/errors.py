"""What can go wrong, sorted by its remedy.

The sort decides what the workflow does. A `Refusal` ends the run. An `Unmet` need is retried slowly. A `Transient`
fault is retried by the seed's table. `Superseded` means that the run must read the object again.
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
    a secret, because the workflow history, the object's condition and an Event show it.
    """

    reason: ClassVar[str] = "Error"
    condition: str | None = None
    """The ConditionType that is False, when the raiser knows it better than the step does."""
    again_at: datetime | None = None
    """When a retry can help, if that is known."""
    backend: str | None = None
    """The backend that answered, or failed to answer; None when the error is the object's or ours."""


class Refusal(PlattrError):
    """Raised when no retry can help: the spec, or what somebody else owns, has to change."""


class Unmet(PlattrError):
    """Raised when something outside has to happen first: retried slowly, or at the next change."""


class Transient(PlattrError):
    """Raised when a retry may help soon: network, conflict, overload, a server that restarts."""


class InvalidSpec(Refusal):
    """Raised when a field of the object breaks a rule; names the field and the rule."""

    reason = "InvalidSpec"

    def __init__(self, field: str, rule: str) -> None:
        """Keep the field separately, so that tests and conditions need not parse the message."""
        super().__init__(f"cannot accept {field}: {rule}")
        self.field = field


class NameTooLong(InvalidSpec):
    """Raised when a derived name exceeds the limit of its backend; nothing is ever truncated."""

    reason = "NameTooLong"


class OwnedElsewhere(Refusal):
    """Raised when a resource has another owner, or none; Plattr never adopts or changes such a resource."""

    reason = "OwnedElsewhere"


class MissingSetting(Refusal):
    """Raised when the platform's own settings lack a value or hold a bad one; names the setting."""

    reason = "MissingSetting"


class BackendRefused(Unmet):
    """Raised when a backend refuses for a reason that a quick retry does not change (rights, quota)."""

    reason = "BackendRefused"


class ClusterHeldElsewhere(BackendRefused):
    """Raised when another installation is alive under this cluster's id, so nothing may be written under it."""

    reason = "ClusterHeldElsewhere"


class HeldByDependents(Unmet):
    """Raised when somebody else's things depend on what is to be removed; names these things."""

    reason = "HeldByDependents"


class TooManyPreviews(Unmet):
    """Raised when a namespace has as many previews as the platform allows; the end of a preview makes room."""

    reason = "TooManyPreviews"
    condition = "Ready"


class ProviderCredentialsMissing(Unmet):
    """Raised when the spec names an identity provider and the platform has no credentials for it."""

    reason = "ProviderCredentialsMissing"


class ParentNotFound(Unmet):
    """Raised when a preview names an Application that does not exist in its namespace."""

    reason = "ParentNotFound"
    # Any step may notice this. No feature is at fault.
    condition = "Ready"


class NameQuarantined(Unmet):
    """Raised when no object may have a name yet: a call about it was never answered, and may still take effect."""

    reason = "NameQuarantined"

    def __init__(self, message: str, until: datetime) -> None:
        """Keep the moment, so that the run starts again then and does not wait for its next round."""
        super().__init__(message)
        self.again_at = until


class BackendUnavailable(Transient):
    """Raised when a backend cannot be reached, times out, or answers that it is overloaded."""

    reason = "BackendUnavailable"


class Conflict(Transient):
    """Raised when somebody else wrote at the same time: read again and compare."""

    reason = "Conflict"


class StillDeleting(Transient):
    """Raised when a deletion was requested and has not finished yet."""

    reason = "StillDeleting"


class RolloutFailed(Transient):
    """Raised when the Deployment does not become available; `cause` is the reason that its pods give."""

    reason = "RolloutFailed"

    def __init__(self, message: str, cause: str = "RolloutFailed") -> None:
        """Take the reason (CrashLoopBackOff, ImagePullBackOff, ProgressDeadlineExceeded) from the pods."""
        super().__init__(message)
        # A kubelet may report any word. An unusual one must not make the API server refuse the whole status.
        self.cause = cause if re.fullmatch(REASON_PATTERN, cause) else self.reason


class Superseded(PlattrError):
    """Raised when the object is gone, is being deleted, or has a newer spec than the run was started for."""

    reason = "Superseded"


class FencedOff(PlattrError):
    """Raised before a write when the attempt is past its deadline: another worker may already be active."""

    reason = "FencedOff"


def reason_of(error: PlattrError) -> str:
    """Return the PascalCase reason that the condition has for this error."""
    return error.cause if isinstance(error, RolloutFailed) else error.reason
