"""Compare what exists with what the objects ask for. The functions are pure, so each rule can be tested alone."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from cli.auditing.features import AUDITED
from cli.auditing.inventory import AuditedObject, AuditProblem, Finding, Found, Home, Thing, ThingKind
from plattr.objects import NO_OWNER, Kind, parse_key

# The patterns of the names that Plattr gives to things whose owner mark is written by a second call.
_OURS = {kind: pattern for feature in AUDITED for kind, pattern in feature.patterns.items() if pattern is not None}
# People who use a realm make its other clients, the autoscaler makes pods, and the application makes indices.
_UNLIMITED = frozenset({ThingKind.CLIENT, ThingKind.POD, ThingKind.INDEX})
_IN_BACKENDS = frozenset(kind for feature in AUDITED for kind in feature.patterns)
# By what a claim is about: the things that outlive their feature and, with deletionPolicy Retain, their object.
_DATA = {about: things for feature in AUDITED for about, things in feature.data.items()}


def compare(
    before: Mapping[str, AuditedObject],
    found: Collection[Found],
    after: Mapping[str, AuditedObject],
    home: Home | None = None,
) -> list[Finding]:
    """Return what is wrong, sorted.

    Args:
        before: the objects by key, as they were before the backends were asked.
        found: everything that exists.
        after: the objects by key, as they were afterwards. A finding needs both states, so that an object which
            appears, changes or disappears meanwhile causes none.
        home: where the objects are. Without it everything that carries their keys counts as theirs.
    """
    settled = _settled(before, after)
    living = before.keys() | after.keys()
    strangers = {each.thing: home.stranger(each) for each in found} if home is not None else {}
    own = [each for each in found if strangers.get(each.thing) is None]
    findings = [
        *_of_owners(settled, found, strangers),
        *_without_object(living, own),
        *_unmarked(living, settled, own),
        *_of_strangers(settled, found, strangers),
    ]
    return sorted(findings, key=lambda finding: (finding.problem, finding.owner, str(finding.thing)))


def _settled(before: Mapping[str, AuditedObject], after: Mapping[str, AuditedObject]) -> dict[str, AuditedObject]:
    return {
        key: subject
        for key, subject in after.items()
        if key in before and subject.is_settled and before[key].is_settled and subject.is_same(before[key])
    }


def _of_owners(
    settled: Mapping[str, AuditedObject], found: Collection[Found], strangers: Mapping[Thing, str | None]
) -> Iterable[Finding]:
    by_thing = {each.thing: each for each in found}
    for subject in settled.values():
        for thing in subject.expected or ():
            yield from _judge(subject, thing, by_thing.get(thing), strangers.get(thing))
    own = [each for each in found if strangers.get(each.thing) is None]
    kept = _stands_for(each for each in own if each.thing.kind is ThingKind.CLAIM)
    for each in own:
        owner = settled.get(each.owner or "")
        if owner is None or owner.expected is None or each.thing in owner.expected or _is_unlimited(each.thing):
            continue
        if each.thing not in kept[owner.key] and not _is_own_family(each):
            yield Finding(problem=AuditProblem.DUPLICATE, thing=each.thing, owner=owner.key)


def _is_own_family(found: Found) -> bool:
    """Tell whether it is the claim of an Application's previews: of several with one name only the first holds it."""
    thing, owner = found.thing, parse_key(found.owner or "")
    is_family = thing.kind is ThingKind.CLAIM and thing.scope == "previews"
    return is_family and owner is not None and (owner.kind, owner.name) == (Kind.APPLICATION, thing.name)


def _is_unlimited(thing: Thing) -> bool:
    # The spec does not say which number a Redis database has.
    return thing.kind in _UNLIMITED or (thing.kind is ThingKind.CLAIM and thing.scope == "redisdb")


def _of_strangers(
    settled: Mapping[str, AuditedObject], found: Collection[Found], strangers: Mapping[Thing, str | None]
) -> Iterable[Finding]:
    """Yield what is marked as an earlier namespace's, and what is in this cluster but marked as another cluster's.

    What other clusters keep on a shared backend is not judged.
    """
    needed = {thing for subject in settled.values() for thing in subject.expected or ()}
    for each in found:
        stranger = strangers.get(each.thing)
        if stranger is None or each.thing in needed:
            continue
        is_clusters = stranger.startswith("cluster ")
        if is_clusters and each.thing.kind in _IN_BACKENDS:
            continue
        problem = AuditProblem.CLUSTER if is_clusters else AuditProblem.NAMESPACE
        yield Finding(problem=problem, thing=each.thing, owner=each.owner or "", detail=f"of {stranger}")


def _judge(subject: AuditedObject, thing: Thing, found: Found | None, stranger: str | None) -> Iterable[Finding]:
    if found is None:
        yield Finding(problem=AuditProblem.MISSING, thing=thing, owner=subject.key)
    elif stranger is not None:
        detail = f"it belongs to {found.owner} of {stranger}"
        yield Finding(problem=AuditProblem.FOREIGN, thing=thing, owner=subject.key, detail=detail)
    elif found.owner != subject.key:
        holder = found.owner or NO_OWNER
        yield Finding(problem=AuditProblem.FOREIGN, thing=thing, owner=subject.key, detail=f"it belongs to {holder}")
    elif found.uid is not None and found.uid != subject.custom_object.metadata.uid:
        detail = f"it is recorded for an earlier object of the name, uid {found.uid}"
        yield Finding(problem=AuditProblem.FOREIGN, thing=thing, owner=subject.key, detail=detail)


def _without_object(living: Collection[str], found: Collection[Found]) -> Iterable[Finding]:
    outliving = _stands_for(each for each in found if each.is_retained or each.is_quarantined)
    for each in found:
        if each.owner is not None and each.owner not in living and _home(each.thing) not in outliving[each.owner]:
            yield Finding(problem=AuditProblem.ORPHAN, thing=each.thing, owner=each.owner)


def _unmarked(
    living: Collection[str], settled: Mapping[str, AuditedObject], found: Collection[Found]
) -> Iterable[Finding]:
    # An object that is being worked on may have just made something whose owner mark the next call writes.
    working = {key for key in living if key not in settled}
    claims = _stands_for(each for each in found if each.thing.kind is ThingKind.CLAIM)
    awaited = {thing for key in working for thing in claims[key]}
    needed = {thing for subject in settled.values() for thing in subject.expected or ()}
    for each in found:
        pattern = _OURS.get(each.thing.kind)
        if each.owner is not None or pattern is None or each.thing in awaited | needed:
            continue
        if pattern.fullmatch(each.thing.name):
            yield Finding(problem=AuditProblem.UNMARKED, thing=each.thing, owner="")


def _home(thing: Thing) -> Thing:
    """Return what a thing belongs to: a client to its realm, an index to its prefix."""
    if thing.kind is ThingKind.CLIENT:
        return Thing(kind=ThingKind.REALM, name=thing.scope)
    # A prefix contains no hyphen, and a hyphen follows it.
    return Thing(kind=thing.kind, name=thing.name.partition("-")[0]) if thing.kind is ThingKind.INDEX else thing


def _stands_for(claims: Iterable[Found]) -> dict[str, set[Thing]]:
    """Return, by owner, the claims that keep data, and the data that they keep."""
    things: dict[str, set[Thing]] = defaultdict(set)
    for claim in claims:
        data = _DATA.get(claim.thing.scope)
        if claim.owner is not None and data is not None:
            things[claim.owner] |= {claim.thing, *data(claim.thing.name)}
    return things
