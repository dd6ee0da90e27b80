"""The specs of both custom resources; the CRDs in deploy/crds state the same rules, and a test compares them."""

import json
import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from plattr.errors import InvalidSpec
from plattr.features import is_injected
from plattr.objects import OBJECT_NAME_PATTERN, FrozenModel
from plattr.ttl import DEFAULT_TTL, Ttl, parse_ttl

# Every pattern means the same to Rust (pydantic), to Go (the API server) and to Python. `$` stands only at the very end
# (so Python uses fullmatch). Classes are ASCII only, because Rust's \s means Unicode and Go's does not.

# A host name: labels of at most 63 characters. The last label does not begin with a digit, so a host is never an IP
# address, which an Ingress refuses. https://www.rfc-editor.org/rfc/rfc1123#section-2.1
HOST_PATTERN = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
# 248: a Lease's name has at most 253 bytes, and the claim of a host is the Lease `{host}-host`.
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names
HOST_LIMIT = 248
SCHEMA_PATTERN = r"^[a-z][a-z0-9_]*$"
BUCKET_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
ENV_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
SIZE_PATTERN = r"^[1-9][0-9]*(Ki|Mi|Gi|K|M|G)?$"
# S3 accepts one * in an origin. https://docs.aws.amazon.com/AmazonS3/latest/API/API_CORSRule.html
ORIGIN_PATTERN = r"^(\*|https?://[A-Za-z0-9.*-]+(:[0-9]{1,5})?)$"
# A path of RFC 3986, without query and fragment. https://www.rfc-editor.org/rfc/rfc3986#section-3.3
PATH_PATTERN = r"^/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*$"
IMAGE_PATTERN = r"^[!-~]+$"
# https://kubernetes.io/docs/concepts/configuration/secret/#restriction-names-data
REFERENCE_NAME_PATTERN = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
REFERENCE_KEY_PATTERN = r"^[-._A-Za-z0-9]+$"
# Endings that AWS reserves. A bucket's S3 name ends in a hyphen and the bucket's name in the spec.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
RESERVED_BUCKET_ENDINGS = ("-s3alias", "--ol-s3", "--x-s3", "--table-s3", "-an")

# Names of variables that load code into every process of a container, or reroute such processes.
FORBIDDEN_ENV = re.compile(r"^(LD_.*|PATH|NODE_OPTIONS|PYTHON.*)$")
Spec = TypeVar("Spec", bound="SpecModel")
ImageRef = Annotated[str, StringConstraints(pattern=IMAGE_PATTERN, max_length=1024)]


class SpecModel(FrozenModel):
    """Part of a spec; a field that the CRD does not know is an error."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Framework(StrEnum):
    """How the image was built; decides the default path of the probes."""

    NEXTJS = "nextjs"
    RAILS = "rails"
    STATIC = "static"
    DOCKER = "docker"


# Rails creates /up in every new application. A web server, and Next.js, answer at the root.
# https://guides.rubyonrails.org/7_1_release_notes.html
HEALTH_PATHS = {Framework.DOCKER: "/healthz", Framework.RAILS: "/up", Framework.NEXTJS: "/", Framework.STATIC: "/"}


class Environment(StrEnum):
    """Which of the platform's environments an Application lives in; immutable."""

    STAGING = "staging"
    UAT = "uat"
    PRODUCTION = "production"
    PREVIEW = "preview"


class Provider(StrEnum):
    """Identity providers that the platform can hold credentials for."""

    GOOGLE = "google"
    GITHUB = "github"
    SAML = "saml"
    OIDC = "oidc"


class SecretKeyRef(SpecModel):
    """A key of a Secret in the workload's namespace."""

    name: Annotated[str, StringConstraints(pattern=REFERENCE_NAME_PATTERN, max_length=253)]
    key: Annotated[str, StringConstraints(pattern=REFERENCE_KEY_PATTERN, max_length=253)]


# 128 Ki: half a megabyte at the most. An object may have 1.5 MB, and a Deployment and a preview's status repeat the
# values. Linux passes a process a few megabytes of environment.
ENV_LIMIT = 131072


