"""What exists in Kubernetes: the objects, what they own, the stored claims, and the database Secrets."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import client, config

from cli.auditing.expectation import expected_things
from cli.auditing.inventory import AuditedObject, AuditFailed, Found, Home, Thing, ThingKind
from plattr.errors import InvalidSpec
from plattr.objects import API_VERSION, GROUP, CustomObject, Kind
from plattr.parent import Parent, taken_parent
from plattr.settings import Settings
from plattr.target import (
    KIND_LABEL,
    MANAGED_BY_LABEL,
    OWNER_ANNOTATION,
    OWNER_CLUSTER_ANNOTATION,
    OWNER_NAME_LABEL,
    OWNER_NAMESPACE_LABEL,
    OWNER_NAMESPACE_UID_ANNOTATION,
    OWNER_UID_ANNOTATION,
    application_target,
    preview_target,
)

Json = dict[str, Any]

_OURS = f"{MANAGED_BY_LABEL}=plattr"
_CLAIM_KIND_LABEL = f"{GROUP}/claim-kind"
_CLAIMED_NAME_ANNOTATION = f"{GROUP}/claimed-name"
_RETAINED_ANNOTATION = f"{GROUP}/retained"
_QUARANTINE_ANNOTATION = f"{GROUP}/quarantined-until"
# At the end of a quarantine the waiting cleanup checks once more. It may then find a backend away.
_LAST_LOOK = timedelta(minutes=10)

_PATHS = {
    ThingKind.NAMESPACE: "/api/v1/namespaces",
    ThingKind.SECRET: "/api/v1/secrets",
    ThingKind.CONFIG_MAP: "/api/v1/configmaps",
    ThingKind.SERVICE_ACCOUNT: "/api/v1/serviceaccounts",
    ThingKind.SERVICE: "/api/v1/services",
    ThingKind.DEPLOYMENT: "/apis/apps/v1/deployments",
    ThingKind.INGRESS: "/apis/networking.k8s.io/v1/ingresses",
    ThingKind.AUTOSCALER: "/apis/autoscaling/v2/horizontalpodautoscalers",
}
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
# The suffix of a certificate Secret's name, and the prefix of cert-manager's annotations.
_TLS = "-tls"
_CERT_MANAGER = "cert-manager.io"
# Connect and read timeouts: the API server needs well below a second for a page of 500 objects.
_TIMEOUT = (5.0, 30.0)
_PAGE = 500


class KubernetesListing:
    """Ask the API server of a kubeconfig, or of the pod's own cluster."""

    def __init__(self, kubeconfig: str | None) -> None:
        configuration = client.Configuration()
        try:
            if kubeconfig is None:
                config.load_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # the library is untyped here
            else:
                config.load_kube_config(  # type: ignore[no-untyped-call]  # as above
                    config_file=kubeconfig, client_configuration=configuration
                )
        except (config.ConfigException, OSError) as error:
            raise AuditFailed(f"cannot connect to Kubernetes: {error}; set KUBECONFIG") from None
        self._api = client.ApiClient(configuration)

    def close(self) -> None:
        """Close the connections."""
        self._api.close()  # type: ignore[no-untyped-call]  # as above

    def home(self, settings: Settings) -> Home:
        """Return this cluster and its namespaces."""
        uids = {
            body["metadata"]["name"]: body["metadata"]["uid"]
            for body in self._list("/api/v1/namespaces", accept=_METADATA_LIST)
        }
        return Home(cluster=settings.cluster_id or uids["kube-system"], namespaces=uids)

    def subjects(self, settings: Settings, *, has_redis_users: bool = False) -> dict[str, AuditedObject]:
        """Return every object by its key."""

        def expected(custom_object: CustomObject) -> frozenset[Thing] | None:
            return _expected(custom_object, items[Kind.APPLICATION], settings, has_redis_users=has_redis_users)

        items = {
            kind: {
                custom_object.reference.key: custom_object
                for custom_object in (
                    CustomObject.from_api(kind, body) for body in self._list(f"/apis/{API_VERSION}/{kind.plural}")
                )
            }
            for kind in Kind
        }
        objects = items[Kind.APPLICATION] | items[Kind.PREVIEW]
        return {
            key: AuditedObject(
                custom_object=custom_object,
                expected=expected(custom_object) if custom_object.is_settled else None,
            )
            for key, custom_object in objects.items()
        }

    def found(self, lease_namespace: str) -> list[Found]:
        """Return every claim, and every object that carries Plattr's labels."""
        leases = self._list(f"/apis/coordination.k8s.io/v1/namespaces/{lease_namespace}/leases", _CLAIM_KIND_LABEL)
        # A pod names its owner only in its labels. A pod that has ended holds nothing any more.
        pods = [
            body
            for body in self._list("/api/v1/pods", _OURS)
            if body.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        ]
        return [
            *(_claim(lease) for lease in leases),
            *(_found(kind, body) for kind, path in _PATHS.items() for body in self._list(path, _OURS)),
            *(Found(thing=_thing(ThingKind.POD, body), owner=_labelled_owner(body)) for body in pods),
        ]

    def left_certificates(self, cluster_issuer: str) -> list[Found]:
        """Return the unused Secrets that cert-manager made for an Ingress of Plattr.

        Such a Secret carries no owner, but its name contains the Ingress's owner. No key is read.
        """
        secrets = [
            body
            for body in self._list("/api/v1/secrets", accept=_METADATA_LIST)
            if _asked_for(body["metadata"], cluster_issuer)
        ]
        if not secrets:
            return []
        used = {
            (ingress["metadata"]["namespace"], tls.get("secretName"))
            for ingress in self._list(_PATHS[ThingKind.INGRESS])
            for tls in ingress.get("spec", {}).get("tls") or []
        }
        try:
            kept = self._list("/apis/cert-manager.io/v1/certificates", accept=_METADATA_LIST)
        except AuditFailed:
            # cert-manager is gone or cannot be asked. The Ingresses alone then decide.
            kept = []
        used |= {(body["metadata"]["namespace"], body["metadata"]["name"]) for body in kept}
        things = (_thing(ThingKind.SECRET, body) for body in secrets)
        return [
            Found(thing=thing, owner=f"{thing.scope}/{Kind.APPLICATION}/{thing.name.removesuffix(_TLS)}")
            for thing in things
            if (thing.scope, thing.name) not in used
        ]

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        """Return a Secret's keys in plain text; empty if it does not exist."""
        items = self._list(f"/api/v1/namespaces/{namespace}/secrets", field_selector=f"metadata.name={name}")
        encoded: Mapping[str, str] = items[0].get("data", {}) if items else {}
        return {key: base64.b64decode(value).decode() for key, value in encoded.items()}

    def _list(
        self, path: str, label_selector: str = "", *, field_selector: str = "", accept: str = "application/json"
    ) -> list[Json]:
        query = {"limit": str(_PAGE), "labelSelector": label_selector, "fieldSelector": field_selector}
        items: list[Json] = []
        while True:
            page = self._get(f"{path}?{urlencode(query)}", accept)
            # In a metadata-only list an empty list is null.
            items += page["items"] or []
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return items

    def _get(self, path: str, accept: str) -> Json:
        headers = {"Accept": accept}
        self._api.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
        try:
            answer = self._api.call_api(
                "GET", self._api.configuration.host + path, header_params=headers, _request_timeout=_TIMEOUT
            )
            text = answer.read()  # type: ignore[no-untyped-call]  # as above
        except (client.ApiException, urllib3.exceptions.HTTPError) as error:
            raise AuditFailed(f"cannot ask Kubernetes for {path}: {type(error).__name__}: {error}") from None
        if answer.status != 200:
            raise AuditFailed(f"cannot ask Kubernetes for {path}: it answers {answer.status} {answer.reason}")
        page: Json = json.loads(text)
        return page


