"""Which hosts an object may be served at: the platform's own are refused, and a namespace may be kept to its domains.

Where two claims meet the claim store decides; these are hosts that no claim knows: whoever serves a page at one of
them is taken for the platform by its users, their browsers and its clients.
"""

import re
from collections.abc import Collection, Iterable
from urllib.parse import parse_qsl

from plattr.errors import InvalidSpec
from plattr.objects import FrozenModel
from plattr.spec import HOST_PATTERN, Environment

# What platforms usually serve beside the applications, and what clients look up by themselves below any domain.
# https://www.rfc-editor.org/rfc/rfc8461 (mta-sts); wpad hands its readers a proxy.
RESERVED_LABELS = frozenset(
    {
        *("auth", "keycloak", "sso", "login", "oauth2-proxy", "vault"),
        *("s3", "minio", "temporal", "plattr", "redis", "opensearch", "postgres"),
        *("grafana", "prometheus", "alertmanager", "loki", "kibana", "argocd", "argo", "traefik", "kubernetes"),
        *("wpad", "autodiscover", "autoconfig", "mta-sts"),
    }
)

# In an allow-list: every namespace that is not named.
ANY_NAMESPACE = "*"


class HostRules(FrozenModel):
    """The installation's rules; without any the built-in ones hold.

    A pattern is a host, or `*.` and a suffix: everything below that host, and not the host itself.
    """

    reserved: tuple[str, ...] = ()
    """Patterns of what belongs to the platform, beside the built-in ones."""
    by_namespace: dict[str, tuple[str, ...]] | None = None
    """Which domains the objects of a namespace may ask for, as patterns; None: any."""

    def ensure_free(self, host: str, *, base_domain: str, field: str) -> None:
        """Return when the host may be an object's.

        Raises:
            InvalidSpec: it is the platform's own; names `field`.
        """
        if is_among(host, (*_built_in(base_domain), *self.reserved)):
            raise InvalidSpec(field, f"{host!r} belongs to the platform itself; choose another")

    def ensure_allowed(self, domain: str, namespace: str) -> None:
        """Return when objects of the namespace may ask for this domain.

        Raises:
            InvalidSpec: the installation does not list it for the namespace.
        """
        if self.by_namespace is None:
            return
        allowed = self.by_namespace.get(namespace, self.by_namespace.get(ANY_NAMESPACE, ()))
        if not is_among(domain, allowed):
            listed = f"allowed are {', '.join(allowed)}" if allowed else "none is allowed"
            raise InvalidSpec(
                "spec.domain",
                f"{domain!r} is not among the domains of namespace {namespace!r} ({listed}); choose one of them, leave"
                " the field out, or have the platform's setting DOMAINS_BY_NAMESPACE changed",
            )


def is_among(host: str, patterns: Collection[str]) -> bool:
    """Tell whether a host is one of the patterns'."""
    return any(host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern for pattern in patterns)


def parse_patterns(texts: Iterable[str]) -> tuple[str, ...]:
    """Return patterns as they are compared: hosts, or `*.` and a suffix, which may be of one label.

    Raises:
        ValueError: one is neither.
    """
    patterns = tuple(text.strip() for text in texts)
    for pattern in patterns:
        if not re.fullmatch(HOST_PATTERN, pattern.replace("*", "any", 1) if pattern.startswith("*.") else pattern):
            raise ValueError(f"{pattern!r} must be a host in lower case, or *. and one")
    return patterns


def hosts_in(address: str) -> tuple[str, ...]:
    """Return the hosts of a setting: of a URL, of `host:port`, or of the several that libpq takes."""
    authority = re.split(r"[/?#]", address.partition("://")[2] or address, maxsplit=1)[0].rpartition("@")[2]
    parameters = [value for name, value in parse_qsl(address.partition("?")[2]) if name == "host"]
    places = [place for part in (authority, *parameters) for place in part.split(",")]
    # Clients take a host in any case, and with the root's dot.
    return tuple(host for place in places if (host := place.partition(":")[0].strip().lower().rstrip(".")))


def below(host: str, base_domain: str) -> tuple[str, ...]:
    """Return the patterns of a host with everything below it; only of the host where the applications are below."""
    return (host,) if f".{base_domain}".endswith(f".{host}") else (host, f"*.{host}")


def _built_in(base_domain: str) -> list[str]:
    patterns = [base_domain]
    # Each is above other applications' hosts, and cookies set there reach them all.
    patterns += [f"{environment}.{base_domain}" for environment in Environment]
    for label in sorted(RESERVED_LABELS):
        patterns += below(f"{label}.{base_domain}", base_domain)
    return patterns
