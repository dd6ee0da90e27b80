"""A preview's end on a real API server: what is read, said and deleted."""

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from activities.preview import PreviewActivities
from activities.status import StatusActivities
from clients.events import EventRecorder
from clients.kube import KubeClient
from clients.resources import PREVIEWS
from plattr.errors import InvalidSpec, ParentNotFound, Superseded
from plattr.features import ConditionType
from plattr.objects import PAUSED_ANNOTATION, CustomObject, Kind, ObjectReference
from plattr.status import ConditionUpdate
from plattr.steps import ClaimInput, ExpiryInput, Lifetime, PreviewLifetime
from tests.fix_kubernetes import Cluster, random_name, version_of
from tests.inputs import status_of, step_of

HOUR = timedelta(hours=1)


@pytest.fixture
def previews(cluster: Cluster) -> PreviewActivities:
    return PreviewActivities(cluster.kube, cluster.events, cluster.loader)


@pytest.fixture
async def preview(cluster: Cluster, namespace: str) -> CustomObject:
    """A preview of an Application, both without any run."""
    parent = await cluster.apply(namespace, random_name())
    return await cluster.preview(namespace, random_name(), parent.metadata.name, ttl="2h")


def ending(preview: CustomObject, hours: int = 2, *, is_due: bool = True) -> ExpiryInput:
    metadata = preview.metadata
    end = metadata.creation_timestamp + hours * HOUR
    return ExpiryInput(reference=preview.reference, uid=metadata.uid, expires_at=end, is_due=is_due)


async def with_ttl(cluster: Cluster, preview: CustomObject, ttl: str) -> CustomObject:
    return await cluster.preview(
        preview.metadata.namespace, preview.metadata.name, str(preview.spec["applicationRef"]), ttl=ttl
    )


def expiring(preview: CustomObject) -> list[dict[str, object]]:
    return [c for c in preview.status.get("conditions", []) if c["type"] == "Expiring"]


async def version(cluster: Cluster, preview: CustomObject) -> str:
    return await version_of(cluster.admin, PREVIEWS, preview.metadata.name, preview.metadata.namespace)


async def test_the_terms_are_creation_plus_ttl(previews: PreviewActivities, preview: CustomObject) -> None:
    created = preview.metadata.creation_timestamp

    terms = await previews.read_lifetime(ClaimInput(reference=preview.reference))

    assert terms.verdict == "alive"
    assert terms.lifetime == Lifetime(
        uid=preview.metadata.uid, expires_at=created + 2 * HOUR, warn_at=created + 2 * HOUR - timedelta(minutes=12)
    )


async def test_without_a_ttl_it_is_three_days(cluster: Cluster, previews: PreviewActivities, namespace: str) -> None:
    spec = {"applicationRef": "shop", "pullRequest": 1, "branch": "topic"}
    preview = await cluster.apply(namespace, random_name(), spec, kind=Kind.PREVIEW)

    terms = await previews.read_lifetime(ClaimInput(reference=preview.reference))

    assert terms.lifetime is not None
    assert terms.lifetime.expires_at == preview.metadata.creation_timestamp + 72 * HOUR


async def test_terms_of_what_is_gone_paused_or_going(
    cluster: Cluster, previews: PreviewActivities, preview: CustomObject
) -> None:
    reference = preview.reference
    metadata = {"annotations": {PAUSED_ANNOTATION: "true"}, "finalizers": ["example.test/hold"]}
    await cluster.apply(reference.namespace, reference.name, preview.spec, kind=reference.kind, metadata=metadata)

    paused = await previews.read_lifetime(ClaimInput(reference=reference))
    await cluster.delete(reference)
    deleting = await previews.read_lifetime(ClaimInput(reference=reference))
    await cluster.force_away(reference)
    gone = await previews.read_lifetime(ClaimInput(reference=reference))

    assert [paused, deleting, gone] == [PreviewLifetime(verdict=verdict) for verdict in ("paused", "deleting", "gone")]


