"""What the API server's refusals mean to Plattr."""

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

# Their fields may hold secrets, and the API server quotes what it finds invalid: only the fields' names pass.
_CONFIDENTIAL = frozenset({SECRETS, CONFIG_MAPS, DEPLOYMENTS, REPLICA_SETS, PODS, APPLICATIONS, PREVIEWS})

# Too Many Requests, Request Timeout, and a server that is not itself.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
# What etcd and the API server's client of it say, with 500, of an object beyond their limits: trying again is vain.
# https://etcd.io/docs/latest/dev-guide/limit/
_TOO_LARGE = ("request is too large", "message larger than max")


class GoneError(Transient):
    """Raised when a watch or a page asks for a version that the server no longer keeps: list again."""

    reason = "Gone"


class NamespaceEnding(BackendRefused):
    """Raised when something is to be created in a namespace that is being deleted."""

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
    """Raise what an answer of 400 and above means; return for a code or a reason in `or_none`.

    A denial is none of those whatever its code: a webhook chooses it, and 404 of one that forbids a deletion does not
    say that nothing is there.
    """
    status = _status(text)
    denied = denial(_message(status), sent)
    if denied is None and (code in or_none or status.get("reason") in or_none):
        return
    raise _error(action, resource, code, status, denied, redact=redact)


def raise_for_event(action: str, resource: Resource, status: Json, *, redact: bool = True) -> NoReturn:
    """Raise what an ERROR event of a watch means."""
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
        # A proxy in between answers in HTML.
        return {}
    return status if isinstance(status, dict) else {}


def _is_failed_patch(status: Json) -> bool:
    # The API server reports a JSON patch whose `test` failed, or whose path is not there, as a 422 that names
    # neither object nor field; a validation names both.
    # https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/patch.go
    details = status.get("details") or {}
    return not details.get("causes") and not details.get("name")


def _ends(status: Json) -> bool:
    causes = (status.get("details") or {}).get("causes") or []
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


def _cause(resource: Resource, code: int, status: Json, denied: str | None, *, redact: bool) -> str:
    reason = str(status.get("reason") or f"HTTP {code}")
    # At a person's own terminal there is nobody to hide it from: it quotes what they wrote.
    if not redact:
        return one_line(_message(status) or reason)
    if denied is not None:
        return denied
    # 401 and the like speak of rights and versions; only of a Secret may even they quote too much.
    if resource not in _CONFIDENTIAL or (code in (401, 403, 404, 409, 410) and resource != SECRETS):
        return one_line(_message(status) or reason)
    causes = (status.get("details") or {}).get("causes") or []
    fields = ", ".join(str(cause.get("field")) for cause in causes if cause.get("field"))
    return one_line(f"{reason} in {fields}") if fields else one_line(reason)
