"""How long a preview lives."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plattr.ttl import MAX_TTL, expires_at, parse_ttl


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1m", timedelta(minutes=1)),
        ("5m", timedelta(minutes=5)),
        ("43200m", timedelta(days=30)),
        ("2h", timedelta(hours=2)),
        ("72h", timedelta(days=3)),
        ("720h", timedelta(days=30)),
        ("3d", timedelta(days=3)),
        ("30d", timedelta(days=30)),
    ],
)
def test_ttl_is_a_number_and_a_unit(text: str, expected: timedelta) -> None:
    assert parse_ttl(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "0h", "0m", "31d", "721h", "43201m", "5w", "60s", "h", "72", "1.5h", "-1h", "072h", "1d12h", " 72h", "72h ",
     "72h\n", "72H", "9" * 1_000_000 + "h", "\u0667\u0662h"],
    ids=lambda text: repr(text[:10]),
)  # fmt: skip
def test_other_texts_are_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(ValueError, match="at most 30d") as refusal:
        parse_ttl(text)

    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 150


@given(st.text(st.sampled_from("0123456789mhdsw \n"), max_size=9) | st.text(max_size=9))
def test_no_text_names_more_than_thirty_days_or_less_than_a_minute(text: str) -> None:
    try:
        duration = parse_ttl(text)
    except ValueError:
        return

    assert timedelta(minutes=1) <= duration <= MAX_TTL


def test_preview_expires_at_creation_plus_ttl() -> None:
    created = datetime(2026, 2, 27, 12, tzinfo=UTC)

    assert expires_at(created, "72h") == datetime(2026, 3, 2, 12, tzinfo=UTC)
