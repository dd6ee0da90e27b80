"""The pod of an application: its own container, and PostgREST beside it if the application has a database."""

from typing import Any

from plattr.features import features_of
from plattr.manifests.ports import APP_PORT, HTTP_PORT_NAME, POSTGREST_PORT, POSTGREST_PORT_NAME
from plattr.objects import FrozenModel
from plattr.spec import EnvVar
from plattr.target import Target

APP_CONTAINER = "app"
POSTGREST_CONTAINER = "postgrest"
POSTGREST_IMAGE = "postgrest/postgrest:v12.2.3"

# 1000: the user of the Node image, of the Dockerfile that Rails generates, and of the PostgREST image. Without a
# number, `runAsNonRoot` refuses every image whose user is root or has only a name. The group is not set: an image that
# does not know the user runs in group 0, as images for arbitrary users expect.
RUN_AS_USER = 1000


class Placeholder(FrozenModel):
    """The page that is shown until the pipeline has built an image."""

    image: str
    port: int


def build_pod_spec(target: Target, placeholder: Placeholder, *, postgrest_pool: int) -> dict[str, Any]:
    """Return the pod's spec; it passes Pod Security `restricted`."""
    containers = [_app_container(target, placeholder)]
    if target.spec.database.enabled:
        containers.append(_postgrest_container(target, postgrest_pool))
    return {
        "serviceAccountName": target.names.stem,
        "automountServiceAccountToken": False,
        # Otherwise a Service named redis would add REDIS_PORT=tcp://... to the variables that Plattr injects.
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": RUN_AS_USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": target.selector_labels},
            }
        ],
    }


def _app_container(target: Target, placeholder: Placeholder) -> dict[str, Any]:
    image = target.spec.image_ref
    port = APP_PORT if image else placeholder.port
    container: dict[str, Any] = {
        "name": APP_CONTAINER,
        "image": image or placeholder.image,
        "ports": [_container_port(HTTP_PORT_NAME, port)],
        "env": _app_env(target, port),
        "envFrom": _app_env_from(target),
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"cpu": "1000m", "memory": "512Mi"},
        },
        "securityContext": _security_context(),
    }
    # The placeholder does not serve the application's health path.
    return container | _probes(target.spec.health_path) if image else container


def _app_env(target: Target, port: int) -> list[dict[str, Any]]:
    # Rails, Next.js and most servers for containers listen on the port in PORT.
    env: list[dict[str, Any]] = [{"name": "PORT", "value": str(port)}]
    if target.spec.database.enabled:
        env += [
            {"name": "POSTGREST_URL", "value": f"{target.names.url}/api/rest"},
            {"name": "POSTGREST_INTERNAL_URL", "value": f"http://localhost:{POSTGREST_PORT}"},
        ]
    return env + [_env_var(variable) for variable in target.spec.env_vars]


def _env_var(variable: EnvVar) -> dict[str, Any]:
    reference = variable.secret_key_ref
    if reference is None:
        return {"name": variable.name, "value": variable.value}
    return _from_secret(variable.name, reference.name, reference.key)


def _app_env_from(target: Target) -> list[dict[str, Any]]:
    names = target.names
    # The last source wins: the user's values in `{name}-env` cannot replace what Plattr injects.
    sources: list[dict[str, Any]] = [
        {"configMapRef": {"name": names.user_env, "optional": True}},
        {"secretRef": {"name": names.user_env, "optional": True}},
    ]
    for feature in features_of(target):
        if feature.secret is not None:
            sources.append({"secretRef": _source(feature.secret.name(names), is_optional=feature.secret.is_optional)})
        if feature.has_config_map:
            config_map = _source(names.config_map(feature.step), is_optional=not feature.blocks)
            sources.append({"configMapRef": config_map})
    return sources


def _source(name: str, *, is_optional: bool) -> dict[str, Any]:
    return {"name": name, "optional": True} if is_optional else {"name": name}


def _probes(path: str) -> dict[str, Any]:
    request = {"httpGet": {"path": path, "port": HTTP_PORT_NAME}, "timeoutSeconds": 3}
    return {
        # 60 x 2 s: a Rails application may take two minutes to boot. Until then the other probes do not run.
        "startupProbe": request | {"periodSeconds": 2, "failureThreshold": 60},
        "readinessProbe": request | {"periodSeconds": 5, "failureThreshold": 2},
        "livenessProbe": request | {"periodSeconds": 10, "failureThreshold": 3},
    }


def _postgrest_container(target: Target, pool: int) -> dict[str, Any]:
    names = target.names
    return {
        "name": POSTGREST_CONTAINER,
        "image": POSTGREST_IMAGE,
        "ports": [_container_port(POSTGREST_PORT_NAME, POSTGREST_PORT)],
        "env": [
            _from_secret("PGRST_DB_URI", names.database_secret, "DATABASE_URL"),
            {"name": "PGRST_DB_SCHEMAS", "value": names.schema_name},
            {"name": "PGRST_DB_ANON_ROLE", "value": names.anon_role},
            {"name": "PGRST_SERVER_PORT", "value": str(POSTGREST_PORT)},
            {"name": "PGRST_DB_POOL", "value": str(pool)},
            {"name": "PGRST_DB_CHANNEL_ENABLED", "value": "true"},
            # A channel of its own. On a common channel, any NOTIFY would make every sidecar read its schema again.
            _from_secret("PGRST_DB_CHANNEL", names.database_secret, "DB_CHANNEL"),
        ],
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"cpu": "200m", "memory": "128Mi"},
        },
        # The port only, not the database behind it: a database outage must not take the application's pages down.
        "readinessProbe": {"tcpSocket": {"port": POSTGREST_PORT_NAME}, "periodSeconds": 5},
        "securityContext": _security_context() | {"readOnlyRootFilesystem": True},
    }


def _from_secret(name: str, secret: str, key: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _container_port(name: str, port: int) -> dict[str, Any]:
    # Server-side apply merges ports by a key that includes the protocol. So the protocol is always set explicitly.
    return {"name": name, "containerPort": port, "protocol": "TCP"}


def _security_context() -> dict[str, Any]:
    # Without readOnlyRootFilesystem for the application, because Next.js and Rails write caches beside their code.
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
