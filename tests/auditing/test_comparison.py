"""Each rule of the audit alone; every test would pass unnoticed if its rule were missing."""

import pytest

from cli.auditing.comparison import compare
from cli.auditing.inventory import AuditedObject, AuditProblem, Finding, Found, Home, Thing, ThingKind
from plattr.claims import Claim, is_data
from plattr.features import ClaimKind
from plattr.objects import CustomObject, Kind

OWNER = "team/Application/shop"
SCHEMA = Thing(kind=ThingKind.SCHEMA, name="prod_shop")
APP_ROLE = Thing(kind=ThingKind.ROLE, name="prod_shop_app")
BUCKET = Thing(kind=ThingKind.BUCKET, name="plattr-prod-shop-files")
DEPLOYMENT = Thing(kind=ThingKind.DEPLOYMENT, scope="team", name="shop")
EXPECTED = frozenset({SCHEMA, APP_ROLE, BUCKET, DEPLOYMENT})


def subject(
    *,
    namespace: str = "team",
    uid: str = "u1",
    generation: int = 1,
    is_settled: bool = True,
    expected: frozenset[Thing] | None = EXPECTED,
) -> dict[str, AuditedObject]:
    body = {
        "metadata": {
            "namespace": namespace,
            "name": "shop",
            "uid": uid,
            "generation": generation,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "status": {"observedGeneration": generation, "phase": "Running" if is_settled else "Failed"},
    }
    one = AuditedObject(custom_object=CustomObject.from_api(Kind.APPLICATION, body), expected=expected)
    return {one.key: one}


def found(*things: Thing, owner: str | None = OWNER, uid: str | None = "u1") -> list[Found]:
    return [Found(thing=thing, owner=owner, uid=uid) for thing in things]


def claim(kind: str, name: str, *, is_retained: bool = False, is_quarantined: bool = False) -> Found:
    thing = Thing(kind=ThingKind.CLAIM, scope=kind, name=name)
    return Found(thing=thing, owner=OWNER, uid="u1", is_retained=is_retained, is_quarantined=is_quarantined)


def problems(findings: list[Finding]) -> set[tuple[AuditProblem, Thing]]:
    return {(finding.problem, finding.thing) for finding in findings}


def test_a_whole_object_is_no_finding() -> None:
    assert compare(subject(), found(*EXPECTED), subject()) == []


@pytest.mark.parametrize("thing", sorted(EXPECTED, key=str), ids=str)
def test_what_a_running_object_lacks_is_missing(thing: Thing) -> None:
    findings = compare(subject(), found(*EXPECTED - {thing}), subject())

    assert problems(findings) == {(AuditProblem.MISSING, thing)}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (subject(is_settled=False, expected=None), subject()),
        (subject(), subject(is_settled=False, expected=None)),
        (subject(generation=1), subject(generation=2)),
        (subject(uid="u0"), subject(uid="u1")),
        ({}, subject()),
    ],
    ids=["settled-meanwhile", "unsettled-meanwhile", "changed-meanwhile", "created-again-meanwhile", "new"],
)
def test_an_object_that_is_being_worked_on_lacks_nothing(
    before: dict[str, AuditedObject], after: dict[str, AuditedObject]
) -> None:
    assert compare(before, [], after) == []


@pytest.mark.parametrize(("name", "is_finding"), [("shop", False), ("other", True)])
def test_an_application_may_have_the_family_of_its_own_previews_and_no_other(name: str, *, is_finding: bool) -> None:
    family = claim("previews", name)

    findings = compare(subject(), [*found(*EXPECTED), family], subject())

    assert problems(findings) == ({(AuditProblem.DUPLICATE, family.thing)} if is_finding else set())


def test_what_is_left_of_an_object_that_is_gone_is_an_orphan() -> None:
    findings = compare({}, found(*EXPECTED), {})

    assert problems(findings) == {(AuditProblem.ORPHAN, thing) for thing in EXPECTED}


