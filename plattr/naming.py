"""Every name that Plattr gives to anything, and the limit of each; no other module builds names.

Plattr never truncates a name: two applications whose names agree in the first 63 bytes would share a schema.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NewType

from plattr.errors import InvalidSpec, NameTooLong
from plattr.objects import OBJECT_NAME_PATTERN, FrozenModel, Kind, ObjectReference
from plattr.spec import HOST_LIMIT, ApplicationSpec, Environment, PreviewSpec

SchemaName = NewType("SchemaName", str)
RoleName = NewType("RoleName", str)
BucketName = NewType("BucketName", str)
RealmName = NewType("RealmName", str)
HostName = NewType("HostName", str)

# 63: PostgreSQL's NAMEDATALEN - 1, a DNS label's length, and the longest bucket name.
# https://www.postgresql.org/docs/current/sql-syntax-lexical.html, https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
NAME_LIMIT = 63

# Where Plattr keeps its own records in the database. No application's schema can have this name: an application's names
# have a prefix of `_PREFIXES`, or end in `_pr` and a number.
PRIVATE_SCHEMA = SchemaName("plattr_private")

# Keycloak's own realm, and the clients that Keycloak creates in every realm.
# https://www.keycloak.org/docs/latest/server_admin/#the-master-realm
RESERVED_REALM = "master"
RESERVED_CLIENTS = frozenset(
    {"account", "account-console", "admin-cli", "broker", "realm-management", "security-admin-console"}
)

# The name of the quota, the limits and the network policy in a preview's namespace, which holds one of each.
PREVIEW_LIMITS = "plattr-preview"

_PREFIXES = {
    Environment.PRODUCTION: "prod",
    Environment.STAGING: "staging",
    Environment.UAT: "uat",
    Environment.PREVIEW: "preview",
}


def tls_secret_of(stem: str) -> str:
    """Return the name of the Secret that cert-manager fills for the Ingress of this name."""
    return f"{stem}-tls"


class Names(FrozenModel):
    """Every name of one Application or preview.

    `stem` is the workload's name. `sql_stem` begins the SQL roles and is the prefix of indices and the user of Redis.
    """

    namespace: str
    stem: str
    sql_stem: str
    schema_name: SchemaName
    bucket_prefix: str
    realm: RealmName
    client_id: str
    host: HostName

    @property
    def api_ingress(self) -> str:
        """Return the name of the Ingress that leads to PostgREST."""
        return f"{self.stem}-api"

    @property
    def tls_secret(self) -> str:
        """Return the name of the Secret that cert-manager fills."""
        return tls_secret_of(self.stem)

    @property
    def database_secret(self) -> str:
        """Return the name of the Secret that holds the password; it is stored nowhere else."""
        return f"{self.stem}-db"

    @property
    def storage_keys(self) -> str:
        """Return the name of the Secret with the application's access key, where the S3 server has accounts."""
        return f"{self.stem}-storage-keys"

    def config_map(self, feature: str) -> str:
        """Return the name of a feature's ConfigMap."""
        return f"{self.stem}-{feature}"

    @property
    def redis_secret(self) -> str:
        """Return the name of the Secret with the password of the application's user of Redis."""
        return f"{self.stem}-redis"

    @property
    def redis_user(self) -> str:
        """Return the user of Redis that the application logs in as."""
        return self.sql_stem

    @property
    def redis_prefix(self) -> str:
        """Return what the application's keys and channels in Redis begin with."""
        return redis_prefix(self.redis_user)

    @property
    def user_env(self) -> str:
        """Return the name of the Secret or ConfigMap that `plattr env set` writes."""
        return f"{self.stem}-env"

    @property
    def app_role(self) -> RoleName:
        """Return the role the application logs in as."""
        return roles_of(self.sql_stem)[0]

    @property
    def anon_role(self) -> RoleName:
        """Return the role that PostgREST uses for requests without a token."""
        return roles_of(self.sql_stem)[1]

    @property
    def search_prefix(self) -> str:
        """Return the prefix of the application's OpenSearch indices."""
        return self.sql_stem

    @property
    def url(self) -> str:
        """Return where the application is served."""
        return f"https://{self.host}"

    def bucket(self, name: str) -> BucketName:
        """Return the S3 name of one of the spec's buckets."""
        return BucketName(f"{self.bucket_prefix}{name}")


