"""What the worker runs: every workflow and every activity, with the clients they are given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from temporalio.client import Client

from activities import adoptables
from activities.adoption import AdoptionActivities, Finder
from activities.auth import AuthActivities
from activities.claim import ClaimActivities
from activities.database import DatabaseActivities
from activities.database_removal import DatabaseRemovalActivities
from activities.fleet import FleetActivities
from activities.loading import TargetLoader
from activities.namespace import NamespaceActivities
from activities.preview import PreviewActivities
from activities.redis import RedisActivities
from activities.references import ReferenceActivities
from activities.release import ReleaseActivities
from activities.rollout import RolloutActivities
from activities.search import SearchActivities
from activities.status import StatusActivities
from activities.storage import StorageActivities
from activities.workload import WorkloadActivities
from clients.claim_store import ClaimStore
from clients.events import EventRecorder
from clients.keycloak import KeycloakClient
from clients.kube import KubeClient
from clients.opensearch import OpenSearchClient
from clients.postgres import PostgresClient
from clients.redis import RedisClient
from clients.s3 import S3Client
from clients.temporal import request_reconcile
from plattr.features import Step
from plattr.objects import ObjectReference
from plattr.settings import Settings
from plattr.steps import TASK_QUEUE
from workflows.adoption import AdoptResources
from workflows.application import CleanupApplication, ProvisionApplication
from workflows.preview import CleanupPreview, PreviewLifecycle
from workflows.references import LookAtReferences
from workflows.resync import ResyncFleet

WORKFLOWS: Sequence[type] = (
    ProvisionApplication,
    CleanupApplication,
    PreviewLifecycle,
    CleanupPreview,
    ResyncFleet,
    AdoptResources,
    LookAtReferences,
)


@dataclass(frozen=True)
class Clients:
    """The connections to the backends. Each connects at its first call."""

    kube: KubeClient
    postgres: PostgresClient
    s3: S3Client
    keycloak: KeycloakClient
    # None: the platform does not manage this backend.
    redis: RedisClient | None = None
    opensearch: OpenSearchClient | None = None

    async def close(self) -> None:
        """Close every connection."""
        await self.postgres.close()
        await self.keycloak.close()
        self.s3.close()
        await self.kube.close()


async def connect_clients(settings: Settings) -> Clients:
    """Return the clients of the backends. None connects yet, so the worker starts while a backend is away.

    Raises:
        MissingSetting: there is no usable Kubernetes configuration.
    """
    return Clients(
        kube=await KubeClient.connect(),
        postgres=await PostgresClient.connect(settings),
        s3=S3Client(settings),
        keycloak=KeycloakClient.connect(settings),
        redis=RedisClient.connect(settings),
        opensearch=OpenSearchClient.connect(settings),
    )


def build_activities(
    settings: Settings, clients: Clients, temporal: Client, task_queue: str = TASK_QUEUE
) -> list[Callable[..., Any]]:
    """Return every activity. A new feature adds one line here (docs/adding-a-reconciler.md)."""
    kube, loader = clients.kube, TargetLoader(clients.kube, settings)

    async def wake(reference: ObjectReference) -> None:
        await request_reconcile(temporal, reference, is_deleting=False, task_queue=task_queue)

    claim_store = ClaimStore(kube, settings.lease_namespace, wake)
    events = EventRecorder(kube)
    classes: tuple[object, ...] = (
        ClaimActivities(kube, claim_store, loader, events, previews_per_namespace=settings.previews_per_namespace),
        DatabaseActivities(loader, kube, clients.postgres, events, settings),
        DatabaseRemovalActivities(kube, clients.postgres, events),
        StorageActivities(loader, kube, clients.s3, claim_store, settings),
        AuthActivities(loader, kube, clients.keycloak, claim_store, settings),
        RedisActivities(loader, kube, clients.redis, claim_store, settings),
        SearchActivities(loader, kube, clients.opensearch, claim_store, settings),
        WorkloadActivities(loader, kube, claim_store, settings),
        RolloutActivities(loader, kube),
        StatusActivities(kube, events, loader),
        ReleaseActivities(kube, claim_store, events),
        NamespaceActivities(loader, kube, claim_store, settings),
        PreviewActivities(kube, events, loader),
        AdoptionActivities(loader, kube, claim_store, clients.postgres, adoption_finders(clients)),
        FleetActivities(kube, claim_store, temporal, task_queue),
        ReferenceActivities(kube, claim_store),
    )
    return [activity for instance in classes for activity in _activities_of(instance)]


def adoption_finders(clients: Clients) -> dict[Step, Finder]:
    """Return, by a feature's step, how to find what an object could adopt."""
    return {
        Step.DATABASE: partial(adoptables.marked_database, clients.postgres),
        Step.STORAGE: partial(adoptables.marked_buckets, clients.s3),
        Step.AUTH: partial(adoptables.marked_realm, clients.keycloak),
        Step.REDIS: partial(adoptables.marked_user, clients.redis),
        Step.SEARCH: partial(adoptables.marked_prefix, clients.opensearch),
    }


def _activities_of(instance: object) -> list[Callable[..., Any]]:
    """Return the methods that carry @activity.defn."""
    methods = (getattr(instance, name) for name in vars(type(instance)))
    return [method for method in methods if hasattr(method, "__temporal_activity_definition")]
