"""A feature is in every place that it needs, and what derives from the list of features follows from it alone."""

import re
from typing import cast

import pytest

from plattr import features
from plattr.claims import claims_of
from plattr.errors import InvalidSpec
from plattr.features import (
    FEATURES,
    ClaimKind,
    ConditionType,
    Feature,
    FeatureSecret,
    Step,
    cleanup_order,
    feature_of,
    features_of,
    is_data_kind,
    is_injected,
    provision_order,
)
from plattr.manifests.deployment import build_deployment
from plattr.manifests.pod import Placeholder
from plattr.objects import Kind
from plattr.settings import Settings
from tests.domain.feature_places import PAGE, PLACES, Place, defined_activities, registered_activities
from tests.manifests.targets import application, preview

CHECKED = pytest.mark.parametrize("place", [place for place in PLACES if place.lacks is not None], ids=lambda p: p.path)


class TelegraphSettings(Settings):
    """The settings of a platform that has the made-up feature."""

    telegraph_endpoint: str | None = None


# Made up, and in no place at all. Enums cannot be extended, so its words are none of theirs.
TELEGRAPH = Feature(
    step=cast("Step", "telegraph"),
    condition=cast("ConditionType", "TelegraphReady"),
    is_enabled=lambda _: True,
    claim_kinds=(cast("ClaimKind", "telegraph"),),
    claims=lambda names, _: [(cast("ClaimKind", "telegraph"), names.telegraph)],  # type: ignore[attr-defined]
    keeps_data=True,
)


@CHECKED
@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.step)
def test_feature_is_in_every_place(feature: Feature, place: Place) -> None:
    assert place.lacks is not None
    assert list(place.lacks(feature, Settings)) == []


@CHECKED
def test_place_that_forgets_a_new_feature_is_noticed(place: Place) -> None:
    assert place.lacks is not None
    assert list(place.lacks(TELEGRAPH, TelegraphSettings))


def test_page_names_every_place_in_order() -> None:
    listed = re.findall(r"^\| \d+ \| `(.+?)` \|", PAGE.read_text(), re.MULTILINE)

    assert listed == [place.path for place in PLACES]


def test_worker_offers_every_activity_there_is() -> None:
    assert registered_activities() == defined_activities()


def test_steps_conditions_and_claim_kinds_belong_to_one_feature() -> None:
    steps = [feature.step for feature in FEATURES]
    kinds = [kind for feature in FEATURES for kind in feature.claim_kinds]

    assert len(set(steps)) == len(steps)
    assert len(set(kinds)) == len(kinds)
    assert [feature.step for feature in FEATURES if feature.keeps_data and not feature.claim_kinds] == []
    assert [feature.step for feature in FEATURES if feature.condition is ConditionType.READY] == []


class TestDerived:
    """What follows from one more feature, without another line of code."""

    @pytest.fixture
    def mailbox(self, monkeypatch: pytest.MonkeyPatch) -> Feature:
        """Return a made-up feature that the list has before the workload."""
        feature = Feature(
            step=cast("Step", "mailbox"),
            condition=cast("ConditionType", "MailboxReady"),
            is_enabled=lambda _: True,
            # A word that models take, and that no feature has.
            claim_kinds=(ClaimKind.PREVIEWS,),
            claims=lambda names, _: [(ClaimKind.PREVIEWS, f"mailbox-of-{names.stem}")],
            keeps_data=True,
            variables=("MAILBOX_(URL|USER)",),
            has_config_map=True,
            secret=FeatureSecret(name=lambda names: f"{names.stem}-mailbox"),
            blocks=False,
        )
        monkeypatch.setattr(features, "FEATURES", (*FEATURES[:-1], feature, FEATURES[-1]))
        return feature

    @pytest.mark.parametrize("kind", list(Kind))
    def test_both_orders(self, mailbox: Feature, kind: Kind) -> None:
        assert provision_order(kind)[-2:] == (mailbox.step, Step.WORKLOAD)
        assert cleanup_order(kind)[:2] == (Step.WORKLOAD, mailbox.step)

    def test_steps_of_an_application_and_of_a_preview(self, mailbox: Feature) -> None:
        assert [feature.step for feature in features_of(application())] == [mailbox.step, Step.WORKLOAD]
        assert [f.step for f in features_of(preview())] == [Step.NAMESPACE, mailbox.step, Step.WORKLOAD]

    def test_condition_of_step_and_claim(self, mailbox: Feature) -> None:
        assert feature_of(mailbox.step) is mailbox
        assert ClaimKind.PREVIEWS.condition == mailbox.condition

    def test_claims_and_data(self, mailbox: Feature) -> None:
        assert "mailbox-of-shop" in {claim.name for claim in claims_of(application())}
        assert is_data_kind(mailbox.claim_kinds[0])

    def test_injected_variables_are_refused_in_a_spec(self, mailbox: Feature) -> None:
        assert is_injected("MAILBOX_URL")
        with pytest.raises(InvalidSpec, match="set by Plattr itself"):
            application(envVars=[{"name": "MAILBOX_URL", "value": "x"}])

    def test_secrets_of_others_are_refused_in_a_spec(self, mailbox: Feature) -> None:
        with pytest.raises(InvalidSpec, match="another application's Secret"):
            application(envVars=[{"name": "STOLEN", "secretKeyRef": {"name": "other-mailbox", "key": "MAILBOX_URL"}}])

    def test_pods_read_config_map_and_secret(self, mailbox: Feature) -> None:
        placeholder = Placeholder(image="placeholder", port=8080)
        deployment = build_deployment(application(), placeholder=placeholder, checksum="", postgrest_pool=1)
        sources = deployment["spec"]["template"]["spec"]["containers"][0]["envFrom"]

        assert {"secretRef": {"name": "shop-mailbox"}} in sources
        assert {"configMapRef": {"name": "shop-mailbox", "optional": True}} in sources