async def test_a_bad_ttl_is_refused_but_nothing_else_is(
    cluster: Cluster, previews: PreviewActivities, preview: CustomObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The API server refuses both, so they are put between it and the activity.
    async def read(_: object) -> CustomObject:
        return preview.model_copy(update={"spec": spec})

    monkeypatch.setattr(cluster.loader, "read", read)
    spec = {"applicationRef": "UPPER", "pullRequest": "x", "ttl": "5m"}

    terms = await previews.read_lifetime(ClaimInput(reference=preview.reference))
    spec = {"ttl": "5w"}
    with pytest.raises(InvalidSpec, match=r"spec\.ttl"):
        await previews.read_lifetime(ClaimInput(reference=preview.reference))

    assert terms.lifetime is not None
    assert terms.lifetime.expires_at == preview.metadata.creation_timestamp + timedelta(minutes=5)


async def test_the_warning_is_a_condition_and_an_event_once(
    cluster: Cluster, previews: PreviewActivities, preview: CustomObject
) -> None:
    await previews.warn_of_expiry(ending(preview))
    before = await version(cluster, preview)

    await previews.warn_of_expiry(ending(preview))

    assert await version(cluster, preview) == before
    warned = await cluster.read(preview.reference)
    end = preview.metadata.creation_timestamp + 2 * HOUR
    (condition,) = expiring(warned)
    assert (condition["status"], condition["reason"]) == ("True", "ExpiresSoon")
    assert f"{end:%Y-%m-%d %H:%M:%S} UTC" in str(condition["message"])
    (event,) = await cluster.events_about(preview)
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "ExpiresSoon", 1)
    terms = await previews.read_lifetime(ClaimInput(reference=preview.reference))
    assert terms.lifetime is not None
    assert terms.lifetime.warning == "current"


async def test_the_warning_leaves_the_rest_of_the_status_alone(
    cluster: Cluster, previews: PreviewActivities, preview: CustomObject
) -> None:
    ready = ConditionUpdate(type=ConditionType.DATABASE, status="True", reason="Provisioned")
    await cluster.statuses.write_status(status_of(preview, updates=(ready,)))
    before = (await cluster.read(preview.reference)).status

    await previews.warn_of_expiry(ending(preview))

    after = (await cluster.read(preview.reference)).status
    others = [condition for condition in after["conditions"] if condition["type"] != "Expiring"]
    assert {**after, "conditions": others} == before


async def test_a_later_status_keeps_the_warning(
    cluster: Cluster, previews: PreviewActivities, preview: CustomObject
) -> None:
    await previews.warn_of_expiry(ending(preview))
    before = expiring(await cluster.read(preview.reference))
    ready = ConditionUpdate(type=ConditionType.DATABASE, status="True", reason="Provisioned")

    await cluster.statuses.write_status(status_of(preview, updates=(ready,)))
    running = await cluster.read(preview.reference)
    refused = status_of(preview, uid="", generation=0, retries_exhausted=True, updates=(accepted_not(),))
    await cluster.statuses.write_status(refused)

    assert expiring(running) == before
    assert running.status["phase"] == "Running"
    assert expiring(await cluster.read(preview.reference)) == before


def accepted_not() -> ConditionUpdate:
    return ConditionUpdate(type=ConditionType.READY, status="False", reason="ParentNotFound", message="not there")


async def test_a_grown_ttl_makes_the_warning_stale_and_it_is_taken_back(
    cluster: Cluster, previews: PreviewActivities, preview: CustomObject
) -> None:
    await previews.warn_of_expiry(ending(preview))
    grown = await with_ttl(cluster, preview, "50h")

    terms = await previews.read_lifetime(ClaimInput(reference=preview.reference))
    await previews.warn_of_expiry(ending(grown, 50, is_due=False))

    assert terms.lifetime is not None
    assert terms.lifetime.warning == "stale"
    after = await cluster.read(preview.reference)
    assert expiring(after) == []
    assert len(await cluster.events_about(preview)) == 1


async def test_a_ttl_that_grew_a_little_is_named_anew(
    cluster: Cluster, previews: PreviewActivities, preview: CustomObject
) -> None:
    await previews.warn_of_expiry(ending(preview))
    (before,) = expiring(await cluster.read(preview.reference))
    grown = await with_ttl(cluster, preview, "3h")

    await previews.warn_of_expiry(ending(grown, 3))

    (after,) = expiring(await cluster.read(preview.reference))
    assert after["message"] != before["message"]
    # Warned since then, whatever the warning says now.
    assert after["lastTransitionTime"] == before["lastTransitionTime"]


