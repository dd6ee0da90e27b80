"""How long a preview lives: parsing and arithmetic, without a clock."""

import re
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

# Source: docs/api.md, PreviewEnvironment.
DEFAULT_TTL = "72h"
TTL_PATTERN = r"^[1-9][0-9]*(m|h|d)$"
# 30 days: a preview is for one pull request. What lives longer is an Application.
MAX_TTL = timedelta(days=30)
# 8: prevents the multiplication of a number with a million digits.
TTL_LENGTH = 8
TTL_RULE = "must be a whole number followed by m, h or d, at least 1m and at most 30d, as in 72h"

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def parse_ttl(text: str) -> timedelta:
    """Return the duration that a ttl such as `5m`, `72h` or `3d` names.

    Raises:
        ValueError: the text does not parse, or exceeds 30 days; states the rule.
    """
    if len(text) > TTL_LENGTH or not re.fullmatch(TTL_PATTERN, text):
        raise ValueError(f"ttl {text[:20]!r} {TTL_RULE}")
    duration = int(text[:-1]) * _UNITS[text[-1]]
    if duration > MAX_TTL:
        raise ValueError(f"ttl {text!r} {TTL_RULE}")
    return duration


def _checked(text: str) -> str:
    parse_ttl(text)
    return text


# The pattern stands in the JSON schema only: a person reads one rule more easily than pydantic's several messages.
Ttl = Annotated[
    str, AfterValidator(_checked), Field(json_schema_extra={"pattern": TTL_PATTERN, "maxLength": TTL_LENGTH})
]


def expires_at(created: datetime, ttl: str) -> datetime:
    """Return when a preview ends: its creation plus its ttl, regardless of later events."""
    return created + parse_ttl(ttl)


def warn_at(created: datetime, ttl: str) -> datetime:
    """Return when to warn people of a preview's end: an hour before, or at 90 % of a ttl below 10 hours."""
    duration = parse_ttl(ttl)
    return created + duration - min(timedelta(hours=1), duration / 10)
