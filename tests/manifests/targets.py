"""Targets for the builders' tests, made as the loader makes them."""

from typing import Any

from hypothesis import strategies as st

from plattr.objects import CustomObject, Kind
from plattr.target import Target, application_target, preview_target

BASE_DOMAIN = "platform.test"


def application(**spec: Any) -> Target:
    """Return the target of Application `shop` in namespace `team-a`, in production unless the spec says otherwise."""
    return application_target(_object(Kind.APPLICATION, "shop", _application_spec(spec)), base_domain=BASE_DOMAIN)


def preview(**parent: Any) -> Target:
    """Return the target of pull request 42 of an Application with this spec."""
    spec = {"applicationRef": "shop", "pullRequest": 42, "branch": "feature"}
    return preview_target(_object(Kind.PREVIEW, "shop-42", spec), _application_spec(parent), base_domain=BASE_DOMAIN)


@st.composite
def targets(draw: st.DrawFn) -> Target:
    """Any combination of features, image, variables and scaling, of an Application or a preview."""
    spec: dict[str, Any] = {
        feature: {"enabled": draw(st.booleans(), label=feature)}
        for feature in ("database", "storage", "auth", "redis", "search")
    }
    if draw(st.booleans(), label="has image"):
        spec["imageRef"] = "registry.test/shop:1"
    names = draw(st.lists(st.from_regex(r"APP_[A-Z]{1,6}", fullmatch=True), unique=True, max_size=4))
    spec["envVars"] = [
        {"name": name, "value": "text"} if draw(st.booleans()) else {"name": name, "secretKeyRef": _REFERENCE}
        for name in names
    ]
    minimum = draw(st.integers(1, 5))
    spec["scaling"] = {"min": minimum, "max": draw(st.integers(minimum, 10)), "targetCPU": draw(st.integers(1, 100))}
    return preview(**spec) if draw(st.booleans(), label="preview") else application(**spec)


_REFERENCE = {"name": "shop-mail", "key": "token"}


def _application_spec(spec: dict[str, Any]) -> dict[str, Any]:
    return {"repository": "https://git.test/shop", "framework": "nextjs", "environment": "production"} | spec


def _object(kind: Kind, name: str, spec: dict[str, Any]) -> CustomObject:
    metadata = {
        "namespace": "team-a",
        "name": name,
        "uid": f"uid-of-{name}",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return CustomObject.from_api(kind, {"metadata": metadata, "spec": spec})
