"""What of the user's the pods refer to, and the record of it."""

from plattr.references import as_record, from_record, references_of, version_of
from tests.manifests.targets import application, preview


def test_the_users_own_objects_count_whether_they_are_there_or_not() -> None:
    target = application(
        database={"enabled": True},
        envVars=[
            {"name": "A", "value": "1"},
            {"name": "B", "secretKeyRef": {"name": "mail", "key": "a"}},
            {"name": "C", "secretKeyRef": {"name": "mail", "key": "b"}},
        ],
    )

    assert references_of(target) == (("ConfigMap", "shop-env"), ("Secret", "mail"), ("Secret", "shop-env"))


def test_a_preview_refers_to_what_is_its_own() -> None:
    assert references_of(preview()) == (("ConfigMap", "shop-pr42-env"), ("Secret", "shop-pr42-env"))


def test_a_record_says_again_what_it_was_made_of() -> None:
    versions = {("Secret", "shop-env"): "u/1", ("ConfigMap", "shop.env"): ""}

    assert from_record(as_record(versions)) == versions
    assert as_record(versions) == as_record(dict(reversed(versions.items())))


def test_an_object_made_anew_is_another_version() -> None:
    first, second = ({"metadata": {"uid": uid, "resourceVersion": "1"}} for uid in "ab")

    assert len({version_of(first), version_of(second), version_of(None)}) == 3
