"""How many connections an application's scaling comes to, and that its sidecars stay within."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plattr.connections import LISTENER, SPARE, ConnectionShare, connections_of
from plattr.settings import Settings
from plattr.spec import ScalingSpec

BASE = Settings.from_mapping(
    {
        "DB_ADMIN_URL": "postgresql://admin@db.example.test/plattr",
        "DB_HOST": "db.example.test",
        "BASE_DOMAIN": "example.test",
        "KEYCLOAK_URL": "http://keycloak.example.test",
        "KEYCLOAK_CLIENT_ID": "plattr",
        "KEYCLOAK_CLIENT_SECRET": "secret",
    }
)


def share(maximum: int, per_pod: int = 11, at_most: int = 100) -> ConnectionShare:
    changes = {"db_connections_per_pod": per_pod, "db_connections_max": at_most}
    return connections_of(ScalingSpec(min=1, max=maximum), BASE.model_copy(update=changes))


@pytest.mark.parametrize(
    ("maximum", "limit", "pool"), [(2, 33, 5), (5, 77, 5), (20, 100, 1)], ids=["preview", "few", "default"]
)
def test_share_follows_the_replicas_up_to_the_platforms_bound(maximum: int, limit: int, pool: int) -> None:
    assert share(maximum) == ConnectionShare(limit=limit + SPARE, postgrest_pool=pool)


@given(st.integers(1, 1000), st.integers(3, 1000), st.integers(4, 100000))
def test_sidecars_stay_within_their_half_wherever_there_is_room(maximum: int, per_pod: int, at_most: int) -> None:
    found = share(maximum, per_pod, at_most)
    pods = maximum + -(-maximum // 4)

    assert found.limit <= at_most + SPARE
    if at_most >= 3 * pods:
        assert pods * (found.postgrest_pool + LISTENER) < found.limit
