"""How many connections an application may open: what its replicas need, within what the platform allows."""

from plattr.objects import FrozenModel
from plattr.settings import Settings
from plattr.spec import ScalingSpec

# How many more pods there are than replicas while a Deployment rolls.
SURGE_PERCENT = 25
# One for Plattr, which logs in to compare the password, one for a person with psql.
SPARE = 2
# PostgREST listens on one connection, beside those of its pool.
LISTENER = 1


class ConnectionShare(FrozenModel):
    """An application's share."""

    limit: int
    """Of the app role, in all its pods."""
    postgrest_pool: int
    """Of the sidecar in each pod."""


def connections_of(scaling: ScalingSpec, settings: Settings) -> ConnectionShare:
    """Return the share of an application that scales so.

    At the most replicas and while they roll, a pod has `db_connections_per_pod`, or less where the platform's bound is
    reached: one for PostgREST to listen, half of the rest for its pool, and the other half for the application itself.
    PostgREST cannot do with less than two; of hundreds of replicas some are refused, for the bound holds all the same.
    """
    pods = scaling.max + -(-scaling.max * SURGE_PERCENT // 100)
    limit = min(pods * settings.db_connections_per_pod, settings.db_connections_max)
    share = min(settings.db_connections_per_pod, limit // pods)
    return ConnectionShare(limit=limit + SPARE, postgrest_pool=max(1, (share - LISTENER) // 2))