def application_names(
    reference: ObjectReference, spec: ApplicationSpec, *, base_domain: str, client_suffix: str = ""
) -> Names:
    """Return the names of an Application.

    Raises:
        InvalidSpec: the other names cannot be built from the object's own name.
        NameTooLong: a derived name exceeds its limit.
    """
    check_object_name(reference.name)
    prefix = _PREFIXES[spec.environment]
    name = reference.name
    sql_name = _sql(name)
    is_production = spec.environment is Environment.PRODUCTION
    default_host = f"{name}.{base_domain}" if is_production else f"{name}.{spec.environment}.{base_domain}"
    names = Names(
        namespace=reference.namespace,
        stem=name,
        sql_stem=f"{prefix}_{sql_name}",
        schema_name=SchemaName(f"{prefix}_{spec.database.schema_name or sql_name}"),
        bucket_prefix=_bucket_prefix(prefix, name),
        realm=_realm(name, spec.environment),
        client_id=f"{name}{client_suffix}",
        host=HostName(spec.domain or default_host),
    )
    if spec.auth.enabled:
        _check_reserved(names.realm, name)
    return _checked(names, spec, "metadata.name")


def preview_names(preview: PreviewSpec, parent: ApplicationSpec, *, base_domain: str) -> Names:
    """Return the names of a preview; they depend on its spec alone, not on whether the parent exists.

    Raises:
        InvalidSpec: the other names cannot be built from the parent's name.
        NameTooLong: a derived name exceeds its limit.
    """
    names = _preview_names(preview, base_domain=base_domain)
    # Only these names have none of our prefixes.
    if parent.database.enabled and names.sql_stem.startswith("pg_"):
        raise InvalidSpec(
            "spec.applicationRef",
            f"role {names.sql_stem!r} would begin with pg_, which PostgreSQL keeps for itself;"
            " an Application with a database whose name begins with pg- has no previews",
        )
    return _checked(names, parent, "spec.applicationRef")


def _preview_names(preview: PreviewSpec, *, base_domain: str) -> Names:
    application, number = preview.application_ref, preview.pull_request
    check_object_name(application, "spec.applicationRef")
    stem = _preview_stem(application, number)
    return Names(
        namespace=_preview_namespace(application, number),
        stem=stem,
        sql_stem=_sql(stem),
        schema_name=SchemaName(_sql(stem)),
        bucket_prefix=_bucket_prefix(_PREFIXES[Environment.PREVIEW], stem),
        realm=RealmName(stem),
        client_id=stem,
        host=HostName(f"pr-{number}.{application}.preview.{base_domain}"),
    )


