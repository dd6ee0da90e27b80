"""Workers that are broken on purpose: a matrix that finds nothing wrong with these would find nothing at all.

Each breaks one rule, in the worker's own process, by putting something else into the place of a function of Plattr's.
"""

import math
import secrets
import uuid
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Any

from temporalio import activity

import activities.fleet
from activities.claim import ClaimActivities
from activities.database import DatabaseActivities, _Secret
from activities.storage import StorageActivities
from clients import events, fence
from clients.claim_store import ClaimStore
from clients.postgres_transaction import Transaction
from clients.resources import SECRETS
from plattr.errors import PlattrError


class Mutant(StrEnum):
    """What a worker does wrong."""

    NEW_PASSWORD = "makes the password again in each attempt, without reading the Secret"
    LATE_FINALIZER = "adds the finalizer after the claims"
    NO_FINALIZER = "adds no finalizer"
    SWALLOWED_ERROR = "takes a bucket for deleted although S3 refused"
    HALF_TRANSACTION = "commits each statement of the database step by itself"
    KEPT_CLAIMS = "gives no name back"
    LOST_REQUESTS = "takes the requests that a dead worker was to send for sent"
    EVENT_ANEW = "records each Event under a name of its own"
    NO_FENCE = "asks no fence before it writes"


def break_worker(mutant: Mutant) -> None:
    """Make this process such a worker."""
    _BREAKS[mutant]()


def _make_passwords_anew() -> None:
    async def secret(self: Any, target: Any) -> Any:
        values = _Secret(password=secrets.token_hex(), channel=target.names.app_role)
        wanted = self._manifest(target, values)
        await self._kube.apply_owned(SECRETS, wanted, target.owner, target.names.namespace)
        return values

    # A method of another name would break nothing, and the mutant be none.
    assert hasattr(DatabaseActivities, "_secret")
    DatabaseActivities._secret = secret  # type: ignore[method-assign]


def _add_the_finalizer_late() -> None:
    with_finalizer, show = ClaimActivities._with_finalizer, ClaimActivities._show_begun

    async def show_provisioning(self: Any, body: Any, custom_object: Any) -> bool:
        return await show(self, await with_finalizer(self, body, custom_object), custom_object)

    _add_no_finalizer()
    ClaimActivities._show_begun = show_provisioning  # type: ignore[method-assign]


def _add_no_finalizer() -> None:
    async def with_finalizer(self: Any, body: Any, custom_object: Any) -> Any:
        return body

    ClaimActivities._with_finalizer = with_finalizer  # type: ignore[method-assign]


def _swallow_s3s_refusal() -> None:
    async def remove(self: Any, bucket: str, is_over: Any) -> bool:
        with suppress(PlattrError):
            await self._s3.delete_bucket(bucket)
        return True

    StorageActivities._remove = remove  # type: ignore[method-assign]


def _commit_each_statement() -> None:
    async def write(self: Any, statements: Any) -> None:
        for statement in statements:
            fence.ensure_live()
            await self._connection.execute(statement)
            await self._connection.execute("COMMIT")
            await self._connection.execute("BEGIN")

    Transaction.write = write  # type: ignore[method-assign]


def _give_no_name_back() -> None:
    async def release(self: Any, reference: Any, claims: Any) -> None:
        return

    ClaimStore.release = release  # type: ignore[method-assign,assignment]


def _lose_requests() -> None:
    names = vars(activities.fleet)
    request = names["request_reconcile"]

    async def request_once(*arguments: Any, **keywords: Any) -> None:
        if activity.info().attempt == 1:
            await request(*arguments, **keywords)

    names["request_reconcile"] = request_once


def _name_events_anew() -> None:
    events._name = lambda owner, *_: f"{owner.reference.name}.{uuid.uuid4().hex}"


def _ask_no_fence() -> None:
    fence.ensure_live = lambda: None
    fence.seconds_on_the_way = lambda: math.inf


_BREAKS: dict[Mutant, Callable[[], None]] = {
    Mutant.NEW_PASSWORD: _make_passwords_anew,
    Mutant.LATE_FINALIZER: _add_the_finalizer_late,
    Mutant.NO_FINALIZER: _add_no_finalizer,
    Mutant.SWALLOWED_ERROR: _swallow_s3s_refusal,
    Mutant.HALF_TRANSACTION: _commit_each_statement,
    Mutant.KEPT_CLAIMS: _give_no_name_back,
    Mutant.LOST_REQUESTS: _lose_requests,
    Mutant.EVENT_ANEW: _name_events_anew,
    Mutant.NO_FENCE: _ask_no_fence,
}