class EnvVar(SpecModel):
    """One environment variable of the app container: a value, or a key of a Secret."""

    name: Annotated[str, StringConstraints(pattern=ENV_PATTERN, max_length=256)]
    value: str | None = Field(default=None, max_length=32768)
    secret_key_ref: SecretKeyRef | None = None

    @model_validator(mode="after")
    def _is_allowed(self) -> Self:
        if FORBIDDEN_ENV.fullmatch(self.name):
            raise ValueError(
                f"{self.name} would load code into the container; LD_*, PATH, NODE_OPTIONS and PYTHON* are refused"
            )
        if is_injected(self.name):
            raise ValueError(f"{self.name} is set by Plattr itself; choose another name")
        if (self.value is None) == (self.secret_key_ref is None):
            raise ValueError(f"{self.name} needs either value or secretKeyRef, not both and not neither")
        return self


class Cors(SpecModel):
    """The origins from which browsers may call the buckets; by default the application's own."""

    origins: tuple[Annotated[str, StringConstraints(pattern=ORIGIN_PATTERN, max_length=253)], ...] = Field(
        default=(), max_length=50
    )


class Migrations(SpecModel):
    """Where the repository keeps its migrations; the CLI reads this, the reconcilers do not."""

    path: str = Field(default="./migrations", max_length=1024)
    engine: Literal["prisma", "knex", "raw"]


class DatabaseSpec(SpecModel):
    """A PostgreSQL schema with two roles."""

    enabled: bool
    schema_name: Annotated[str, StringConstraints(pattern=SCHEMA_PATTERN, max_length=63)] | None = None
    migrations: Migrations | None = None
    # Whether anon, the role of the public API without a login, may read what the application makes. `none` takes back
    # what Plattr granted, and nothing else.
    anon_access: Literal["read", "none"] = "read"

    @model_validator(mode="after")
    def _is_not_reserved(self) -> Self:
        if self.schema_name is not None and self.schema_name.startswith("pg_"):
            raise ValueError("schemaName must not begin with pg_, which PostgreSQL keeps for itself")
        return self


class BucketSpec(SpecModel):
    """One bucket; public lets anybody read its objects."""

    name: Annotated[str, StringConstraints(pattern=BUCKET_PATTERN, max_length=50)]
    public: bool = False
    max_file_size: Annotated[str, StringConstraints(pattern=SIZE_PATTERN, max_length=20)] | None = None

    @model_validator(mode="after")
    def _is_not_reserved(self) -> Self:
        if f"-{self.name}".endswith(RESERVED_BUCKET_ENDINGS):
            raise ValueError(
                "a bucket's S3 name must not end in -s3alias, --ol-s3, --x-s3, --table-s3 or -an,"
                " which AWS keeps for itself"
            )
        return self


class StorageSpec(SpecModel):
    """The application's buckets."""

    enabled: bool
    # 50: each bucket costs four S3 calls in one activity, and an AWS account has 100 by default.
    buckets: tuple[BucketSpec, ...] = Field(default=(), max_length=50)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [bucket.name for bucket in self.buckets]
        if len(set(names)) != len(names):
            raise ValueError("bucket names must differ")
        return self


class AuthSpec(SpecModel):
    """A Keycloak realm with one public client and the named identity providers."""

    enabled: bool
    providers: tuple[Provider, ...] = Field(default=(), max_length=4)

    @model_validator(mode="after")
    def _providers_differ(self) -> Self:
        if len(set(self.providers)) != len(self.providers):
            raise ValueError("providers must differ")
        return self


class ServiceSpec(SpecModel):
    """A managed service of which the application gets the address only: redis, search."""

    enabled: bool


class ScalingSpec(SpecModel):
    """The bounds and the target of the HorizontalPodAutoscaler."""

    min: int = Field(default=2, ge=1, le=1000)
    max: int = Field(default=20, ge=1, le=1000)
    target_cpu: int = Field(default=70, ge=1, le=100, alias="targetCPU")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min > self.max:
            raise ValueError("scaling.min must be less than or equal to scaling.max")
        return self


