"""The platform's settings; the processes pass their environment in, and nothing here reads it."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from plattr.errors import MissingSetting
from plattr.hosts import HostRules, below, hosts_in
from plattr.marks import CLUSTER_PATTERN
from plattr.objects import FrozenModel
from plattr.setting_types import (
    Annotations,
    DomainLists,
    HostPatterns,
    Labels,
    LimitRange,
    NetworkRules,
    Quota,
    RoleTemplate,
)
from plattr.spec import Provider

# In lower case, as an Ingress requires it. One label suffices for a local platform.
DOMAIN_PATTERN = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
# As in `info,client|setinfo`: a command or a subcommand, as Redis names them.
COMMANDS_PATTERN = r"^([a-z]+(\|[a-z-]+)?(,[a-z]+(\|[a-z-]+)?)*)?$"
URL_PATTERN = r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/\S*)?$"

Url = Annotated[str, StringConstraints(pattern=URL_PATTERN)]

# The endings of settings that hold an address. All are hosts of the platform, except the worker's own listen address.
_ADDRESS_ENDINGS = ("_url", "_endpoint", "_host", "_address")
_LISTENS_AT = "metrics_host"
# These servers serve hosts below their own as well: Keycloak the realms, and S3 a host for each bucket.
_WITH_ALL_BELOW = ("auth_url", "keycloak_url", "aws_endpoint_url", "s3_public_endpoint")


class ProviderCredentials(FrozenModel):
    """The credentials that an identity provider gave the platform."""

    client_id: str
    client_secret: SecretStr
    issuer_url: str = ""


class WatcherSettings(BaseModel):
    """The settings of the watcher, which talks to Kubernetes and Temporal only and gets no other credentials.

    temporalio.envconfig reads Temporal's own variables (TEMPORAL_ADDRESS, TEMPORAL_API_KEY, ...).
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    leader_election: bool = False
    lease_namespace: str = Field(default="plattr-system", min_length=1)
    metrics_port: int = Field(default=9090, ge=0, le=65535)
    metrics_host: str = "0.0.0.0"  # noqa: S104  probes and Prometheus come from outside the pod
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str]) -> Self:
        """Read the settings from environment-like names; an empty value counts as not set.

        Raises:
            MissingSetting: the first setting that is missing or bad, named in one line.
        """
        values = {name.lower(): value for name, value in mapping.items() if value != ""}
        known = {name: value for name, value in values.items() if name in cls.model_fields}
        try:
            return cls.model_validate(known)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            if not first["loc"]:
                raise MissingSetting(first["msg"].removeprefix("Value error, ")) from None
            name = str(first["loc"][0]).upper()
            cause = "it is not set" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
            raise MissingSetting(f"cannot start: setting {name}: {cause}; see docs/settings.md") from None


