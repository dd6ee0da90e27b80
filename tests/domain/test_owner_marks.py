"""What is an owner's key, and what is only a text that somebody wrote in its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plattr.objects import UNREADABLE_OWNER, Kind, ObjectReference, owner_named, parse_key

LABEL = st.from_regex(r"\A[a-z]([-a-z0-9]{0,61}[a-z0-9])?\Z")


@given(namespace=LABEL, kind=st.sampled_from(Kind), name=LABEL)
def test_every_key_of_an_object_is_read_back(namespace: str, kind: Kind, name: str) -> None:
    reference = ObjectReference(namespace=namespace, kind=kind, name=name)

    assert parse_key(reference.key) == reference
    assert owner_named(reference.key) == reference.key


@pytest.mark.parametrize(
    "mark",
    [
        "shop",
        "team/Application",
        "team/Deployment/shop",
        "team/application/shop",
        "team/Application/shop\n",
        "team/Application/[shop](https://evil.example.test)",
        "**team**/Application/shop",
        "team/Application/shop/more",
        f"team/Application/{'a' * 64}",
        "team/Application/",
        17,
        ["team/Application/shop"],
    ],
)
def test_anything_else_is_an_unreadable_owner(mark: object) -> None:
    assert owner_named(mark) == UNREADABLE_OWNER


@pytest.mark.parametrize("mark", [None, ""])
def test_no_mark_is_no_owner(mark: object) -> None:
    assert owner_named(mark) is None
