"""Objects of which the API server and the models have to say the same."""

from dataclasses import dataclass, field
from typing import Any

from plattr.objects import API_VERSION, CustomObject, Kind
from plattr.target import Target, application_target, preview_target

Spec = dict[str, Any]

BASE_DOMAIN = "platform.example.com"

APPLICATION: Spec = {"repository": "https://git.example.com/a", "framework": "nextjs", "environment": "production"}
PREVIEW: Spec = {"applicationRef": "my-app", "pullRequest": 42, "branch": "feature"}

DATABASE: Spec = {"database": {"enabled": True}}
AUTH: Spec = {"auth": {"enabled": True}}


@dataclass(frozen=True)
class Case:
    """One object; `without` takes fields away from the valid one, `spec` adds or replaces."""

    id: str
    spec: Spec = field(default_factory=dict)
    kind: Kind = Kind.APPLICATION
    name: str = "my-app"
    without: str = ""
    says: str = ""
    """What the API server's refusal has to name."""

    @property
    def whole_spec(self) -> Spec:
        """Return the spec as a person would have written it."""
        valid = APPLICATION if self.kind is Kind.APPLICATION else PREVIEW
        return {name: value for name, value in {**valid, **self.spec}.items() if name != self.without}

    @property
    def body(self) -> dict[str, Any]:
        """Return the object as it is sent to the API server."""
        metadata = {"name": self.name}
        return {"apiVersion": API_VERSION, "kind": self.kind.value, "metadata": metadata, "spec": self.whole_spec}


