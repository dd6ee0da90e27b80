"""The API server, with the CRDs as they are shipped, and the models give the same verdict of an object."""

import json
import uuid
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from plattr.errors import InvalidSpec
from plattr.objects import GROUP, VERSION, Kind
from stack.platform import Platform
from tests.domain.corpus import BAD, GOOD, Case, target_of

# An API server's reply to an object that breaks a rule, and to one that has unknown fields.
REFUSED = (422, 400)


def message_of(error: ApiException) -> str:
    """Return the API server's own words."""
    assert error.body is not None
    return str(json.loads(error.body)["message"])


class ApiServer:
    """Asks the API server what it would say."""

    def __init__(self, api: client.CustomObjectsApi) -> None:
        self.api = api

    def create(self, case: Case, namespace: str = "default", *, dry_run: str | None = "All") -> dict[str, Any]:
        created = self.api.create_namespaced_custom_object(
            GROUP, VERSION, namespace, case.kind.plural, case.body, dry_run=dry_run, field_validation="Strict"
        )
        return cast("dict[str, Any]", created)

    def refusal(self, case: Case) -> str:
        """Return why it refuses the object; empty when it takes it."""
        try:
            self.create(case)
        except ApiException as error:
            if error.status not in REFUSED:
                raise
            return message_of(error)
        return ""


@pytest.fixture(scope="session")
def api_client(platform: Platform) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(platform.endpoints.kubeconfig_admin)) as api:
        yield api


@pytest.fixture(scope="session")
def api_server(api_client: client.ApiClient) -> ApiServer:
    return ApiServer(client.CustomObjectsApi(api_client))


@pytest.fixture
def namespace(api_client: client.ApiClient) -> Iterator[str]:
    core = client.CoreV1Api(api_client)
    name = f"crds-{uuid.uuid4().hex[:8]}"
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
    yield name
    core.delete_namespace(name)


def _models_refusal(case: Case) -> str:
    try:
        target_of(case)
    except InvalidSpec as error:
        return str(error)
    return ""


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.id)
def test_both_accept_a_good_object_and_read_the_same_from_it(case: Case, api_server: ApiServer) -> None:
    written = target_of(case)

    stored = target_of(case, api_server.create(case)["spec"])

    assert stored == written


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.id)
def test_both_refuse_a_bad_object(case: Case, api_server: ApiServer) -> None:
    verdict_of_models = _models_refusal(case)

    verdict_of_server = api_server.refusal(case)

    assert case.says
    assert case.says in verdict_of_server
    assert verdict_of_models


@pytest.mark.parametrize("ids", [[case.id for case in GOOD], [case.id for case in BAD]], ids=["good", "bad"])
def test_cases_have_names_of_their_own(ids: list[str]) -> None:
    assert len(set(ids)) == len(ids)


# Characters at which flavours of patterns and trimming differ, besides those that are mostly allowed.
TEXT = st.text(
    st.sampled_from("ab-zA9_.:/*@%$ \n\t\x0b\u00a0\u0660\u00e9\U0001f600") | st.characters(codec="utf-8"), max_size=12
)
FIELDS = {
    "domain": lambda text: Case("", {"domain": f"{text}.example.com"}),
    "image": lambda text: Case("", {"imageRef": text}),
    "variable": lambda text: Case("", {"envVars": [{"name": text, "value": "x"}]}),
    "secret": lambda text: Case("", {"envVars": [{"name": "A", "secretKeyRef": {"name": text, "key": "k"}}]}),
    "key": lambda text: Case("", {"envVars": [{"name": "A", "secretKeyRef": {"name": "s", "key": text}}]}),
    "origin": lambda text: Case("", {"cors": {"origins": [f"https://{text}"]}}),
    "schema": lambda text: Case("", {"database": {"enabled": True, "schemaName": f"a{text}"}}),
    "bucket": lambda text: Case("", {"storage": {"enabled": True, "buckets": [{"name": text}]}}),
    "path": lambda text: Case("", {"healthCheck": {"path": f"/{text}"}}),
    "application": lambda text: Case("", {"applicationRef": text}, Kind.PREVIEW),
    "ttl": lambda text: Case("", {"ttl": text}, Kind.PREVIEW),
}


@pytest.mark.parametrize("field", FIELDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT | st.from_regex(r"[0-9]{0,9}[smhdw]\n?", fullmatch=True))
def test_both_say_the_same_of_any_text(field: str, text: str, api_server: ApiServer) -> None:
    case = FIELDS[field](text)

    verdict_of_server = api_server.refusal(case)

    assert bool(verdict_of_server) == bool(_models_refusal(case)), verdict_of_server


@pytest.mark.parametrize(
    ("case", "field", "value", "message"),
    [
        (GOOD[0], "environment", "staging", "environment is immutable"),
        (Case("p", kind=Kind.PREVIEW), "applicationRef", "other", "applicationRef is immutable"),
        (Case("p", kind=Kind.PREVIEW), "pullRequest", 43, "pullRequest is immutable"),
    ],
    ids=["environment", "applicationRef", "pullRequest"],
)
def test_immutable_fields_stay(
    case: Case, field: str, value: str | int, message: str, api_server: ApiServer, namespace: str
) -> None:
    api_server.create(case, namespace, dry_run=None)

    with pytest.raises(ApiException) as refusal:
        api_server.api.patch_namespaced_custom_object(
            GROUP, VERSION, namespace, case.kind.plural, case.name, {"spec": {field: value}},
            _content_type="application/merge-patch+json",
        )  # fmt: skip

    assert refusal.value.status == 422
    assert message in message_of(refusal.value)


@pytest.mark.parametrize(
    ("case", "field", "value"),
    [
        (GOOD[0], "branch", "release"),
        (GOOD[0], "domain", "other.example.com"),
        (GOOD[0], "deletionPolicy", "Retain"),
        (Case("p", kind=Kind.PREVIEW), "ttl", "3d"),
        (Case("p", kind=Kind.PREVIEW), "branch", "other"),
    ],
    ids=["branch", "domain", "deletionPolicy", "ttl", "preview-branch"],
)
def test_other_fields_can_change(case: Case, field: str, value: str, api_server: ApiServer, namespace: str) -> None:
    api_server.create(case, namespace, dry_run=None)

    changed: Any = api_server.api.patch_namespaced_custom_object(
        GROUP, VERSION, namespace, case.kind.plural, case.name, {"spec": {field: value}},
        _content_type="application/merge-patch+json",
    )  # fmt: skip

    assert changed["spec"][field] == value
    assert changed["metadata"]["generation"] == 2


@pytest.mark.parametrize("kind", list(Kind), ids=str)
def test_object_is_pending_before_anybody_looked_at_it(kind: Kind, api_server: ApiServer, namespace: str) -> None:
    created = api_server.create(Case("new", kind=kind), namespace, dry_run=None)

    read: Any = api_server.api.get_namespaced_custom_object(GROUP, VERSION, namespace, kind.plural, "my-app")

    assert read["status"] == {"phase": "Pending", "observedGeneration": 0}
    assert created["metadata"]["generation"] == 1


def test_null_counts_as_absent(api_server: ApiServer) -> None:
    nulls = dict.fromkeys(("branch", "domain", "imageRef", "envVars", "scaling", "database"))

    stored = target_of(GOOD[0], api_server.create(Case("nulls", nulls))["spec"])

    assert stored == target_of(GOOD[0])
