"""Random faults of the backends: an error instead of a call, or a call whose answer is lost (ExecuteAndTimeout)."""

# ruff: noqa: S311  the faults are to be random, not secret

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from clients.keycloak import KeycloakClient, OutcomeUnknown
from clients.kube import KubeClient
from clients.postgres import PostgresClient
from clients.postgres_transaction import Transaction
from clients.s3 import S3Client
from plattr.errors import BackendUnavailable

# Where every call of a client passes, whatever it is about.
_CALLS = (
    (KubeClient, "_call"),
    (KeycloakClient, "_send"),
    (S3Client, "_call"),
    (Transaction, "fetch"),
    (Transaction, "write"),
    (PostgresClient, "login_failure"),
)


class Chaos:
    """Makes this process's clients fail; `rate` is the share of each of both kinds of fault."""

    def __init__(self, rate: float, folder: Path) -> None:
        self._rate = rate
        self._notes = os.open(folder / "chaos", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def install(self) -> None:
        for client, name in _CALLS:
            setattr(client, name, self._faulty(getattr(client, name)))
        PostgresClient.locked = self._faulty_transaction(PostgresClient.locked)  # type: ignore[method-assign]

    def _faulty(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def faulty(*arguments: Any, **keywords: Any) -> Any:
            roll = random.random()
            if roll < self._rate:
                self._note("e")
                raise BackendUnavailable("cannot go on: an error was put in here")
            answer = await call(*arguments, **keywords)
            if roll < 2 * self._rate:
                self._note("l")
                raise self._lost(is_write=keywords.get("is_write", False))
            return answer

        return faulty

    def _faulty_transaction(self, locked: Callable[..., Any]) -> Callable[..., Any]:
        @asynccontextmanager
        async def faulty(*arguments: Any) -> AsyncIterator[Transaction]:
            async with locked(*arguments) as transaction:
                yield transaction
            # It is committed by now.
            if random.random() < self._rate:
                self._note("l")
                raise self._lost(is_write=True)

        return faulty

    def _lost(self, *, is_write: bool) -> BackendUnavailable:
        kind = OutcomeUnknown if is_write else BackendUnavailable
        return kind("cannot go on: the answer was lost on purpose")

    def _note(self, kind: str) -> None:
        os.write(self._notes, kind.encode())


def counted(folder: Path) -> tuple[int, int]:
    """Return how many errors, and how many lost answers, the workers of a folder met."""
    notes = (folder / "chaos").read_text() if (folder / "chaos").exists() else ""
    return notes.count("e"), notes.count("l")
