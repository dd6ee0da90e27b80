"""Whatever two objects would share outside, the claim store of claims lets only one of them have."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from plattr.claims import Claim, HeldClaim, claims_of, outliving
from plattr.features import ClaimKind
from plattr.objects import CustomObject, Kind, Metadata, ObjectReference, Owner
from plattr.target import Target, application_target, preview_target
from tests.domain.corpus import APPLICATION, BASE_DOMAIN, Case, object_of, target_of

# Few and related, so that names meet by every way of joining them.
APPLICATION_NAMES = st.sampled_from(["a", "a-b", "a-pr1", "a-api", "a-b-pr1", "prod-a", "staging-a", "preview-a"])
BUCKET_NAMES = st.sampled_from(["c", "b-c", "pr1-c", "b-pr1-c", "a-c"])
NAMESPACES = st.sampled_from(["a", "team", "preview-a-pr-1"])
FEATURES = st.fixed_dictionaries(
    {
        "environment": st.sampled_from(["production", "staging", "uat", "preview"]),
        "auth": st.fixed_dictionaries({"enabled": st.booleans()}),
        "database": st.fixed_dictionaries(
            {"enabled": st.booleans()}, optional={"schemaName": st.sampled_from(["a", "a_b", "a_", "a__b", "a_pr1"])}
        ),
        "storage": st.fixed_dictionaries(
            {
                "enabled": st.booleans(),
                "buckets": st.lists(BUCKET_NAMES.map(lambda name: {"name": name}), max_size=2, unique_by=str),
            }
        ),
    },
    optional={"domain": st.sampled_from([f"a.{BASE_DOMAIN}", f"a.staging.{BASE_DOMAIN}", "a.org"])},
)


@st.composite
def targets(draw: st.DrawFn) -> Target:
    """Targets that were accepted, of both kinds."""
    kind = draw(st.sampled_from(Kind))
    name = draw(APPLICATION_NAMES)
    metadata = Metadata(
        namespace=draw(NAMESPACES), name=name, uid="u", creation_timestamp=datetime(2026, 1, 1, tzinfo=UTC)
    )
    spec = {**APPLICATION, **draw(FEATURES)}
    if kind is Kind.APPLICATION:
        return application_target(CustomObject(kind=kind, metadata=metadata, spec=spec), base_domain=BASE_DOMAIN)
    preview = {
        "applicationRef": draw(APPLICATION_NAMES),
        "pullRequest": draw(st.sampled_from([1, 11])),
        "branch": "b",
    }
    return preview_target(CustomObject(kind=kind, metadata=metadata, spec=preview), spec, base_domain=BASE_DOMAIN)


def _external_names(target: Target) -> set[tuple[str, str]]:
    """Return everything the target makes that exists once on the platform, as its backend calls it."""
    names, spec = target.names, target.spec
    made = {("host", names.host), ("ingress", f"{names.namespace}/{names.stem}")}
    if target.is_preview:
        made.add(("namespace", names.namespace))
    if spec.database.enabled:
        made |= {
            ("schema", names.schema_name),
            ("role", names.app_role),
            ("role", names.anon_role),
            ("ingress", f"{names.namespace}/{names.api_ingress}"),
        }
    if spec.storage.enabled:
        made |= {("bucket", names.bucket(bucket.name)) for bucket in spec.storage.buckets}
    if spec.auth.enabled:
        made.add(("realm", names.realm))
    return made


@given(targets(), targets())
def test_two_objects_share_a_name_if_and_only_if_they_share_a_claim(one: Target, other: Target) -> None:
    _share_names_and_claims_alike(one, other)


# 400: a pair that meets in one name only is rare.
@pytest.mark.soak
@settings(max_examples=400)
@given(targets(), targets())
def test_many_objects_share_a_name_if_and_only_if_they_share_a_claim(one: Target, other: Target) -> None:
    _share_names_and_claims_alike(one, other)


def _share_names_and_claims_alike(one: Target, other: Target) -> None:
    leases = [{claim.lease_name for claim in claims_of(target)} for target in (one, other)]

    shared = _external_names(one) & _external_names(other)

    event(f"shared: {sorted({kind for kind, _ in shared})}")
    assert bool(leases[0] & leases[1]) == bool(shared)


@given(targets())
def test_no_object_claims_a_name_twice(target: Target) -> None:
    claims = claims_of(target)

    assert len({claim.lease_name for claim in claims}) == len(claims)


SQL_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
OTHER_NAMES = st.from_regex(r"[a-z]([-a-z0-9.]{0,8}[a-z0-9])?", fullmatch=True)
CLAIMS = st.one_of(
    st.builds(Claim, kind=st.sampled_from([ClaimKind.SCHEMA, ClaimKind.ROLES]), name=SQL_NAMES),
    st.builds(
        Claim,
        kind=st.sampled_from(
            [ClaimKind.BUCKET, ClaimKind.REALM, ClaimKind.HOST, ClaimKind.INGRESS, ClaimKind.NAMESPACE]
        ),
        name=OTHER_NAMES,
    ),
)


@given(CLAIMS, CLAIMS)
def test_lease_names_are_equal_only_of_equal_claims(one: Claim, other: Claim) -> None:
    assert (one.lease_name == other.lease_name) == (one == other)


@given(SQL_NAMES, OTHER_NAMES)
def test_lease_names_keep_holdings_apart(sql_name: str, other_name: str) -> None:
    claims = [
        Claim(kind=kind, name=sql_name if kind in (ClaimKind.SCHEMA, ClaimKind.ROLES) else other_name)
        for kind in ClaimKind
    ]

    assert len({claim.lease_name for claim in claims}) == len(ClaimKind)


# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names
SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"


@given(targets())
def test_lease_names_are_names_that_kubernetes_takes(target: Target) -> None:
    wrong = [claim for claim in claims_of(target) if not re.fullmatch(SUBDOMAIN, claim.lease_name)]

    assert wrong == []


def test_longest_host_still_has_a_lease() -> None:
    label = "a" * 63
    target = target_of(Case("", {"domain": ".".join([label, label, label, "a" * 56])}))

    host = next(claim for claim in claims_of(target) if claim.kind is ClaimKind.HOST)

    assert len(host.lease_name) == 253


@pytest.mark.parametrize("kind", ClaimKind)
def test_every_holding_knows_the_condition_of_its_refusal(kind: ClaimKind) -> None:
    assert kind.condition.endswith("Ready")


def test_disabled_features_claim_nothing() -> None:
    claims = claims_of(target_of(Case("")))

    assert {claim.kind for claim in claims} == {ClaimKind.HOST, ClaimKind.INGRESS}


def _on(domain: str, **features: Any) -> dict[str, Any]:
    return {"domain": f"{domain}.example.org", **features}


def _database(schema: str) -> dict[str, Any]:
    return {"enabled": True, "schemaName": schema}


def _storage(bucket: str) -> dict[str, Any]:
    return {"enabled": True, "buckets": [{"name": bucket}]}


PREVIEW_WITH_REALM = Case("", {"applicationRef": "a", "pullRequest": 1}, Kind.PREVIEW, "p")
MEETINGS = {
    "same-name-in-two-namespaces": (
        ("team-a", Case("", _on("one", database=_database("one")), name="a")),
        ("team-b", Case("", _on("two", database=_database("two")), name="a")),
        {ClaimKind.ROLES},
    ),
    "same-schema": (
        ("team-a", Case("", _on("one", database=_database("shared")), name="a")),
        ("team-a", Case("", _on("two", database=_database("shared")), name="b")),
        {ClaimKind.SCHEMA},
    ),
    "schema-of-another's-name": (
        ("team-a", Case("", _on("one", database={"enabled": True}), name="a")),
        ("team-a", Case("", _on("two", database=_database("a")), name="b")),
        {ClaimKind.SCHEMA},
    ),
    "second-ingress-is-another's-first": (
        ("team-a", Case("", _on("one", database={"enabled": True}), name="a")),
        ("team-a", Case("", _on("two"), name="a-api")),
        {ClaimKind.INGRESS},
    ),
    "hyphens-that-can-be-read-two-ways": (
        ("team-a", Case("", _on("one", storage=_storage("c")), name="a-b")),
        ("team-a", Case("", _on("two", storage=_storage("b-c")), name="a")),
        {ClaimKind.BUCKET},
    ),
    "name-that-looks-like-a-prefix": (
        ("team-a", Case("", _on("one", auth={"enabled": True}, environment="staging"), name="a")),
        ("team-a", Case("", _on("two", auth={"enabled": True}), name="staging-a")),
        {ClaimKind.REALM},
    ),
    "name-that-looks-like-a-preview": (
        ("team-a", PREVIEW_WITH_REALM),
        ("team-a", Case("", _on("two", auth={"enabled": True}), name="a-pr1")),
        {ClaimKind.REALM},
    ),
    "same-domain": (
        ("team-a", Case("", _on("one"), name="a")),
        ("team-b", Case("", _on("one"), name="b")),
        {ClaimKind.HOST},
    ),
    "another's-default-domain": (
        ("team-a", Case("", name="a")),
        ("team-a", Case("", {"domain": f"a.{BASE_DOMAIN}"}, name="b")),
        {ClaimKind.HOST},
    ),
    "two-previews-of-one-pull-request": (
        ("team-a", PREVIEW_WITH_REALM),
        ("team-a", replace(PREVIEW_WITH_REALM, name="q")),
        {ClaimKind.HOST, ClaimKind.INGRESS, ClaimKind.NAMESPACE, ClaimKind.REALM},
    ),
    "same-preview-in-two-namespaces": (
        ("team-a", PREVIEW_WITH_REALM),
        ("team-b", PREVIEW_WITH_REALM),
        {ClaimKind.HOST, ClaimKind.INGRESS, ClaimKind.NAMESPACE, ClaimKind.REALM},
    ),
    "neighbours": (
        ("team-a", Case("", {"database": {"enabled": True}, "storage": _storage("c")}, name="a")),
        ("team-a", Case("", {"database": {"enabled": True}, "storage": _storage("c")}, name="b")),
        set(),
    ),
}


@pytest.mark.parametrize("meeting", MEETINGS)
def test_objects_that_would_share_a_name_meet_in_a_claim(meeting: str) -> None:
    one, other, claim_kinds = MEETINGS[meeting]

    shared = _claims_in(*one) & _claims_in(*other)

    assert {kind for kind, _ in shared} == claim_kinds


def _claims_in(namespace: str, case: Case) -> set[tuple[ClaimKind, str]]:
    custom_object = object_of(case)
    moved = custom_object.model_copy(
        update={"metadata": custom_object.metadata.model_copy(update={"namespace": namespace})}
    )
    if case.kind is Kind.APPLICATION:
        target = application_target(moved, base_domain=BASE_DOMAIN)
    else:
        target = preview_target(moved, {**APPLICATION, "auth": {"enabled": True}}, base_domain=BASE_DOMAIN)
    return {(claim.kind, claim.lease_name) for claim in claims_of(target)}


def held(kind: ClaimKind, name: str, uid: str, *, is_retained: bool) -> HeldClaim:
    owner = Owner(reference=ObjectReference(namespace="team", name="a"), uid=uid)
    return HeldClaim(claim=Claim(kind=kind, name=name), owner=owner, is_retained=is_retained)


@pytest.mark.parametrize(
    ("claim_store", "expected"),
    [
        pytest.param([held(ClaimKind.REALM, "a", "now", is_retained=True)], set(), id="its-own-or-adopted"),
        pytest.param([held(ClaimKind.REALM, "a", "before", is_retained=True)], {"a"}, id="retained-before"),
        pytest.param([held(ClaimKind.REALM, "a", "before", is_retained=False)], set(), id="not-retained-before"),
        pytest.param([held(ClaimKind.HOST, "a.org", "before", is_retained=True)], set(), id="no-data"),
        pytest.param(
            [
                held(ClaimKind.BUCKET, "plattr-prod-a-old", "before", is_retained=False),
                held(ClaimKind.BUCKET, "plattr-prod-a-new", "before", is_retained=True),
            ],
            {"plattr-prod-a-old", "plattr-prod-a-new"},
            id="switched-off-before-the-policy-was-retain",
        ),
        pytest.param(
            [
                held(ClaimKind.SCHEMA, "prod_b", "before", is_retained=True),
                held(ClaimKind.ROLES, "prod_a", "now", is_retained=False),
                held(ClaimKind.SCHEMA, "prod_c", "now", is_retained=False),
                held(ClaimKind.ROLES, "staging_a", "now", is_retained=False),
            ],
            {"prod_b", "prod_a"},
            id="the-roles-that-own-its-tables",
        ),
    ],
)
def test_what_earlier_incarnations_retained_outlives_this_one(claim_store: list[HeldClaim], expected: set[str]) -> None:
    assert {claim.name for claim in outliving(claim_store, "now")} == expected
