"""Every error knows its reason, and by its base what mends it."""

import inspect
import re

import pytest

from plattr import errors
from plattr.errors import (
    REASON_PATTERN,
    FencedOff,
    InvalidSpec,
    NameTooLong,
    PlattrError,
    Refusal,
    RolloutFailed,
    Superseded,
    Transient,
    Unmet,
    reason_of,
)

ERRORS = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, PlattrError) and error not in (PlattrError, Refusal, Unmet, Transient)
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_reason_is_the_errors_own_name(error: type[PlattrError]) -> None:
    assert error.reason == error.__name__
    assert re.fullmatch(REASON_PATTERN, error.reason)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_mended_in_exactly_one_way(error: type[PlattrError]) -> None:
    ways = [base for base in (Refusal, Unmet, Transient, Superseded, FencedOff) if issubclass(error, base)]

    assert len(ways) == 1


@pytest.mark.parametrize("error", [InvalidSpec, NameTooLong], ids=lambda error: error.__name__)
def test_refusal_of_a_field_names_field_and_rule_in_one_line(error: type[InvalidSpec]) -> None:
    refusal = error("spec.domain", "it is taken")

    assert (refusal.field, str(refusal)) == ("spec.domain", "cannot accept spec.domain: it is taken")


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        ("ImagePullBackOff", "ImagePullBackOff"),
        ("RolloutFailed", "RolloutFailed"),
        ("", "RolloutFailed"),
        ("two words", "RolloutFailed"),
        ("Newline\n", "RolloutFailed"),
    ],
    ids=repr,
)
def test_rollout_speaks_with_the_pods_own_word_if_it_is_one(cause: str, expected: str) -> None:
    error = RolloutFailed("cannot roll out", cause)

    assert reason_of(error) == expected


def test_other_errors_speak_with_their_own() -> None:
    assert reason_of(Superseded("it moved on")) == "Superseded"