@pytest.mark.parametrize(("before", "after"), [(subject(), {}), ({}, subject())], ids=["goes", "comes"])
def test_what_an_object_has_that_comes_or_goes_is_no_orphan(
    before: dict[str, AuditedObject], after: dict[str, AuditedObject]
) -> None:
    assert compare(before, found(*EXPECTED), after) == []


def test_retained_data_and_its_claims_are_no_orphans_and_the_rest_is() -> None:
    claims = [
        claim("schema", "prod_shop", is_retained=True),
        claim("roles", "prod_shop", is_retained=True),
        claim("bucket", "plattr-prod-shop-files", is_retained=True),
        claim("redis", "prod_shop", is_retained=True),
        claim("redisdb", "3", is_retained=True),
        claim("search", "prod_shop", is_retained=True),
    ]
    user = Thing(kind=ThingKind.REDIS_USER, name="prod_shop")
    kept = [Thing(kind=ThingKind.INDEX, name=name) for name in ("prod_shop", "prod_shop-products", "prod_shop-a-b")]
    other = Thing(kind=ThingKind.INDEX, name="prod_shop2-products")

    findings = compare({}, [*found(*EXPECTED, user, *kept, other), *claims], {})

    assert problems(findings) == {(AuditProblem.ORPHAN, DEPLOYMENT), (AuditProblem.ORPHAN, other)}


@pytest.mark.parametrize("kind", [each for each in ClaimKind if is_data(Claim(kind=each, name="x"))])
def test_a_claim_of_data_is_no_orphan_when_retained_and_no_duplicate_when_its_feature_is_off(kind: ClaimKind) -> None:
    assert compare({}, [claim(kind, "prod_shop", is_retained=True)], {}) == []
    assert compare(subject(), [*found(*EXPECTED), claim(kind, "prod_shop")], subject()) == []


@pytest.mark.parametrize("mark", ["is_retained", "is_quarantined"])
def test_a_realm_goes_with_its_claim_and_a_client_with_its_realm(mark: str) -> None:
    realm = Thing(kind=ThingKind.REALM, name="shop")
    client = Thing(kind=ThingKind.CLIENT, scope="shop", name="shop")

    findings = compare({}, [*found(realm, client, BUCKET), claim("realm", "shop", **{mark: True})], {})

    assert problems(findings) == {(AuditProblem.ORPHAN, BUCKET)}


def test_a_claim_that_is_not_retained_excuses_nothing() -> None:
    held = claim("schema", "prod_shop")

    findings = compare({}, [*found(SCHEMA), held], {})

    assert problems(findings) == {(AuditProblem.ORPHAN, SCHEMA), (AuditProblem.ORPHAN, held.thing)}


@pytest.mark.parametrize("holder", ["other/Application/shop", None], ids=["another's", "no owner's"])
def test_what_is_needed_and_not_ones_own_is_foreign(holder: str | None) -> None:
    living = subject(namespace="other", uid="u2", is_settled=False, expected=None)
    existing = [*found(*EXPECTED - {SCHEMA}), *found(SCHEMA, owner=holder, uid=None)]

    findings = compare(subject() | living, existing, subject() | living)

    assert problems(findings) == {(AuditProblem.FOREIGN, SCHEMA)}


def test_a_record_of_an_earlier_incarnation_is_foreign() -> None:
    existing = [*found(*EXPECTED - {SCHEMA}), *found(SCHEMA, uid="u0")]

    findings = compare(subject(), existing, subject())

    assert problems(findings) == {(AuditProblem.FOREIGN, SCHEMA)}


def test_a_second_one_of_its_kind_is_a_duplicate() -> None:
    second = Thing(kind=ThingKind.DEPLOYMENT, scope="team", name="shop-old")

    findings = compare(subject(), found(*EXPECTED, second), subject())

    assert problems(findings) == {(AuditProblem.DUPLICATE, second)}