class HealthCheck(SpecModel):
    """The path of the probes; not needed where the framework has a default."""

    path: Annotated[str, StringConstraints(pattern=PATH_PATTERN, max_length=1024)] | None = None


class ApplicationSpec(SpecModel):
    """What a developer asks for; docs/api.md describes each field."""

    repository: str = Field(min_length=1, max_length=2048)
    branch: str = Field(default="main", min_length=1, max_length=255)
    framework: Framework
    environment: Environment
    image_ref: ImageRef | None = None
    domain: Annotated[str, StringConstraints(pattern=HOST_PATTERN, max_length=HOST_LIMIT)] | None = None
    env_vars: tuple[EnvVar, ...] = Field(default=(), max_length=500)
    cors: Cors = Cors()
    database: DatabaseSpec = DatabaseSpec(enabled=False)
    storage: StorageSpec = StorageSpec(enabled=False)
    auth: AuthSpec = AuthSpec(enabled=False)
    redis: ServiceSpec = ServiceSpec(enabled=False)
    search: ServiceSpec = ServiceSpec(enabled=False)
    scaling: ScalingSpec = ScalingSpec()
    health_check: HealthCheck = HealthCheck()
    deletion_policy: Literal["Delete", "Retain"] = "Delete"

    @property
    def health_path(self) -> str:
        """Return the path of the probes."""
        return self.health_check.path or HEALTH_PATHS[self.framework]

    @model_validator(mode="after")
    def _env_names_differ(self) -> Self:
        names = [variable.name for variable in self.env_vars]
        if len(set(names)) != len(names):
            raise ValueError("envVars names must differ")
        return self

    @model_validator(mode="after")
    def _env_values_fit(self) -> Self:
        # len counts code points, and so does CEL.
        if sum(len(variable.value or "") for variable in self.env_vars) > ENV_LIMIT:
            raise ValueError(f"envVars values have more than {ENV_LIMIT} characters together")
        return self


class PreviewSpec(SpecModel):
    """What a pull request asks for; docs/api.md describes each field."""

    application_ref: Annotated[str, StringConstraints(pattern=OBJECT_NAME_PATTERN, max_length=63)]
    pull_request: int = Field(ge=1, le=2147483647)
    branch: str = Field(min_length=1, max_length=255)
    image_ref: ImageRef | None = None
    ttl: Ttl = DEFAULT_TTL


def parse_application_spec(spec: dict[str, Any]) -> ApplicationSpec:
    """Validate an Application's spec.

    Raises:
        InvalidSpec: the spec breaks a rule; names the first such rule and its field.
    """
    return _parse(ApplicationSpec, spec)


def parse_preview_spec(spec: dict[str, Any]) -> PreviewSpec:
    """Validate a PreviewEnvironment's spec.

    Raises:
        InvalidSpec: the spec breaks a rule; names the first such rule and its field.
    """
    return _parse(PreviewSpec, spec)


def preview_ttl(spec: dict[str, Any]) -> str:
    """Return the ttl in a preview's spec, even if other fields break a rule: the preview needs an end all the same.

    Raises:
        InvalidSpec: the ttl itself breaks the rule.
    """
    text = spec.get("ttl", DEFAULT_TTL)
    try:
        parse_ttl(str(text))
    except ValueError as error:
        raise InvalidSpec("spec.ttl", str(error)) from None
    return str(text)


def _parse(model: type[Spec], spec: dict[str, Any]) -> Spec:
    try:
        # Strict and from JSON, as the API server reads it: "2" is not a number there, and "yes" is not a boolean.
        # By alias only, because target_cpu is Python's name and not a field of the object.
        return model.model_validate_json(json.dumps(spec), strict=True, by_alias=True, by_name=False)
    except TypeError:
        raise InvalidSpec("spec", "it holds a value that JSON cannot carry; quote it") from None
    except ValidationError as error:
        # Only the field and the rule. The value itself may be a secret in an environment variable.
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise InvalidSpec(field, first["msg"].removeprefix("Value error, ")) from None
