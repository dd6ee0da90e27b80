"""Which hosts an object may have: never the platform's own, and perhaps only those of its namespace's domains.

The claim store decides between two objects. These rules are about hosts that no claim knows. Users, their browsers and
their clients would take a page at such a host for the platform's.
"""

import re
from collections.abc import Collection, Iterable
from urllib.parse import parse_qsl

from plattr.errors import InvalidSpec
from plattr.objects import FrozenModel
from plattr.spec import HOST_PATTERN, Environment

# Names that platforms usually serve beside the applications, and names that clients look up by themselves in any
# domain. https://www.rfc-editor.org/rfc/rfc8461 (mta-sts); wpad gives a proxy to its readers.
RESERVED_LABELS = frozenset(
    {
        *("auth", "keycloak", "sso", "login", "oauth2-proxy", "vault"),
        *("s3", "minio", "temporal", "plattr", "redis", "opensearch", "postgres"),
        *("grafana", "prometheus", "alertmanager", "loki", "kibana", "argocd", "argo", "traefik", "kubernetes"),
        *("wpad", "autodiscover", "autoconfig", "mta-sts"),
    }
)

# In an allow-list: every namespace that the list does not name.
ANY_NAMESPACE = "*"


class HostRules(FrozenModel):
    """The installation's rules; without them, the built-in rules hold.

    A pattern is a host, or `*.` and a suffix. The second form covers everything below that host, but not the
    host itself.
    """

    reserved: tuple[str, ...] = ()
    """Patterns of the platform's own hosts, in addition to the built-in ones."""
    by_namespace: dict[str, tuple[str, ...]] | None = None
    """The domains that the objects of a namespace may use, as patterns; None: any domain."""

    def ensure_free(self, host: str, *, base_domain: str, field: str) -> None:
        """Refuse a host that an object may not have.

        Raises:
            InvalidSpec: the host is the platform's own; names `field`.
        """
        if is_among(host, (*_built_in(base_domain), *self.reserved)):
            raise InvalidSpec(field, f"{host!r} belongs to the platform itself; choose another")

    def ensure_allowed(self, domain: str, namespace: str) -> None:
        """Refuse a domain that objects of the namespace may not use.

        Raises:
            InvalidSpec: the installation does not list the domain for the namespace.
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
    """Tell whether a host matches one of the patterns."""
    return any(host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern for pattern in patterns)


def parse_patterns(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns, checked and ready to compare: hosts, or `*.` and a suffix, which may have one label.

    Raises:
        ValueError: a pattern is neither.
    """
    patterns = tuple(text.strip() for text in texts)
    for pattern in patterns:
        if not re.fullmatch(HOST_PATTERN, pattern.replace("*", "any", 1) if pattern.startswith("*.") else pattern):
            raise ValueError(f"{pattern!r} must be a host in lower case, or *. and one")
    return patterns


def hosts_in(address: str) -> tuple[str, ...]:
    """Return the hosts in a setting: in a URL, in `host:port`, or in a list of several for libpq."""
    authority = re.split(r"[/?#]", address.partition("://")[2] or address, maxsplit=1)[0].rpartition("@")[2]
    parameters = [value for name, value in parse_qsl(address.partition("?")[2]) if name == "host"]
    places = [place for part in (authority, *parameters) for place in part.split(",")]
    # Clients accept a host in upper or lower case, and with the root's dot.
    return tuple(host for place in places if (host := place.partition(":")[0].strip().lower().rstrip(".")))


def below(host: str, base_domain: str) -> tuple[str, ...]:
    """Return the patterns of a host and all below it; only the host itself where the applications are below it."""
    return (host,) if f".{base_domain}".endswith(f".{host}") else (host, f"*.{host}")


def _built_in(base_domain: str) -> list[str]:
    patterns = [base_domain]
    # Each of these is above other applications' hosts. A cookie that is set there reaches them all.
    patterns += [f"{environment}.{base_domain}" for environment in Environment]
    for label in sorted(RESERVED_LABELS):
        patterns += below(f"{label}.{base_domain}", base_domain)
    return patterns
