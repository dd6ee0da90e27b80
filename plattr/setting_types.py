"""Settings that are more than one word: lists with commas, JSON, and a template; a chart passes maps as JSON."""

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from plattr.hosts import parse_patterns
from plattr.objects import GROUP

# An IAM role's path and name, with the characters that IAM allows. A character that neither a namespace nor a name has
# must stand between the placeholders. Otherwise the shop of team-a and the a-shop of team would have one role.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
_ROLE_TEMPLATE = re.compile(
    r"arn:aws[a-z-]*:iam::[0-9]{12}:role/"
    r"X*(\{namespace\}X*[+=,.@_/]X*\{name\}|\{name\}X*[+=,.@_/]X*\{namespace\})X*".replace("X", "[A-Za-z0-9+=,.@_/-]")
)
# The pod-security keys decide what may run in the namespace. Plattr's own keys and Kubernetes' say whose it is.
_RESERVED_KEYS = re.compile(rf"(.*\.)?(pod-security\.kubernetes\.io|{re.escape(GROUP)}|kubernetes\.io|k8s\.io)/.*")
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def _parse_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("it must be JSON, as docs/settings.md shows it") from None


def _parse_reserved(value: Any) -> Any:
    return parse_patterns(part for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _check_domains(lists: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {namespace: parse_patterns(domains) for namespace, domains in lists.items()}


def _check_role(value: str) -> str:
    if not _ROLE_TEMPLATE.fullmatch(value):
        raise ValueError(
            "it must be a role's ARN with {namespace} and {name} once each, parted by one of + = , . @ _ /, as in"
            " arn:aws:iam::123456789012:role/plattr/{namespace}/{name}"
        )
    return value


def _parse_quota(value: Any) -> Any:
    hard = _parse_json(value)
    # YAML reads `pods: 8` as a number. Kubernetes accepts both a number and a text.
    return {key: str(each) for key, each in hard.items()} if isinstance(hard, dict) else hard


def _check_rules(rules: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    if not rules.keys() <= {"ingress", "egress"}:
        raise ValueError("it must have ingress and egress, each a list of a NetworkPolicy's rules, and nothing else")
    return rules


def _check_keys(pairs: dict[str, str]) -> dict[str, str]:
    for key in pairs:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key of a label or an annotation")
        if _RESERVED_KEYS.fullmatch(key):
            raise ValueError(f"{key!r} is not free: Pod Security's, Kubernetes' and Plattr's own keys stay as they are")
    return pairs


def _check_labels(pairs: dict[str, str]) -> dict[str, str]:
    for key, value in _check_keys(pairs).items():
        if not _LABEL_VALUE.fullmatch(value):
            raise ValueError(f"the value of {key!r} is no label's")
    return pairs


HostPatterns = Annotated[tuple[str, ...], BeforeValidator(_parse_reserved)]
DomainLists = Annotated[dict[str, tuple[str, ...]], BeforeValidator(_parse_json), AfterValidator(_check_domains)]
RoleTemplate = Annotated[str, AfterValidator(_check_role)]
Quota = Annotated[dict[str, str], BeforeValidator(_parse_quota)]
LimitRange = Annotated[list[dict[str, Any]], BeforeValidator(_parse_json)]
NetworkRules = Annotated[dict[str, list[dict[str, Any]]], BeforeValidator(_parse_json), AfterValidator(_check_rules)]
Labels = Annotated[dict[str, str], BeforeValidator(_parse_json), AfterValidator(_check_labels)]
Annotations = Annotated[dict[str, str], BeforeValidator(_parse_json), AfterValidator(_check_keys)]
