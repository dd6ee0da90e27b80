"""The variables that tell applications about the managed services: addresses, never credentials."""

from urllib.parse import SplitResult, urlsplit

from plattr.errors import MissingSetting
from plattr.settings import Settings
from plattr.target import Target

REDIS_PORT = 6379
OPENSEARCH_PORT = 9200

_DEFAULT_PORTS = {"redis": REDIS_PORT, "rediss": REDIS_PORT, "http": OPENSEARCH_PORT, "https": 443}


def redis_values(target: Target, settings: Settings, *, database: int | None = None) -> dict[str, str]:
    """Return the variables of Redis without a user; of the in-cluster service when no managed endpoint is set.

    Raises:
        MissingSetting: REDIS_ENDPOINT is neither host[:port] nor a redis:// or rediss:// address.
    """
    endpoint = settings.redis_endpoint or f"redis.{settings.lease_namespace}.svc.cluster.local"
    address = _parse("REDIS_ENDPOINT", endpoint, schemes=("redis", "rediss"))
    host, port = _host(address), _port(address)
    path = address.path.rstrip("/") if database is None else f"/{database}"
    values = {
        "REDIS_URL": f"{address.scheme}://{host}:{port}{path}",
        "REDIS_HOST": address.hostname or "",
        "REDIS_PORT": str(port),
    }
    return values if settings.redis_isolation != "prefix" else values | {"REDIS_PREFIX": target.names.redis_prefix}


def search_values(target: Target, settings: Settings) -> dict[str, str]:
    """Return the variables of OpenSearch; of the in-cluster service when no managed endpoint is set.

    Raises:
        MissingSetting: OPENSEARCH_ENDPOINT is neither host[:port] nor an http:// or https:// address.
    """
    endpoint = settings.opensearch_endpoint or f"opensearch.{settings.lease_namespace}.svc.cluster.local"
    address = _parse("OPENSEARCH_ENDPOINT", endpoint, schemes=("http", "https"))
    return {
        "OPENSEARCH_URL": f"{address.scheme}://{_host(address)}:{_port(address)}{address.path.rstrip('/')}",
        "OPENSEARCH_INDEX_PREFIX": target.names.search_prefix,
    }


def _parse(setting: str, endpoint: str, *, schemes: tuple[str, str]) -> SplitResult:
    try:
        address = urlsplit(endpoint if "://" in endpoint else f"{schemes[0]}://{endpoint}")
        is_whole = address.scheme in schemes and address.hostname and (address.port is None or address.port > 0)
    except ValueError:
        is_whole = False
    # The message does not show the value: a value may be bad because it holds a password.
    if not is_whole:
        raise MissingSetting(
            f"cannot use setting {setting}: it must be host[:port] or an address that begins with"
            f" {schemes[0]}:// or {schemes[1]}://; see docs/settings.md"
        )
    if address.username is not None or address.password is not None or address.query or address.fragment:
        raise MissingSetting(
            f"cannot use setting {setting}: it must not hold credentials or parameters, since every application"
            " gets it in a ConfigMap; see docs/settings.md"
        )
    return address


def _host(address: SplitResult) -> str:
    host = address.hostname or ""
    return f"[{host}]" if ":" in host else host


def _port(address: SplitResult) -> int:
    return address.port or _DEFAULT_PORTS[address.scheme]
