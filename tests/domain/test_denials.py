"""What of a refusal may be quoted."""

import base64
import json

import pytest

from plattr.denials import QUOTE_LIMIT, denial
from plattr.rollout import deployment_trouble

CANARY = "canary-1234"
POLICY = "ValidatingAdmissionPolicy 'costs' with binding 'all' denied request: "
DENIALS = [
    f'deployments.apps "shop" is forbidden: {POLICY}label cost-centre is missing',
    f'namespaces "" is forbidden: {POLICY}label cost-centre is missing',
    'admission webhook "v.example.test" denied the request: label cost-centre is missing',
    'admission webhook "v.example.test" denied the request without explanation',
    'pods "shop-1" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2',
    'pods "shop-1" is forbidden: violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)',
    'pods "shop-1" is forbidden: [maximum cpu usage per Container is 200m, but limit is 1]',
]
ECHOES = [
    f'Deployment.apps "shop" is invalid: spec.env[0].value: Invalid value: "{CANARY}": too long',
    f'Deployment.apps "shop" is invalid: a: Invalid value: "{CANARY} is forbidden: {POLICY}x": too long',
    f'Secret in version "v1" cannot be handled as a Secret: json: {CANARY}',
    "",
]


@pytest.mark.parametrize("message", DENIALS)
def test_a_denial_is_quoted(message: str) -> None:
    assert denial(message) == message


@pytest.mark.attack
@pytest.mark.parametrize("message", ECHOES)
def test_an_echo_of_values_is_not_quoted_though_it_speaks_like_a_denial(message: str) -> None:
    assert denial(message) is None


def test_of_a_webhook_that_cannot_be_reached_only_the_name_is_told() -> None:
    message = f'Internal error occurred: failed calling webhook "v.example.test": an error: {CANARY}'

    assert denial(message) == 'failed calling webhook "v.example.test"'


@pytest.mark.attack
@pytest.mark.parametrize(
    "sent",
    [
        {"spec": {"template": {"spec": {"containers": [{"env": [{"name": "A", "value": CANARY}]}]}}}},
        {"kind": "Secret", "stringData": {"key": CANARY}},
        {"kind": "Secret", "data": {"key": base64.b64encode(CANARY.encode()).decode()}},
        [{"op": "add", "path": "/data/key", "value": CANARY}],
    ],
    ids=["variable", "secret", "encoded", "patch"],
)
def test_a_policy_whose_message_holds_a_value_does_not_give_it_away(sent: object) -> None:
    encoded = base64.b64encode(CANARY.encode()).decode()
    message = f'secrets "shop" is forbidden: {POLICY}{CANARY} {encoded} is not allowed'

    quoted = denial(message, sent)

    assert quoted is not None
    assert CANARY not in quoted
    assert encoded not in quoted
    assert quoted.endswith("is not allowed")


@pytest.mark.attack
def test_a_value_of_several_lines_is_withheld_as_it_is_written_in_json() -> None:
    value = 'canary\n"1234"'
    sent = {"data": {"key": value}}

    quoted = denial(f'secrets "shop" is forbidden: {POLICY}{value} {json.dumps(sent)}', sent)

    assert quoted is not None
    assert "canary" not in quoted


def test_a_denial_is_one_line_of_bounded_length() -> None:
    quoted = denial(f'pods "a" is forbidden: {POLICY}\x1b[31mred\n\u202eand {"long " * 1000}')

    assert quoted is not None
    assert len(quoted) == QUOTE_LIMIT
    assert quoted.isprintable()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (DENIALS[4], DENIALS[4]),
        (f'Pod "x" is invalid: spec.env[0].value: Invalid value: "{CANARY}"', "the API server finds them invalid"),
    ],
    ids=["quota", "echo"],
)
def test_pods_that_are_refused_say_why_and_nothing_of_their_variables(message: str, told: str) -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    deployment = {
        "metadata": {"generation": 1},
        "spec": {"replicas": 1},
        "status": {"observedGeneration": 1, "conditions": [condition]},
    }

    (trouble,) = deployment_trouble(deployment)

    assert (trouble.cause, trouble.message) == ("FailedCreate", f"its pods are refused: {told}")
