"""docs/installing.md is true: its statements run, and its rights are those that the code needs."""

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest

from clients import s3_errors, temporal
from clients.postgres_transaction import GRANT_OPTIONS_VERSION
from clients.s3_errors import Operation
from plattr.fleet import REFERENCES_SCHEDULE_ID, SCHEDULE_ID
from stack.endpoints import Endpoints
from stack.platform import Platform
from tests.deploy.helm import EXAMPLES, ROOT
from tests.deploy.installing import DOCUMENT, block
from worker.__main__ import ACTIVITY_SLOTS, WORKFLOW_TASK_SLOTS


def test_the_s3_policy_allows_what_the_calls_need_and_no_more() -> None:
    statements = json.loads(block("json", '"arn:aws:s3:::plattr-*"'))["Statement"]
    allowed = {action for statement in statements for action in statement["Action"]}

    operations = [value for value in vars(s3_errors).values() if isinstance(value, Operation)]
    assert allowed == {right for operation in operations for right in operation.right.split(" and ")}


def test_the_s3_policy_writes_to_plattrs_buckets_only() -> None:
    statements = json.loads(block("json", '"arn:aws:s3:::plattr-*"'))["Statement"]

    unbounded = [action for each in statements if each["Resource"] == "*" for action in each["Action"]]
    bounded = {each["Resource"] for each in statements} - {"*"}
    assert not [action for action in unbounded if not re.search(r":(List|Get)", action)]
    assert bounded == {"arn:aws:s3:::plattr-*", "arn:aws:s3:::plattr-*/*"}


async def test_the_documented_namespace_knows_every_search_attribute(
    platform: Platform, documented_namespace: str
) -> None:
    environment = {
        "TEMPORAL_ADDRESS": platform.endpoints.temporal_address,
        "TEMPORAL_NAMESPACE": documented_namespace,
    }
    client = await temporal.connect_temporal(lazy=False, environment=environment)

    answer = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=documented_namespace)
    )

    keys = (
        temporal.NAMESPACE_ATTRIBUTE,
        temporal.NAME_ATTRIBUTE,
        temporal.ENVIRONMENT_ATTRIBUTE,
        temporal.PHASE_ATTRIBUTE,
    )
    wanted = {key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in keys}
    assert dict(answer.custom_attributes) == wanted


@pytest.fixture
def documented_admin(database_endpoints: Endpoints) -> Iterator[str]:
    """The login of an admin made by the document's own statements, in a database of its own."""
    suffix = secrets.token_hex(4)
    database, admin, group = f"doc_{suffix}", f"doc_admin_{suffix}", f"doc_apps_{suffix}"
    text = re.sub(r"--.*", "", block("sql", "CREATEROLE"))
    for name, replacement in (("provisioner", admin), ("plattr_apps", group), ("plattr", database)):
        text = re.sub(rf"\b{name}\b", replacement, text)
    first, rest = text.split(f"\\connect {database}")
    superuser = database_endpoints.database_superuser_url
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute(first.encode())
        with psycopg.connect(make_conninfo(superuser, dbname=database), autocommit=True) as inside:
            is_old = inside.info.server_version < GRANT_OPTIONS_VERSION
            for statement in rest.split(";")[:-1]:
                # The document says to leave it out there.
                if not (is_old and "createrole_self_grant" in statement):
                    inside.execute(statement.encode())

        yield make_conninfo(superuser, dbname=database, user=admin, password="change-me")

        connection.execute(SQL("DROP DATABASE {} (FORCE)").format(Identifier(database)))
        made = connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE %s", [f"doc_%{suffix}"])
        for (role,) in made.fetchall():
            # It may connect to the databases that all share.
            connection.execute(SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(Identifier(role)))


@pytest.mark.every_postgres
def test_the_documented_admin_can_do_all_that_the_database_step_does(documented_admin: str) -> None:
    suffix = documented_admin.partition("dbname=doc_")[2].split()[0]
    app, group = f"doc_app_{suffix}", f"doc_apps_{suffix}"
    names = {"app": Identifier(app), "group": Identifier(group), "schema": Identifier(app), "word": Literal("w0rd")}

    with psycopg.connect(documented_admin, autocommit=True) as connection:
        # From 16 on the setting does it; the step itself does not rely on that.
        is_old = connection.info.server_version < GRANT_OPTIONS_VERSION
        for statement in (
            "CREATE ROLE {app} LOGIN PASSWORD {word}",
            *(["GRANT {app} TO CURRENT_USER WITH ADMIN OPTION"] if is_old else []),
            "GRANT {group} TO {app}",
            "CREATE SCHEMA {schema} AUTHORIZATION {app}",
            "ALTER DEFAULT PRIVILEGES FOR ROLE {app} IN SCHEMA {schema} GRANT SELECT ON TABLES TO {group}",
        ):
            connection.execute(SQL(statement).format(**names))
        with psycopg.connect(make_conninfo(documented_admin, user=app, password="w0rd")) as application:
            application.execute(SQL("CREATE TABLE {schema}.t (i int)").format(**names))
        for statement in (
            "DROP SCHEMA {schema} CASCADE",
            "DROP OWNED BY {app}",
            "DROP ROLE {app}",
        ):
            connection.execute(SQL(statement).format(**names))
        is_superuser = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()

    assert is_superuser == (False,)


def test_the_slots_are_those_of_the_worker() -> None:
    text = (ROOT / "docs" / "scaling.md").read_text()
    documented = dict(
        re.findall(r"^- \*\*(Activity slots|Workflow task slots)\*\*: (\d+) a worker", text, re.MULTILINE)
    )

    assert documented == {"Activity slots": str(ACTIVITY_SLOTS), "Workflow task slots": str(WORKFLOW_TASK_SLOTS)}


def test_to_remove_everything_is_to_remove_the_schedules() -> None:
    lines = block("sh", "kubectl delete crd").splitlines()

    schedules = {
        line.split()[line.split().index("--schedule-id") + 1]: number
        for number, line in enumerate(lines)
        if line.startswith("temporal schedule delete")
    }
    (uninstall,) = [number for number, line in enumerate(lines) if line.startswith("helm uninstall")]
    assert schedules.keys() == {SCHEDULE_ID, REFERENCES_SCHEDULE_ID}
    # After the workers, which make them again within half a minute.
    assert min(schedules.values()) > uninstall


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("process", ["worker", "watcher"])
def test_an_example_lets_out_what_its_settings_name(path: Path, process: str) -> None:
    values = yaml.safe_load(path.read_text())
    names = ["TEMPORAL_ADDRESS", "OTEL_EXPORTER_OTLP_ENDPOINT"]
    if process == "worker":
        names += ["KEYCLOAK_URL", "AWS_ENDPOINT_URL"]
    # https:// by itself is 443.
    wanted = {
        int((re.findall(r":(\d+)$", values["settings"][name]) or [443])[0])
        for name in names
        if name in values["settings"]
    }

    rules = values.get("networkPolicy", {}).get("egress", {}).get(process, [])

    # Without rules nothing is closed.
    assert not rules or wanted <= {port["port"] for rule in rules for port in rule["ports"]}


def test_every_page_that_is_linked_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", DOCUMENT)

    assert links
    assert not [link for link in links if not (ROOT / "docs" / link).exists()]


def test_every_file_that_is_named_exists() -> None:
    named = re.findall(r"(?:deploy|tests)/[\w./-]+\w", DOCUMENT)

    assert not [name for name in named if not (ROOT / name).exists()]