def _expected(
    custom_object: CustomObject, applications: Mapping[str, CustomObject], settings: Settings, *, has_redis_users: bool
) -> frozenset[Thing] | None:
    try:
        if custom_object.kind is Kind.APPLICATION:
            target = application_target(
                custom_object,
                base_domain=settings.base_domain,
                client_suffix=settings.oidc_client_suffix,
                hosts=settings.host_rules,
            )
        else:
            parent = taken_parent(custom_object) or _living_parent(custom_object, applications)
            if parent is None:
                return None
            target = preview_target(
                custom_object, parent.spec, base_domain=settings.base_domain, hosts=settings.host_rules
            )
    except InvalidSpec:
        # An older, less strict Plattr accepted the spec, or the parent has been refused since.
        return None
    has_storage_keys = settings.s3_accounts != "none"
    return expected_things(target, has_redis_users=has_redis_users, has_storage_keys=has_storage_keys)


def _living_parent(preview: CustomObject, applications: Mapping[str, CustomObject]) -> Parent | None:
    application = applications.get(
        f"{preview.metadata.namespace}/{Kind.APPLICATION}/{preview.spec.get('applicationRef')}"
    )
    return Parent.of(application) if application is not None else None


def _thing(kind: ThingKind, body: Json) -> Thing:
    metadata = body["metadata"]
    return Thing(kind=kind, scope=metadata.get("namespace", ""), name=metadata["name"])


