"""Who waits for a name: a bounded list in which nobody pushes others out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plattr.objects import ObjectReference
from plattr.waiting_list import MOST, MOST_OF_A_NAMESPACE, in_the_way, read_waiting, with_waiting, write_waiting

NAMES = st.from_regex(r"\A[a-z]([-a-z0-9]{0,61}[a-z0-9])?\Z")
REFERENCES = st.builds(ObjectReference, namespace=NAMES, name=NAMES)


@given(st.lists(REFERENCES, unique=True))
def test_a_list_is_read_as_it_was_written(waiting: list[ObjectReference]) -> None:
    assert read_waiting(write_waiting(waiting)) == tuple(waiting)


def test_nothing_is_nobody() -> None:
    assert read_waiting(None) == read_waiting("") == ()


@pytest.mark.attack
def test_a_namespace_with_hundreds_of_objects_leaves_room_for_others() -> None:
    crowd = [ObjectReference(namespace="crowd", name=f"a{number}") for number in range(300)]
    single = ObjectReference(namespace="team", name="shop")

    waiting: tuple[ObjectReference, ...] = ()
    for reference in [*crowd, single, single]:
        waiting = with_waiting(waiting, reference)

    assert waiting == (*crowd[:MOST_OF_A_NAMESPACE], single)


def test_only_of_a_full_list_somebody_is_in_the_way() -> None:
    crowd = tuple(ObjectReference(namespace="crowd", name=f"a{number}") for number in range(MOST_OF_A_NAMESPACE))
    all_places = tuple(ObjectReference(namespace=f"team-{number}", name="shop") for number in range(MOST))
    neighbour, stranger = (ObjectReference(namespace=name, name="late") for name in ("crowd", "elsewhere"))

    assert in_the_way((*crowd, all_places[0]), neighbour) == crowd
    assert in_the_way(crowd, stranger) == in_the_way(crowd, crowd[0]) == ()
    assert in_the_way(all_places, stranger) == all_places


def test_the_longest_list_fits_an_annotation() -> None:
    longest = [ObjectReference(namespace="n" * 63, name=f"{'a' * 60}{number:03}") for number in range(MOST)]

    assert len(write_waiting(longest)) < 64 * 1024
