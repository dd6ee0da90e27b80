"""What a state folder keeps from its first start on: ports and credentials."""

import os
import random
import secrets
import socket

from pydantic import BaseModel, ConfigDict

from stack.errors import PlatformError
from stack.folders import Folders, default_state, locked, write_private

# The usual port of each service. The default platform takes it if it is free.
USUAL_PORTS = {
    "temporal": 7233,
    "temporal-ui": 8233,
    "postgres": 5432,
    "s3": 9000,
    "keycloak": 8080,
    "keycloak-management": 9100,
    "redis": 6379,
    "opensearch": 9200,
    "opensearch-transport": 9300,
    "kubernetes": 6443,
    "etcd": 2379,
    "worker-metrics": 9090,
    "watcher-metrics": 9091,
}
CREDENTIALS = (
    "postgres-superuser",
    "postgres-provisioner",
    "s3-root",
    "s3-account",
    "keycloak-admin",
    "keycloak-client",
    "redis-admin",
    "kubernetes-admin",
)
# Below Linux's ephemeral range (32768 up). Otherwise an outgoing connection could hold a kept port at a restart.
FREE_PORTS = range(20000, 32000)


class StateSettings(BaseModel):
    """The ports and credentials of one state folder. Each later start uses the same ones."""

    model_config = ConfigDict(frozen=True)

    ports: dict[str, int]
    credentials: dict[str, str]

    @classmethod
    def load(cls, folders: Folders) -> "StateSettings":
        """Read the kept settings and add what is missing. Only the owner can read the file.

        PLATTR_PORT_<NAME> (for example PLATTR_PORT_TEMPORAL_UI) overrides a port, even a kept one.

        Raises:
            PlatformError: a configured port is not a number between 1 and 65535.
        """
        folders.create()
        path = folders.run / "settings.json"
        with locked(folders.run / "settings.lock"):
            kept = cls.model_validate_json(path.read_text()) if path.exists() else cls(ports={}, credentials={})
            ports, credentials = dict(kept.ports), dict(kept.credentials)
            usual = folders.state == default_state() and folders.state.name == "dev"
            for name in USUAL_PORTS:
                if configured := _configured_port(name):
                    ports[name] = configured
                elif name not in ports:
                    ports[name] = _free_port(name, taken=set(ports.values()), usual=usual)
            for name in CREDENTIALS:
                credentials.setdefault(name, secrets.token_hex(20))
            settings = cls(ports=ports, credentials=credentials)
            if settings != kept:
                write_private(path, settings.model_dump_json(indent=2))
        return settings


def port_is_free(port: int) -> bool:
    """Tell whether a process could listen on this port of the loopback now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _configured_port(name: str) -> int | None:
    variable = f"PLATTR_PORT_{name.upper().replace('-', '_')}"
    setting = os.environ.get(variable)
    if setting is None:
        return None
    if not setting.isdecimal() or not 1 <= int(setting) <= 65535:
        raise PlatformError(f"cannot use {variable}={setting!r}: not a port number; set it to 1 to 65535")
    return int(setting)


def _free_port(name: str, *, taken: set[int], usual: bool) -> int:
    if usual and USUAL_PORTS[name] not in taken and port_is_free(USUAL_PORTS[name]):
        return USUAL_PORTS[name]
    for port in random.sample(FREE_PORTS, k=200):
        if port not in taken and port_is_free(port):
            return port
    raise PlatformError(f"cannot find a free port for {name}: 200 tried; set PLATTR_PORT_{name.upper()}")