class Settings(WatcherSettings):
    """Every setting of the worker, by the name of its environment variable."""

    db_admin_url: SecretStr | None = None
    db_secret_arn: str | None = None
    db_host: str
    db_port: int = Field(default=5432, ge=1, le=65535)
    db_name: str = "plattr"
    # 5: one provision uses one connection for some 15 ms. See docs/scaling.md before you raise it.
    db_pool_size: int = Field(default=5, ge=1, le=100)
    # 11: PostgREST listens on one and has a pool of five. The application has five as well.
    db_connections_per_pod: int = Field(default=11, ge=3, le=1000)
    # 100: half of what the smallest managed servers allow, so that no application alone fills such a server.
    db_connections_max: int = Field(default=100, ge=4, le=100000)
    # The sslmode in the applications' connection URL. None leaves it to their driver.
    db_sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] | None = None
    aws_region: str = "us-east-1"
    aws_endpoint_url: Url | None = None
    # Where applications reach S3, if the worker uses another address.
    s3_public_endpoint: Url | None = None
    # The name of this cluster in owner marks. Without it, the UID of the namespace kube-system.
    cluster_id: str | None = Field(default=None, pattern=CLUSTER_PATTERN)
    # The kind of S3 server that has accounts of its own. Each application gets an account there.
    s3_accounts: Literal["none", "versitygw"] = "none"
    s3_accounts_url: Url | None = None
    base_domain: str = Field(min_length=3, pattern=DOMAIN_PATTERN)
    reserved_hosts: HostPatterns = ()
    domains_by_namespace: DomainLists | None = None
    # The libraries read these. They are here only because no application may be served at their hosts.
    temporal_address: str = "localhost:7233"
    otel_exporter_otlp_endpoint: str | None = None
    keycloak_url: Url
    keycloak_admin_user: str | None = None
    keycloak_admin_password: SecretStr | None = None
    keycloak_client_id: str | None = None
    keycloak_client_secret: SecretStr | None = None
    auth_url: Url | None = None
    oidc_client_suffix: str = ""
    idp_google_client_id: str | None = None
    idp_google_client_secret: SecretStr | None = None
    idp_github_client_id: str | None = None
    idp_github_client_secret: SecretStr | None = None
    idp_oidc_client_id: str | None = None
    idp_oidc_client_secret: SecretStr | None = None
    idp_oidc_issuer_url: str | None = None
    idp_saml_client_id: str | None = None
    idp_saml_client_secret: SecretStr | None = None
    idp_saml_issuer_url: str | None = None
    redis_endpoint: str | None = None
    redis_admin_url: SecretStr | None = None
    redis_isolation: Literal["prefix", "database", "none"] = "prefix"
    # 16: Redis' own default of `databases`.
    redis_databases: int = Field(default=16, ge=2, le=10_000)
    redis_extra_commands: str = Field(default="", pattern=COMMANDS_PATTERN)
    opensearch_endpoint: str | None = None
    opensearch_admin_url: SecretStr | None = None
    ingress_profile: Literal["nginx", "traefik"] = "nginx"
    tls_certificates: Literal["cert-manager", "none"] = "cert-manager"
    cluster_issuer: str = "letsencrypt"
    # A page on 8080 that any user may serve, without arguments. Without arguments agnhost, for example, only sleeps.
    placeholder_image: str = "nginxinc/nginx-unprivileged:1.27-alpine"
    placeholder_port: int = Field(default=8080, ge=1, le=65535)
    irsa_role_arn_template: RoleTemplate | None = None
    preview_quota: Quota | None = None
    preview_limit_range: LimitRange | None = None
    preview_network_policy: NetworkRules | None = None
    preview_namespace_labels: Labels | None = None
    preview_namespace_annotations: Annotations | None = None
    previews_per_namespace: int | None = Field(default=None, ge=1)
    # 3: see worker/run_limiter.py; docs/scaling.md says when more help.
    runs_at_once: int = Field(default=3, ge=1, le=200)
    # 180: a thousand Applications with two buckets each then cost each backend, the API server included, less than five
    # requests a second. See tests/activities/test_resync_cost.py.
    resync_interval_minutes: int = Field(default=180, ge=1)
    # 60: docs/decisions/0031 has the cost of a thousand Applications at this interval.
    references_interval_seconds: int = Field(default=60, ge=5)

    @model_validator(mode="after")
    def _credentials_are_whole(self) -> Self:
        if self.db_admin_url is None and self.db_secret_arn is None:
            raise ValueError(
                "cannot start: setting DB_ADMIN_URL: neither it nor DB_SECRET_ARN is set; see docs/settings.md"
            )
        client = (self.keycloak_client_id, self.keycloak_client_secret)
        admin = (self.keycloak_admin_user, self.keycloak_admin_password)
        if None in client and None in admin:
            raise ValueError(
                "cannot start: setting KEYCLOAK_CLIENT_ID: needs KEYCLOAK_CLIENT_ID and KEYCLOAK_CLIENT_SECRET, "
                "or KEYCLOAK_ADMIN_USER and KEYCLOAK_ADMIN_PASSWORD; see docs/settings.md"
            )
        if self.redis_admin_url is not None:
            _check_admin_url("REDIS_ADMIN_URL", self.redis_admin_url, ("redis", "rediss"))
        if self.opensearch_admin_url is not None:
            _check_admin_url("OPENSEARCH_ADMIN_URL", self.opensearch_admin_url, ("http", "https"))
        return self

    @property
    def host_rules(self) -> HostRules:
        """Return which hosts no object may have; they include every host that a setting names."""
        named = {name: getattr(self, name) for name in type(self).model_fields if name.endswith(_ADDRESS_ENDINGS)}
        named["auth_url"] = self.issuer_base
        patterns = set(self.reserved_hosts)
        for name, address in named.items():
            if address is None or name == _LISTENS_AT:
                continue
            hosts = hosts_in(address.get_secret_value() if isinstance(address, SecretStr) else address)
            patterns |= set(hosts)
            if name in _WITH_ALL_BELOW:
                patterns |= {pattern for host in hosts for pattern in below(host, self.base_domain)}
        return HostRules(reserved=tuple(sorted(patterns)), by_namespace=self.domains_by_namespace)

    @property
    def redis_commands(self) -> tuple[str, ...]:
        """Return the additional commands that every application's Redis user may use."""
        return tuple(command for command in self.redis_extra_commands.split(",") if command)

    @property
    def asked_issuer(self) -> str | None:
        """Return the ClusterIssuer that the Ingresses name for a certificate; None: something else handles TLS."""
        return self.cluster_issuer if self.tls_certificates == "cert-manager" else None

    @property
    def issuer_base(self) -> str:
        """Return the public address below which Keycloak serves the realms."""
        return (self.auth_url or f"https://auth.{self.base_domain}").rstrip("/")

    def provider_credentials(self, provider: Provider) -> ProviderCredentials | None:
        """Return the platform's credentials for a provider; None when they are incomplete."""
        client_id: str | None = getattr(self, f"idp_{provider}_client_id")
        secret: SecretStr | None = getattr(self, f"idp_{provider}_client_secret")
        issuer: str | None = getattr(self, f"idp_{provider}_issuer_url", "")
        if provider is Provider.SAML:
            # SAML has no client secret. The provider's metadata identifies it, and the keys in the metadata sign its
            # logins.
            return (
                ProviderCredentials(client_id=client_id or "", client_secret=SecretStr(""), issuer_url=issuer)
                if issuer
                else None
            )
        if not client_id or secret is None or issuer is None:
            return None
        return ProviderCredentials(client_id=client_id, client_secret=secret, issuer_url=issuer)


def _check_admin_url(setting: str, url: SecretStr, schemes: tuple[str, str]) -> None:
    """Refuse an address that no client accepts; the message omits the address, because it holds a password."""
    try:
        address = urlsplit(url.get_secret_value())
        is_good = address.scheme in schemes and bool(address.hostname) and (address.port or 1) > 0
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError(
            f"cannot start: setting {setting}: it must be {schemes[0]}://user:password@host:port, or {schemes[1]}://"
            " for TLS; see docs/settings.md"
        )