def test_data_that_its_owner_still_claims_is_no_duplicate() -> None:
    kept = Thing(kind=ThingKind.BUCKET, name="plattr-prod-shop-former")
    existing = [*found(*EXPECTED, kept), claim("bucket", kept.name)]

    assert compare(subject(), existing, subject()) == []


def test_a_claim_of_a_host_that_is_no_longer_asked_for_is_a_duplicate() -> None:
    former = claim("host", "old.example.com")

    findings = compare(subject(), [*found(*EXPECTED), former], subject())

    assert problems(findings) == {(AuditProblem.DUPLICATE, former.thing)}


@pytest.mark.parametrize(
    "thing",
    [
        BUCKET,
        SCHEMA,
        APP_ROLE,
        Thing(kind=ThingKind.SCHEMA, name="shop_pr7"),
        Thing(kind=ThingKind.ROLE, name="shop_pr7_anon"),
    ],
    ids=str,
)
def test_what_is_named_like_ours_and_says_of_nobody_is_unmarked(thing: Thing) -> None:
    findings = compare({}, found(thing, owner=None, uid=None), {})

    assert problems(findings) == {(AuditProblem.UNMARKED, thing)}


@pytest.mark.parametrize(
    "thing",
    [
        Thing(kind=ThingKind.SCHEMA, name="public"),
        Thing(kind=ThingKind.ROLE, name="plattr_apps"),
        Thing(kind=ThingKind.ROLE, name="production_reader"),
        Thing(kind=ThingKind.BUCKET, name="plattr-backups"),
        Thing(kind=ThingKind.REALM, name="company"),
    ],
    ids=str,
)
def test_what_others_name_otherwise_is_their_own_affair(thing: Thing) -> None:
    assert compare({}, found(thing, owner=None, uid=None), {}) == []


def test_a_bucket_just_made_waits_for_its_mark_while_its_owner_works() -> None:
    working = subject(is_settled=False, expected=None)
    existing = [*found(BUCKET, owner=None, uid=None), claim("bucket", BUCKET.name)]

    assert compare(working, existing, working) == []


HOME = Home(cluster="here", namespaces={"team": "n1"})
HELD = Thing(kind=ThingKind.CLAIM, scope="schema", name="prod_shop")


def marked(*things: Thing, cluster: str = "here", namespace_uid: str = "n1") -> list[Found]:
    return [each.model_copy(update={"cluster": cluster, "namespace_uid": namespace_uid}) for each in found(*things)]


def test_what_is_marked_for_this_cluster_and_namespace_is_no_finding() -> None:
    assert compare(subject(), marked(*EXPECTED), subject(), HOME) == []


def test_what_another_cluster_has_in_the_backends_is_its_own_affair() -> None:
    assert compare({}, marked(SCHEMA, APP_ROLE, BUCKET, cluster="there"), {}, HOME) == []


def test_what_this_cluster_holds_and_is_marked_as_anothers_is_a_finding() -> None:
    findings = compare({}, marked(HELD, DEPLOYMENT, cluster="there"), {}, HOME)

    assert problems(findings) == {(AuditProblem.CLUSTER, HELD), (AuditProblem.CLUSTER, DEPLOYMENT)}


def test_what_an_earlier_namespace_left_is_a_finding_and_no_orphan() -> None:
    findings = compare({}, marked(SCHEMA, HELD, namespace_uid="n0"), {}, HOME)

    assert problems(findings) == {(AuditProblem.NAMESPACE, SCHEMA), (AuditProblem.NAMESPACE, HELD)}


@pytest.mark.parametrize("place", [{"cluster": "there"}, {"namespace_uid": "n0"}], ids=["cluster", "namespace"])
def test_a_running_object_that_needs_what_is_a_strangers_is_told(place: dict[str, str]) -> None:
    findings = compare(subject(), [*marked(*EXPECTED - {SCHEMA}), *marked(SCHEMA, **place)], subject(), HOME)

    assert problems(findings) == {(AuditProblem.FOREIGN, SCHEMA)}
