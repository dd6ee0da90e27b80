"""The services by name, and what each one needs."""

from collections.abc import Iterable

from stack.errors import PlatformError
from stack.services.application import APPS, Watcher, Worker
from stack.services.base import Service
from stack.services.keycloak import Keycloak
from stack.services.kubernetes import ApiServer, ControllerManager, Etcd, Kwok, Scheduler
from stack.services.opensearch import OpenSearch
from stack.services.postgres import Postgres
from stack.services.redis import Redis
from stack.services.s3 import S3
from stack.services.temporal import Temporal

# The names that a user knows, each with the processes it consists of.
SERVICES: dict[str, tuple[type[Service], ...]] = {
    "temporal": (Temporal,),
    "postgres": (Postgres,),
    "s3": (S3,),
    "keycloak": (Keycloak,),
    "kubernetes": (Etcd, ApiServer, ControllerManager, Scheduler, Kwok),
    "redis": (Redis,),
    "opensearch": (OpenSearch,),
}
ON_DEMAND = tuple(name for name, processes in SERVICES.items() if any(process.is_on_demand for process in processes))
# The services that a start without names starts.
ALL = tuple(name for name in SERVICES if name not in ON_DEMAND)
PROCESSES: dict[str, type[Service]] = {
    **{process.name: process for processes in SERVICES.values() for process in processes},
    "worker": Worker,
    "watcher": Watcher,
}
# The tools by service. One build makes kubectl and all processes of Kubernetes.
TOOLS: dict[str, tuple[str, ...]] = {
    "temporal": ("temporal",),
    "postgres": ("postgres", "initdb", "psql", "pg_dump", "pg_restore"),
    "s3": ("versitygw",),
    "keycloak": ("keycloak",),
    "kubernetes": (*(process.name for process in SERVICES["kubernetes"]), "kubectl"),
    "redis": ("redis-server",),
    "opensearch": ("opensearch",),
}


def processes_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the processes of the services, processes and apps that a user names, in the order of their start.

    Raises:
        PlatformError: a name is unknown.
    """
    found: list[str] = []
    for name in names:
        if name in SERVICES:
            found += [process.name for process in SERVICES[name]]
        elif name in PROCESSES:
            found.append(name)
        else:
            known = ", ".join([*SERVICES, *(p for p in PROCESSES if p not in SERVICES)])
            raise PlatformError(f"cannot find service {name!r}: the platform has {known}")
    return tuple(name for name in PROCESSES if name in found)


def services_of(processes: Iterable[str]) -> tuple[str, ...]:
    """Return the services that include any of the processes."""
    wanted = set(processes)
    return tuple(name for name, parts in SERVICES.items() if wanted & {part.name for part in parts})


def requirements(process: str, present: Iterable[str]) -> tuple[str, ...]:
    """Return which of the present processes must be healthy before this one starts.

    The apps need all of them, except the services that only some applications use.
    """
    if process in APPS:
        return tuple(name for name in present if name not in APPS and not PROCESSES[name].is_on_demand)
    return tuple(name for name in PROCESSES[process].requires if name in set(present))