@pytest.mark.parametrize("activity", ["warn_of_expiry", "delete_expired"])
async def test_an_end_that_moved_is_read_again(
    cluster: Cluster, previews: PreviewActivities, preview: CustomObject, activity: str
) -> None:
    known = ending(preview)
    await with_ttl(cluster, preview, "3h")
    before = await version(cluster, preview)

    with pytest.raises(Superseded):
        await getattr(previews, activity)(known)

    assert await version(cluster, preview) == before
    assert await cluster.events_about(preview) == []


@pytest.mark.parametrize("activity", ["warn_of_expiry", "delete_expired"])
async def test_another_incarnation_is_left_alone(
    cluster: Cluster, previews: PreviewActivities, preview: CustomObject, activity: str
) -> None:
    known = ending(preview).model_copy(update={"uid": "11111111-2222-3333-4444-555555555555"})

    with pytest.raises(Superseded):
        await getattr(previews, activity)(known)

    assert not (await cluster.read(preview.reference)).is_deleting


async def test_a_paused_preview_is_not_deleted(
    cluster: Cluster, previews: PreviewActivities, preview: CustomObject
) -> None:
    reference = preview.reference
    metadata = {"annotations": {PAUSED_ANNOTATION: "true"}}
    await cluster.apply(reference.namespace, reference.name, preview.spec, kind=reference.kind, metadata=metadata)

    with pytest.raises(Superseded):
        await previews.delete_expired(ending(preview))

    assert not (await cluster.read(reference)).is_deleting


async def test_what_is_over_is_deleted_whatever_the_workers_clock_says(
    cluster: Cluster, previews: PreviewActivities, preview: CustomObject
) -> None:
    """The end lies two hours ahead of this worker's clock; the run's clock, which rang, is the one that counts."""
    await cluster.claims.claim_object(ClaimInput(reference=preview.reference))

    await previews.delete_expired(ending(preview))

    assert ending(preview).expires_at > datetime.now(UTC)
    after = await cluster.read(preview.reference)
    assert after.is_deleting
    (event,) = [event for event in await cluster.events_about(preview) if event["reason"] == "Expired"]
    assert "ttl of 2h" in event["message"]
    with pytest.raises(Superseded):
        await previews.delete_expired(ending(preview))


async def test_an_event_that_is_refused_keeps_nothing_from_being_done(
    cluster: Cluster, watcher_kube: KubeClient, preview: CustomObject, caplog: pytest.LogCaptureFixture
) -> None:
    # The watcher's account may not create Events, so it stands for whatever refuses them: rights, a webhook.
    events = EventRecorder(watcher_kube)
    previews = PreviewActivities(cluster.kube, events, cluster.loader)
    statuses = StatusActivities(cluster.kube, events, cluster.loader)
    lost = {"event": "Expired"}
    before = REGISTRY.get_sample_value("plattr_events_lost_total", lost) or 0
    await cluster.claims.claim_object(ClaimInput(reference=preview.reference))
    refused = status_of(preview, retries_exhausted=True, updates=(accepted_not(),))

    await statuses.write_status(refused)
    await previews.warn_of_expiry(ending(preview))
    warned = await cluster.read(preview.reference)
    await previews.delete_expired(ending(preview))

    assert warned.status["phase"] == "Failed"
    assert expiring(warned)
    assert (await cluster.read(preview.reference)).is_deleting
    assert await cluster.events_about(preview) == []
    assert REGISTRY.get_sample_value("plattr_events_lost_total", lost) == before + 1
    said = [record.__dict__["event"] for record in caplog.records if record.message == "event lost"]
    assert said == ["ParentNotFound", "ExpiresSoon", "Expired"]


async def test_a_missing_parent_is_nobody_elses_fault(cluster: Cluster, preview: CustomObject) -> None:
    parent = str(preview.spec["applicationRef"])
    await cluster.delete(ObjectReference(namespace=preview.metadata.namespace, name=parent))

    with pytest.raises(ParentNotFound) as caught:
        await cluster.loader.load(step_of(preview))

    assert caught.value.condition == ConditionType.READY


async def test_a_preview_without_parent_shows_its_end(cluster: Cluster, namespace: str) -> None:
    preview = await cluster.preview(namespace, random_name(), "nobody", ttl="2h")

    await cluster.statuses.write_status(status_of(preview, uid="", retries_exhausted=True, updates=(accepted_not(),)))

    status = (await cluster.read(preview.reference)).status
    end = preview.metadata.creation_timestamp + 2 * HOUR
    assert (status["phase"], status["expiresAt"]) == ("Failed", f"{end:%Y-%m-%dT%H:%M:%SZ}")
