"""Turn the API server's refusals into Plattr's errors."""

import json
from typing import NoReturn

from clients.resources import (
    APPLICATIONS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    PODS,
    PREVIEWS,
    REPLICA_SETS,
    SECRETS,
    Json,
    Resource,
)
from plattr.backends import Backend, of_backend
from plattr.denials import denial, one_line
from plattr.errors import BackendRefused, BackendUnavailable, Conflict, PlattrError, Transient

# Their fields may hold secrets, and the API server quotes invalid values. So only the names of the fields are shown.
_CONFIDENTIAL = frozenset({SECRETS, CONFIG_MAPS, DEPLOYMENTS, REPLICA_SETS, PODS, APPLICATIONS, PREVIEWS})

# Too Many Requests, Request Timeout, and the answers of a server that has a failure.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
# etcd and the API server's etcd client answer with these texts, and 500, if an object exceeds their limits. A retry
# cannot succeed.
# https://etcd.io/docs/latest/dev-guide/limit/
_TOO_LARGE = ("request is too large", "message larger than max")


class GoneError(Transient):
    """Raised when a watch or a page asks for a version that the server no longer keeps: list again."""

    reason = "Gone"


class NamespaceEnding(BackendRefused):
    """Raised when an object cannot be created because its namespace is being deleted."""

    reason = "NamespaceEnding"


def raise_for_status(
    action: str,
    resource: Resource,
    code: int,
    text: bytes,
    *,
    sent: object = None,
    or_none: tuple[int | str, ...] = (),
    redact: bool = True,
) -> None:
    """Raise the error for an answer of 400 and above; return for a code or a reason in `or_none`.

    A webhook's denial always raises, whatever its code. The webhook chooses the code: if it forbids a deletion with
    404, the object may still exist.
    """
    status = _status(text)
    denied = denial(_message(status), sent)
    if denied is None and (code in or_none or status.get("reason") in or_none):
        return
    raise _error(action, resource, code, status, denied, redact=redact)


def raise_for_event(action: str, resource: Resource, status: Json, *, redact: bool = True) -> NoReturn:
    """Raise the error for an ERROR event of a watch."""
    raise _error(action, resource, int(status.get("code", 500)), status, None, redact=redact)


def _error(
    action: str, resource: Resource, code: int, status: Json, denied: str | None, *, redact: bool
) -> PlattrError:
    cause = _cause(resource, code, status, denied, redact=redact)
    return of_backend(Backend.KUBERNETES, _meaning(action, code, status, cause, is_denied=denied is not None))


def _meaning(action: str, code: int, status: Json, cause: str, *, is_denied: bool) -> PlattrError:
    if code == 403 and _ends(status):
        return NamespaceEnding(f"cannot {action}: {cause}")
    if is_denied and code not in _PASSING:
        return BackendRefused(f"cannot {action}: the API server refused it with {code}: {cause}")
    if code == 410:
        return GoneError(f"cannot {action}: {cause}")
    if code == 409 or (code == 422 and _is_failed_patch(status)):
        return Conflict(f"cannot {action}: somebody else changed it: {cause}")
    if code == 413 or any(text in _message(status) for text in _TOO_LARGE):
        return BackendRefused(f"cannot {action}: it is too large for the API server (about 1.5 MB); shorten its values")
    if code in _PASSING:
        return BackendUnavailable(f"cannot {action}: the API server answered {code}: {cause}")
    return BackendRefused(f"cannot {action}: the API server refused it with {code}: {cause}")


def _message(status: Json) -> str:
    return str(status.get("message") or "")


def _status(text: bytes) -> Json:
    try:
        status = json.loads(text)
    except ValueError:
        # A proxy between us and the server answers in HTML.
        return {}
    return status if isinstance(status, dict) else {}


def _is_failed_patch(status: Json) -> bool:
    # The API server answers 422 to a JSON patch whose `test` failed or whose path does not exist. This answer names
    # neither object nor field; the answer of a failed validation names both.
    # https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/patch.go
    details = status.get("details") or {}
    return not details.get("causes") and not details.get("name")


def _ends(status: Json) -> bool:
    causes = (status.get("details") or {}).get("causes") or []
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


def _cause(resource: Resource, code: int, status: Json, denied: str | None, *, redact: bool) -> str:
    reason = str(status.get("reason") or f"HTTP {code}")
    # At a person's own terminal nothing needs to be hidden: the message quotes what that person wrote.
    if not redact:
        return one_line(_message(status) or reason)
    if denied is not None:
        return denied
    # 401 and similar codes are about rights and versions. Only for a Secret may even their message quote too much.
    if resource not in _CONFIDENTIAL or (code in (401, 403, 404, 409, 410) and resource != SECRETS):
        return one_line(_message(status) or reason)
    causes = (status.get("details") or {}).get("causes") or []
    fields = ", ".join(str(cause.get("field")) for cause in causes if cause.get("field"))
    return one_line(f"{reason} in {fields}") if fields else one_line(reason)
