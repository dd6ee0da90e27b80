"""The addresses of the local platform, and the settings that Plattr's processes get from it."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from stack.services.base import Site
from stack.services.cluster import NAMESPACE, kubeconfig_path
from stack.services.keycloak import ADMIN_USER, CLIENT_ID
from stack.services.postgres import ADMIN, DATABASE, SUPERUSER, database_url
from stack.services.redis import ADMIN as REDIS_ADMIN
from stack.services.s3 import ACCOUNT_KEY, ROOT_KEY


class Endpoints(BaseModel):
    """Addresses and credentials of one local platform. They include secrets, so never log them."""

    model_config = ConfigDict(frozen=True)

    temporal_address: str
    temporal_ui: str
    kubernetes_url: str
    kubeconfig_admin: Path
    kubeconfig_worker: Path
    kubeconfig_watcher: Path
    database_superuser_url: str
    database_admin_url: str
    database_host: str
    database_port: int
    database_name: str
    s3_url: str
    s3_root_key: str
    s3_root_secret: str
    s3_key: str
    s3_secret: str
    keycloak_url: str
    keycloak_admin_user: str
    keycloak_admin_password: str
    keycloak_client_id: str
    keycloak_client_secret: str
    redis_port: int
    redis_admin_url: str
    opensearch_url: str
    worker_metrics_port: int
    watcher_metrics_port: int
    bin_dir: Path
    log_dir: Path

    @classmethod
    def of(cls, site: Site) -> "Endpoints":
        """Derive the endpoints from the state folder. Nothing needs to run."""
        state = site.folders.state
        return cls(
            temporal_address=f"127.0.0.1:{site.port('temporal')}",
            temporal_ui=site.url("temporal-ui"),
            kubernetes_url=f"https://127.0.0.1:{site.port('kubernetes')}",
            kubeconfig_admin=kubeconfig_path(state, "admin"),
            kubeconfig_worker=kubeconfig_path(state, "worker"),
            kubeconfig_watcher=kubeconfig_path(state, "watcher"),
            database_superuser_url=database_url(site, SUPERUSER),
            database_admin_url=database_url(site, ADMIN),
            database_host="127.0.0.1",
            database_port=site.port("postgres"),
            database_name=DATABASE,
            s3_url=site.url("s3"),
            s3_root_key=ROOT_KEY,
            s3_root_secret=site.credential("s3-root"),
            s3_key=ACCOUNT_KEY,
            s3_secret=site.credential("s3-account"),
            keycloak_url=site.url("keycloak"),
            keycloak_admin_user=ADMIN_USER,
            keycloak_admin_password=site.credential("keycloak-admin"),
            keycloak_client_id=CLIENT_ID,
            keycloak_client_secret=site.credential("keycloak-client"),
            redis_port=site.port("redis"),
            redis_admin_url=(f"redis://{REDIS_ADMIN}:{site.credential('redis-admin')}@127.0.0.1:{site.port('redis')}"),
            opensearch_url=site.url("opensearch"),
            worker_metrics_port=site.port("worker-metrics"),
            watcher_metrics_port=site.port("watcher-metrics"),
            bin_dir=site.folders.bin,
            log_dir=site.folders.logs,
        )


def environment(endpoints: Endpoints, role: str) -> dict[str, str]:
    """Return the settings of `worker`, `watcher` or `cli` (docs/settings.md). The watcher gets no credentials."""
    kubeconfigs = {"worker": endpoints.kubeconfig_worker, "watcher": endpoints.kubeconfig_watcher}
    settings = {
        "TEMPORAL_ADDRESS": endpoints.temporal_address,
        "TEMPORAL_NAMESPACE": "default",
        "KUBECONFIG": str(kubeconfigs.get(role, endpoints.kubeconfig_admin)),
        "LEASE_NAMESPACE": NAMESPACE,
    }
    if role != "watcher":
        settings |= _backends(endpoints)
    ports = {"worker": endpoints.worker_metrics_port, "watcher": endpoints.watcher_metrics_port}
    if role in ports:
        # The local platform listens on the loopback only.
        settings |= {"METRICS_HOST": "127.0.0.1", "METRICS_PORT": str(ports[role])}
    return settings


def _backends(endpoints: Endpoints) -> dict[str, str]:
    settings = {
        # The local platform makes no certificates and serves no Ingresses.
        "TLS_CERTIFICATES": "none",
        "DB_ADMIN_URL": endpoints.database_admin_url,
        "DB_HOST": endpoints.database_host,
        "DB_PORT": str(endpoints.database_port),
        "DB_NAME": endpoints.database_name,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoints.s3_url,
        "S3_ACCOUNTS": "versitygw",
        "AWS_ACCESS_KEY_ID": endpoints.s3_key,
        "AWS_SECRET_ACCESS_KEY": endpoints.s3_secret,
        "BASE_DOMAIN": "platform.localhost",
        "KEYCLOAK_URL": endpoints.keycloak_url,
        "KEYCLOAK_CLIENT_ID": endpoints.keycloak_client_id,
        "KEYCLOAK_CLIENT_SECRET": endpoints.keycloak_client_secret,
        "AUTH_URL": endpoints.keycloak_url,
        "REDIS_ENDPOINT": f"127.0.0.1:{endpoints.redis_port}",
        "REDIS_ADMIN_URL": endpoints.redis_admin_url,
        "OPENSEARCH_ENDPOINT": endpoints.opensearch_url,
        "OPENSEARCH_ADMIN_URL": endpoints.opensearch_url,
        "OIDC_CLIENT_SUFFIX": "-app",
    }
    for provider in ("GOOGLE", "GITHUB"):
        # Keycloak stores these values unchecked. A login would fail at the provider.
        settings[f"IDP_{provider}_CLIENT_ID"] = f"local-{provider.lower()}-client"
        settings[f"IDP_{provider}_CLIENT_SECRET"] = f"local-{provider.lower()}-secret"
    return settings
