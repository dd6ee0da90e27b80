"""How many connections an application may open: as many as its replicas need, up to the platform's limit."""

from plattr.objects import FrozenModel
from plattr.settings import Settings
from plattr.spec import ScalingSpec

# During a rollout, a Deployment has up to this percentage of pods more than its replicas.
SURGE_PERCENT = 25
# One for Plattr, which logs in to check the password, and one for a person with psql.
SPARE = 2
# PostgREST listens on one connection, in addition to its pool.
LISTENER = 1


class ConnectionShare(FrozenModel):
    """An application's share."""

    limit: int
    """Of the app role, over all its pods."""
    postgrest_pool: int
    """Of the sidecar in each pod."""


def connections_of(scaling: ScalingSpec, settings: Settings) -> ConnectionShare:
    """Return the share of an application with this scaling.

    Each pod has `db_connections_per_pod`, even at the most replicas and during their rollout. Where the platform's
    limit is reached, each pod has less. PostgREST listens on one connection. Its pool gets half of the rest, and the
    application the other half. PostgREST needs at least two connections. With hundreds of replicas the server refuses
    some of their connections, because the platform's limit holds all the same.
    """
    pods = scaling.max + -(-scaling.max * SURGE_PERCENT // 100)
    limit = min(pods * settings.db_connections_per_pod, settings.db_connections_max)
    share = min(settings.db_connections_per_pod, limit // pods)
    return ConnectionShare(limit=limit + SPARE, postgrest_pool=max(1, (share - LISTENER) // 2))