def deployment_place(reference: ObjectReference, spec: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return namespace and name of an object's Deployment, from its spec as the API server holds it.

    None: a preview's spec does not name an Application or a pull request.
    """
    if reference.kind is Kind.APPLICATION:
        return reference.namespace, reference.name
    application, number = spec.get("applicationRef"), spec.get("pullRequest")
    if not isinstance(application, str) or not isinstance(number, int):
        return None
    return _preview_namespace(application, number), _preview_stem(application, number)


def possible_realms(reference: ObjectReference) -> tuple[RealmName, ...]:
    """Return the realms that an Application of this name can have, one per environment; a preview has none."""
    if reference.kind is not Kind.APPLICATION:
        return ()
    return tuple(_realm(reference.name, environment) for environment in Environment)


def possible_bucket_prefixes(reference: ObjectReference) -> tuple[str, ...]:
    """Return the possible bucket prefixes of an Application of this name, one per environment; a preview has none."""
    if reference.kind is not Kind.APPLICATION:
        return ()
    return tuple(_bucket_prefix(prefix, reference.name) for prefix in _PREFIXES.values())


def preview_families(names: Names, spec: ApplicationSpec) -> frozenset[str]:
    """Return the applications whose previews could have one of these names: `shop-pr42` is a preview of `shop`."""
    families: set[str] = set()
    if spec.auth.enabled:
        families |= _families(names.realm)
    if spec.database.enabled:
        families |= _families(names.schema_name) | _families(names.sql_stem)
    if spec.storage.enabled:
        prefix = _bucket_prefix_of_previews()
        buckets = [names.bucket(bucket.name) for bucket in spec.storage.buckets]
        # Each bucket can be read in several ways: plattr-preview-a-pr1-b-pr2-c.
        families |= {
            rest[: match.start()]
            for rest in (bucket.removeprefix(prefix) for bucket in buckets if bucket.startswith(prefix))
            for match in re.finditer(r"(?<=.)(?=-pr[1-9][0-9]*-.)", rest)
        }
    return frozenset(families)


def check_object_name(name: str, field: str = "metadata.name") -> None:
    """Refuse an object's name that cannot be a label, a Service's name or the beginning of an SQL name.

    Raises:
        InvalidSpec: the name breaks a rule; names the field.
    """
    if len(name) > NAME_LIMIT:
        raise NameTooLong(field, f"{name!r} has {len(name)} bytes; the limit is {NAME_LIMIT}")
    if not re.fullmatch(OBJECT_NAME_PATTERN, name):
        raise InvalidSpec(
            field, f"{name!r} must begin with a letter and hold only lower-case letters, digits and hyphens"
        )


def preview_object_name(application: str, number: int) -> str:
    """Return the name that the command line gives a pull request's PreviewEnvironment; any other name works too."""
    return f"{application}-pr-{number}"


def adoption_id(reference: ObjectReference) -> str:
    """Return the id of the run that adopts resources for an object."""
    return f"adopt/{reference.key}"


def workflow_id(reference: ObjectReference) -> str:
    """Return the id of every run of this object; the common id is the object's lock."""
    kind = "application" if reference.kind is Kind.APPLICATION else "preview"
    return f"{kind}/{reference.namespace}/{reference.name}"


def roles_of(sql_stem: str) -> tuple[RoleName, RoleName]:
    """Return the app role and the anon role that begin with a stem."""
    return RoleName(f"{sql_stem}_app"), RoleName(f"{sql_stem}_anon")


def storage_account(reference: ObjectReference, cluster: str, namespace_uid: str) -> str:
    """Return the access key id of an object's account on an S3 server.

    Such a server records no owner with an account. So the id is a digest of cluster, namespace uid and key: no other
    object, cluster or earlier namespace has it. Otherwise a person who creates a namespace again would get the key to
    the buckets of the earlier one.
    """
    owner = "\n".join((cluster, namespace_uid, reference.key))
    return f"plattr-{sha256(owner.encode()).hexdigest()[:32]}"


def role_arn(template: str, names: Names) -> str:
    """Return the IAM role of the application's ServiceAccount, by `IRSA_ROLE_ARN_TEMPLATE`.

    Namespace and name are the ServiceAccount's, as in the subject of its tokens.
    """
    return template.replace("{namespace}", names.namespace).replace("{name}", names.stem)


def redis_prefix(user: str) -> str:
    """Return how the keys of a Redis user begin; no name holds a colon, so no prefix begins another user's."""
    return f"{user}:"


def bucket_variable(name: str) -> str:
    """Return the environment variable that carries a bucket's S3 name."""
    return f"S3_BUCKET_{name.upper().replace('-', '_')}"


def bucket_size_variable(name: str) -> str:
    """Return the environment variable that carries the maximum size of a bucket's files, in bytes."""
    return f"S3_MAX_FILE_SIZE_{name.upper().replace('-', '_')}"


def _preview_namespace(application: str, number: int) -> str:
    return f"preview-{application}-pr-{number}"


def _preview_stem(application: str, number: int) -> str:
    return f"{application}-pr{number}"


def _bucket_prefix_of_previews() -> str:
    return _bucket_prefix(_PREFIXES[Environment.PREVIEW], "").removesuffix("-")


def _families(name: str) -> set[str]:
    # SQL names have underscores where other names have hyphens. No application's name has an underscore.
    match = re.fullmatch(r"(.+)-pr[1-9][0-9]*", name.replace("_", "-"))
    return {match[1]} if match else set()


def _realm(name: str, environment: Environment) -> RealmName:
    return RealmName(name if environment is Environment.PRODUCTION else f"{_PREFIXES[environment]}-{name}")


def _bucket_prefix(environment: str, stem: str) -> str:
    return f"plattr-{environment}-{stem}-"


def _sql(name: str) -> str:
    return name.replace("-", "_")


def _check_reserved(realm: RealmName, name: str) -> None:
    if realm == RESERVED_REALM:
        raise InvalidSpec("metadata.name", f"realm {realm!r} is Keycloak's own; choose another name")
    # Refused whatever suffix the platform gives its clients: a valid name must be valid on every platform.
    if name in RESERVED_CLIENTS:
        raise InvalidSpec("metadata.name", f"client {name!r} is in every realm of Keycloak; choose another name")


def _checked(names: Names, spec: ApplicationSpec, field_of_name: str) -> Names:
    """Refuse a name that exceeds its limit; only names of features in use count."""
    used: list[tuple[str, str, int]] = [
        (field_of_name, names.namespace, NAME_LIMIT),
        (field_of_name, names.stem, NAME_LIMIT),
        (field_of_name, names.config_map("storage"), NAME_LIMIT),
        ("spec.domain", names.host, HOST_LIMIT),
    ]
    if spec.database.enabled:
        used += [
            ("spec.database.schemaName", names.schema_name, NAME_LIMIT),
            (field_of_name, names.app_role, NAME_LIMIT),
            (field_of_name, names.anon_role, NAME_LIMIT),
        ]
    if spec.storage.enabled:
        used += [
            (f"spec.storage.buckets[{index}].name", names.bucket(bucket.name), NAME_LIMIT)
            for index, bucket in enumerate(spec.storage.buckets)
        ]
    for field, name, limit in used:
        # len counts characters. The patterns allow only ASCII, so each character is one byte.
        if len(name) > limit:
            raise NameTooLong(field, f"the derived name {name!r} has {len(name)} bytes; the limit is {limit}")
    for label in names.host.split("."):
        if len(label) > NAME_LIMIT:
            raise NameTooLong("spec.domain", f"the label {label!r} of host {names.host!r} exceeds {NAME_LIMIT} bytes")
    return names