def object_of(case: Case, spec: Spec | None = None) -> CustomObject:
    """Return the object as the API server would hold it, in namespace `team`."""
    metadata = {"namespace": "team", "name": case.name, "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return CustomObject.from_api(case.kind, {"metadata": metadata, "spec": case.whole_spec if spec is None else spec})


def target_of(case: Case, spec: Spec | None = None, *, parent: Spec = APPLICATION) -> Target:
    """Return the models' verdict: a target, or InvalidSpec; `spec` instead of the case's own."""
    custom_object = object_of(case, spec)
    if case.kind is Kind.APPLICATION:
        return application_target(custom_object, base_domain=BASE_DOMAIN)
    return preview_target(custom_object, parent, base_domain=BASE_DOMAIN)


def _environment(environment: str, *features: Spec) -> Spec:
    spec = {"environment": environment}
    for feature in features:
        spec |= feature
    return spec


def _variable(name: Any, **more: Any) -> Spec:
    return {"envVars": [{"name": name, **(more or {"value": "x"})}]}


def _buckets(*names: str) -> Spec:
    return {"storage": {"enabled": True, "buckets": [{"name": name} for name in names]}}


def _preview(id_: str, says: str = "", name: str = "my-app-pr-42", **spec: Any) -> Case:
    return Case(id_, spec, Kind.PREVIEW, name, says=says)


def _schema(name: str, *, enabled: bool = True) -> Spec:
    return {"database": {"enabled": enabled, "schemaName": name}}


def _size(size: str) -> Spec:
    return {"storage": {"enabled": True, "buckets": [{"name": "a", "maxFileSize": size}]}}


LABEL = "a" * 63
# One of each name that Plattr injects (docs/api.md).
INJECTED = [
    "DATABASE_URL",
    "DB_HOST",
    "DB_PORT",
    "DB_NAME",
    "DB_USER",
    "DB_PASSWORD",
    "DB_SCHEMA",
    "S3_ENDPOINT",
    "S3_REGION",
    "S3_BUCKET_UPLOADS",
    "S3_BUCKET_",
    "S3_MAX_FILE_SIZE_UPLOADS",
    "AUTH_ISSUER_URL",
    "AUTH_CLIENT_ID",
    "REDIS_URL",
    "REDIS_HOST",
    "REDIS_PORT",
    "OPENSEARCH_URL",
    "OPENSEARCH_INDEX_PREFIX",
    "POSTGREST_URL",
    "POSTGREST_INTERNAL_URL",
    "PGRST_DB_URI",
    "PGRST_",
    "PORT",
]

GOOD = [
    Case("least"),
    Case(
        "everything",
        {
            "branch": "release",
            "imageRef": "registry.example.com:5000/team/my-app@sha256:" + "0" * 64,
            "domain": "shop.example.com",
            "envVars": [
                {"name": "LOG_LEVEL", "value": "debug"},
                {"name": "EMPTY", "value": ""},
                {"name": "_TOKEN9", "secretKeyRef": {"name": "my.vendor", "key": "api_key.v-1"}},
                {"name": "OWN", "secretKeyRef": {"name": "my-app-db", "key": "DB_HOST"}},
                {"name": "OWN_CACHE", "secretKeyRef": {"name": "my-app-redis", "key": "REDIS_URL"}},
            ],
            "cors": {"origins": ["*", "https://*.example.com", "http://localhost:3000"]},
            "database": {"enabled": True, "schemaName": "shop_2_", "migrations": {"engine": "knex"}},
            "storage": {
                "enabled": True,
                "buckets": [{"name": "a", "public": True, "maxFileSize": "10Mi"}, {"name": "b"}],
            },
            "auth": {"enabled": True, "providers": ["google", "github", "saml", "oidc"]},
            "redis": {"enabled": True},
            "search": {"enabled": True},
            "scaling": {"min": 3, "max": 3, "targetCPU": 100},
            "healthCheck": {"path": "/api/health;v=1/%20"},
            "deletionPolicy": "Retain",
        },
    ),
    # The rules must stay affordable for the API server on the largest object, too.
    Case(
        "largest",
        {
            "envVars": [
                {"name": f"{'A' * 250}_{n}", "secretKeyRef": {"name": "s" * 250, "key": "k"}} for n in range(500)
            ],
            "cors": {"origins": [f"https://{n}.{'a' * 200}" for n in range(50)]},
            **_buckets(*(f"bucket-{n}" for n in range(50))),
        },
    ),
    Case("values-as-large-as-may-be", {"envVars": [{"name": f"A{n}", "value": "\u20ac" * 32768} for n in range(4)]}),
    *(Case(f"environment-{value}", _environment(value)) for value in ("staging", "uat", "production", "preview")),
    *(Case(f"framework-{value}", {"framework": value}) for value in ("nextjs", "rails", "static", "docker")),
    Case("empty-blocks", {"cors": {}, "scaling": {}, "healthCheck": {}, "storage": {"enabled": True}}),
    Case("scaling-of-which-only-max", {"scaling": {"max": 2}}),
    Case("domain-of-the-longest-labels", {"domain": f"{LABEL}.{LABEL}.com"}),
    Case("domain-of-248", {"domain": ".".join([LABEL, LABEL, LABEL, "a" * 56])}),
    Case("health-check-root", {"healthCheck": {"path": "/"}}),
    Case("name-of-one-letter", name="a"),
    Case("name-of-55", name="a" * 55),
    Case("name-of-53-with-database-in-production", DATABASE, name="a" * 53),
    Case("name-of-54-with-database-in-uat", _environment("uat", DATABASE), name="a" * 54),
    Case("name-of-50-with-database-in-staging", _environment("staging", DATABASE), name="a" * 50),
    Case("name-of-50-with-database-in-preview", _environment("preview", DATABASE), name="a" * 50),
    Case(
        "name-of-55-with-unused-buckets",
        {"storage": {"enabled": False, "buckets": [{"name": "a" * 50}]}},
        name="a" * 55,
    ),
    Case("bucket-and-name-of-50-in-production", _buckets("b" * 44)),
    Case("bucket-and-name-of-51-in-uat", _environment("uat", _buckets("b" * 45))),
    Case("bucket-and-name-of-47-in-staging", _environment("staging", _buckets("b" * 41))),
    Case("bucket-named-almost-like-a-reserved-one", _buckets("ans", "can", "x-s3", "s3aliases")),
    Case("schema-of-58-in-production", _schema("s" * 58)),
    Case("schema-of-59-in-uat", _environment("uat", _schema("s" * 59))),
    Case("schema-of-55-in-staging", _environment("staging", _schema("s" * 55))),
    Case("schema-of-63-unused", _schema("s" * 63, enabled=False)),
    Case("schema-named-almost-like-postgres", _schema("pgdata")),
    Case("master-without-auth", name="master"),
    Case("master-with-auth-in-staging", _environment("staging", AUTH), name="master"),
    Case("broker-without-auth", name="broker"),
    *(
        Case(f"variable-{name}", _variable(name))
        for name in (
            "LD",
            "PATHS",
            "MY_PATH",
            "path",
            "NODE_OPTIONS_",
            "PYTHO",
            "DB_HOSTS",
            "S3_BUCKET",
            "PGRST",
            "PORTS",
        )
    ),
    _preview("preview-least"),
    _preview("preview-of-the-longest-names", name="p" * 63, applicationRef="a" * 41, pullRequest=2147483647),
    _preview("preview-of-pull-request-1", pullRequest=1, applicationRef="a" * 50, imageRef="x"),
    *(_preview(f"ttl-{ttl}", ttl=ttl) for ttl in ("1m", "5m", "43200m", "1h", "72h", "720h", "1d", "30d")),
]

BAD = [
    Case("no-repository", without="repository", says="repository"),
    Case("no-framework", without="framework", says="framework"),
    Case("no-environment", without="environment", says="environment"),
    Case("empty-repository", {"repository": ""}, says="repository"),
    Case("unknown-framework", {"framework": "php"}, says="framework"),
    Case("unknown-environment", {"environment": "prod"}, says="environment"),
    Case("environment-in-capitals", {"environment": "Production"}, says="environment"),
    Case("unknown-field", {"replicas": 3}, says="replicas"),
    Case("unknown-field-in-a-block", {"database": {"enabled": True, "size": 3}}, says="size"),
    Case("block-without-enabled", {"database": {}}, says="enabled"),
    Case("enabled-as-text", {"redis": {"enabled": "true"}}, says="enabled"),
    Case("enabled-as-number", {"redis": {"enabled": 1}}, says="enabled"),
    Case("block-as-boolean", {"search": True}, says="search"),
    Case("empty-image", {"imageRef": ""}, says="imageRef"),
    Case("image-with-newline", {"imageRef": "app:1\n"}, says="imageRef"),
    Case("image-with-space", {"imageRef": "app 1"}, says="imageRef"),
    *(
        Case(f"domain-{id_}", {"domain": domain}, says="domain")
        for id_, domain in {
            "empty": "",
            "of-one-label": "localhost",
            "with-capitals": "Shop.example.com",
            "with-scheme": "https://shop.example.com",
            "with-port": "shop.example.com:80",
            "with-path": "shop.example.com/a",
            "with-trailing-dot": "shop.example.com.",
            "with-trailing-newline": "shop.example.com\n",
            "with-underscore": "a_b.example.com",
            "with-wildcard": "*.example.com",
            "with-label-of-64": f"{LABEL}a.com",
            "with-leading-hyphen": "-a.example.com",
            "that-is-an-address": "10.0.0.1",
            "of-249": ".".join([LABEL, LABEL, LABEL, "a" * 57]),
            "with-umlaut": "b\u00fccher.example.com",
        }.items()
    ),
    *(
        Case(f"variable-{name}", _variable(name), says="would load code into the container")
        for name in (
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_",
            "PATH",
            "NODE_OPTIONS",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PYTHON",
        )
    ),
    *(Case(f"variable-{name}", _variable(name), says="set by Plattr itself") for name in INJECTED),
    Case("variable-with-hyphen", _variable("A-B"), says="name"),
    Case("variable-that-begins-with-a-digit", _variable("1A"), says="name"),
    Case("variable-with-newline", _variable("A\n"), says="name"),
    Case("variable-forbidden-but-for-a-newline", _variable("PATH\n"), says="name"),
    Case("variable-without-name", {"envVars": [{"value": "x"}]}, says="name"),
    Case("variable-with-empty-name", _variable(""), says="name"),
    Case("variable-of-257", _variable("A" * 257), says="name"),
    Case("variable-with-neither", {"envVars": [{"name": "A"}]}, says="either value or secretKeyRef"),
    Case(
        "variable-with-both",
        _variable("A", value="x", secretKeyRef={"name": "s", "key": "k"}),
        says="either value or secretKeyRef",
    ),
    Case("variable-of-a-number", _variable("A", value=1), says="value"),
    Case("variable-twice", {"envVars": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, says="Duplicate"),
    Case("too-many-variables", {"envVars": [{"name": f"A{n}", "value": ""} for n in range(501)]}, says="envVars"),
    Case(
        "values-too-large-together",
        {"envVars": [{"name": f"A{n}", "value": "\u20ac" * 32768} for n in range(4)] + [{"name": "B", "value": "x"}]},
        says="envVars values",
    ),
    Case("secret-without-key", _variable("A", secretKeyRef={"name": "s"}), says="key"),
    Case("secret-with-empty-key", _variable("A", secretKeyRef={"name": "s", "key": ""}), says="key"),
    Case("secret-with-path-as-key", _variable("A", secretKeyRef={"name": "s", "key": "a/b"}), says="key"),
    Case("secret-of-no-name", _variable("A", secretKeyRef={"name": "S_1", "key": "k"}), says="name"),
    Case(
        "database-secret-of-another",
        _variable("A", secretKeyRef={"name": "other-db", "key": "DB_PASSWORD"}),
        says="another application's",
    ),
    Case(
        "redis-secret-of-another",
        _variable("A", secretKeyRef={"name": "other-redis", "key": "REDIS_URL"}),
        says="another application's",
    ),
    Case("origin-without-scheme", {"cors": {"origins": ["example.com"]}}, says="origins"),
    Case("origin-with-path", {"cors": {"origins": ["https://example.com/"]}}, says="origins"),
    Case("origin-with-newline", {"cors": {"origins": ["https://example.com\n"]}}, says="origins"),
    Case("origin-with-foreign-space", {"cors": {"origins": ["https://a\u00a0b"]}}, says="origins"),
    Case("too-many-origins", {"cors": {"origins": ["*"] * 51}}, says="origins"),
    *(
        Case(f"schema-{id_}", _schema(schema), says="schemaName")
        for id_, schema in {
            "empty": "",
            "with-hyphen": "my-app",
            "with-capitals": "MyApp",
            "that-begins-with-a-digit": "1app",
            "that-begins-with-an-underscore": "_app",
            "with-quote": 'a"; drop schema public; --',
            "with-trailing-newline": "app\n",
            "of-postgres": "pg_app",
            "of-64": "s" * 64,
            "of-59-in-production": "s" * 59,
        }.items()
    ),
    Case("schema-of-60-in-uat", _environment("uat", _schema("s" * 60)), says="59 in uat"),
    Case("schema-of-56-in-staging", _environment("staging", _schema("s" * 56)), says="55"),
    Case("migrations-without-engine", {"database": {"enabled": True, "migrations": {}}}, says="engine"),
    Case(
        "migrations-of-unknown-engine",
        {"database": {"enabled": True, "migrations": {"engine": "flyway"}}},
        says="engine",
    ),
    Case("bucket-twice", _buckets("a", "a"), says="Duplicate"),
    Case("bucket-with-capitals", _buckets("Uploads"), says="name"),
    Case("bucket-with-dot", _buckets("a.b"), says="name"),
    Case("bucket-with-newline", _buckets("a\n"), says="name"),
    Case("bucket-with-trailing-hyphen", _buckets("a-"), says="name"),
    Case("bucket-with-empty-name", _buckets(""), says="name"),
    *(
        Case(f"bucket-{name}", _buckets(name), says="AWS keeps for itself")
        for name in ("an", "x-an", "s3alias", "x-s3alias", "x--ol-s3", "x--x-s3", "x--table-s3")
    ),
    Case("bucket-and-name-of-51-in-production", _buckets("b" * 45), says="50 bytes in production"),
    Case("bucket-and-name-of-52-in-uat", _environment("uat", _buckets("b" * 46)), says="51 in uat"),
    Case("bucket-and-name-of-48-in-staging", _environment("staging", _buckets("b" * 42)), says="47 in staging"),
    Case("too-many-buckets", _buckets(*(f"b{n}" for n in range(51))), says="buckets"),
    Case("bucket-size-without-number", _size("Mi"), says="maxFileSize"),
    Case("bucket-size-zero", _size("0"), says="maxFileSize"),
    Case("provider-unknown", {"auth": {"enabled": True, "providers": ["facebook"]}}, says="providers"),
    Case("provider-twice", {"auth": {"enabled": True, "providers": ["google", "google"]}}, says="Duplicate"),
    Case("scaling-upside-down", {"scaling": {"min": 3, "max": 2}}, says="less than or equal to scaling.max"),
    Case("scaling-above-the-default", {"scaling": {"min": 21}}, says="less than or equal to scaling.max"),
    Case("scaling-to-zero", {"scaling": {"min": 0}}, says="min"),
    Case("scaling-beyond-bounds", {"scaling": {"max": 1001}}, says="max"),
    Case("scaling-at-101-percent", {"scaling": {"targetCPU": 101}}, says="targetCPU"),
    Case("scaling-as-text", {"scaling": {"min": "2"}}, says="min"),
    Case("scaling-of-a-fraction", {"scaling": {"min": 1.5}}, says="min"),
    Case("scaling-under-the-python-name", {"scaling": {"target_cpu": 50}}, says="target_cpu"),
    Case("health-check-without-slash", {"healthCheck": {"path": "healthz"}}, says="path"),
    Case("health-check-with-query", {"healthCheck": {"path": "/h?a=b"}}, says="path"),
    Case("health-check-with-newline", {"healthCheck": {"path": "/h\n"}}, says="path"),
    Case("deletion-policy-unknown", {"deletionPolicy": "Orphan"}, says="deletionPolicy"),
    Case("name-of-56", name="a" * 56, says="at most 55"),
    Case("name-of-64", name="a" * 64, says="metadata.name"),
    Case("name-that-begins-with-a-digit", name="1app", says="begin with a letter"),
    Case("name-with-dot", name="my.app", says="begin with a letter"),
    Case("name-of-54-with-database-in-production", DATABASE, name="a" * 54, says="53 in production"),
    Case("name-of-55-with-database-in-uat", _environment("uat", DATABASE), name="a" * 55, says="54 in uat"),
    Case("name-of-51-with-database-in-staging", _environment("staging", DATABASE), name="a" * 51, says="50 in staging"),
    Case("name-of-51-with-database-in-preview", _environment("preview", DATABASE), name="a" * 51, says="50 in staging"),
    Case("master-with-auth-in-production", AUTH, name="master", says="Keycloak"),
    *(
        Case(f"{name}-with-auth", _environment("staging", AUTH), name=name, says="Keycloak")
        for name in ("account", "account-console", "admin-cli", "broker", "realm-management", "security-admin-console")
    ),
    *(
        Case(f"preview-without-{name}", kind=Kind.PREVIEW, without=name, says=name)
        for name in ("applicationRef", "pullRequest", "branch")
    ),
    _preview("pull-request-0", "pullRequest", pullRequest=0),
    _preview("pull-request-as-text", "pullRequest", pullRequest="42"),
    _preview("pull-request-too-large", "pullRequest", pullRequest=2147483648),
    _preview("pull-request-true", "pullRequest", pullRequest=True),
    _preview("preview-of-another-namespace", "applicationRef", applicationRef="team/my-app"),
    _preview("preview-of-no-name", "applicationRef", applicationRef=""),
    _preview("preview-of-a-name-with-newline", "applicationRef", applicationRef="my-app\n"),
    _preview("preview-with-empty-branch", "branch", branch=""),
    _preview("preview-with-empty-image", "imageRef", imageRef=""),
    _preview("preview-with-unknown-field", "schemaName", schemaName="x"),
    _preview("preview-of-names-too-long", "at most 51 bytes", applicationRef="a" * 50, pullRequest=42),
    _preview("preview-named-with-64", "metadata.name", name="p" * 64),
    _preview("preview-named-with-dot", "begin with a letter", name="my.app"),
    _preview("preview-named-with-a-digit-first", "begin with a letter", name="42-fix"),
    *(
        _preview(f"ttl-{id_}", "ttl", ttl=ttl)
        for id_, ttl in {
            "zero": "0h",
            "zero-minutes": "0m",
            "31d": "31d",
            "721h": "721h",
            "43201m": "43201m",
            "weeks": "5w",
            "seconds": "60s",
            "empty": "",
            "unit-only": "h",
            "no-unit": "72",
            "fraction": "1.5h",
            "negative": "-1h",
            "leading-zero": "072h",
            "two-units": "1d12h",
            "blank-before": " 72h",
            "newline-after": "72h\n",
            "capitals": "72H",
            "number": 72,
            "of-nine": "99999999h",
            "largest-of-eight": "9999999m",
            "other-digits": "\u0667\u0662h",
        }.items()
    ),
]