def _found(kind: ThingKind, body: Json) -> Found:
    annotations = body["metadata"].get("annotations", {})
    return Found(
        thing=_thing(kind, body),
        owner=annotations.get(OWNER_ANNOTATION),
        uid=annotations.get(OWNER_UID_ANNOTATION),
        cluster=annotations.get(OWNER_CLUSTER_ANNOTATION),
        namespace_uid=annotations.get(OWNER_NAMESPACE_UID_ANNOTATION),
    )


def _claim(lease: Json) -> Found:
    metadata = lease["metadata"]
    annotations = metadata.get("annotations", {})
    return Found(
        thing=Thing(
            kind=ThingKind.CLAIM,
            scope=metadata["labels"][_CLAIM_KIND_LABEL],
            name=annotations.get(_CLAIMED_NAME_ANNOTATION, metadata["name"]),
        ),
        owner=lease.get("spec", {}).get("holderIdentity"),
        uid=annotations.get(OWNER_UID_ANNOTATION),
        cluster=annotations.get(OWNER_CLUSTER_ANNOTATION),
        namespace_uid=annotations.get(OWNER_NAMESPACE_UID_ANNOTATION),
        is_retained=annotations.get(_RETAINED_ANNOTATION) == "true",
        is_quarantined=_is_ahead(annotations.get(_QUARANTINE_ANNOTATION)),
    )


def _asked_for(metadata: Json, cluster_issuer: str) -> bool:
    annotations = metadata.get("annotations") or {}
    said = [annotations.get(f"{_CERT_MANAGER}/{what}") for what in ("certificate-name", "issuer-kind", "issuer-name")]
    return metadata["name"].endswith(_TLS) and said == [metadata["name"], "ClusterIssuer", cluster_issuer]


def _is_ahead(end: str | None) -> bool:
    return end is not None and datetime.fromisoformat(end) + _LAST_LOOK > datetime.now(UTC)


def _labelled_owner(body: Json) -> str | None:
    labels = body["metadata"]["labels"]
    kinds = {kind.lower(): kind for kind in Kind}
    kind = kinds.get(labels.get(KIND_LABEL, ""))
    namespace, name = labels.get(OWNER_NAMESPACE_LABEL), labels.get(OWNER_NAME_LABEL)
    return f"{namespace}/{kind}/{name}" if kind and namespace and name else None
