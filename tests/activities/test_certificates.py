"""The certificate of an Ingress on a real API server, with cert-manager's kind and without; Secrets in its form."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from activities import certificates
from clients.kube import KubeClient
from clients.resources import CERT_MANAGER, CERTIFICATES, INGRESSES, SECRETS, Json
from plattr.errors import StillDeleting
from plattr.features import ConditionType
from plattr.manifests.ingress import build_ingress, ingress_profile
from plattr.objects import CustomObject
from plattr.status import ConditionUpdate
from plattr.steps import StepInput
from tests.certificates import CRDS, certificate, certificate_definition, key_pair, tls_secret
from tests.fix_kubernetes import Cluster, random_name
from tests.fix_workload import Team
from tests.inputs import status_of

pytestmark = pytest.mark.attack

ROUTED = ConditionUpdate(type=ConditionType.INGRESS, status="True", reason="Applied", message="routes are set")
MISSING = {
    "type": "Ready",
    "status": "False",
    "reason": "DoesNotExist",
    "message": "Issuing certificate as Secret does not exist",
}
FAILED = {
    "type": "Issuing",
    "status": "False",
    "reason": "Failed",
    "message": "The certificate request has failed to complete and will be retried: order is invalid:\nno such host",
}


@pytest.fixture
async def cert_manager(admin_kube: KubeClient) -> AsyncIterator[None]:
    """cert-manager's kind, without anybody who works on it."""
    await admin_kube.create(CRDS, certificate_definition())
    async with asyncio.timeout(30):
        while not await _is_served(admin_kube):
            await asyncio.sleep(0.1)
    yield
    await admin_kube.delete(CRDS, "certificates.cert-manager.io")
    async with asyncio.timeout(30):
        while await admin_kube.get(CERT_MANAGER, "") is not None:
            await asyncio.sleep(0.1)


async def _is_served(kube: KubeClient) -> bool:
    found = await kube.get(CERT_MANAGER, "")
    return found is not None and any(each["name"] == "certificates" for each in found["resources"])


class Site:
    """An Application whose Ingress asks for a certificate."""

    def __init__(self, cluster: Cluster, application: CustomObject, host: str) -> None:
        self._cluster = cluster
        self._application = application
        self.namespace = application.metadata.namespace
        self.secret = f"{application.metadata.name}-tls"
        self.host = host

    async def judged(self) -> Json:
        """Return the condition of a run in which everything went well."""
        await self._cluster.statuses.write_status(status_of(self._application, updates=(ROUTED,)))
        status = (await self._cluster.read(self._application.reference)).status
        (condition,) = [each for each in status["conditions"] if each["type"] == "IngressReady"]
        (ready,) = [each for each in status["conditions"] if each["type"] == "Ready"]
        assert (ready["status"] == "True") == (condition["status"] == "True")
        return dict(condition)

    async def put(self, body: Json) -> None:
        """Put a Secret or a Certificate there, in place of one before."""
        resource = SECRETS if body["kind"] == "Secret" else CERTIFICATES
        await self._cluster.admin.delete(resource, body["metadata"]["name"], self.namespace)
        await self._cluster.admin.create(resource, body, self.namespace)


@pytest.fixture
async def site(cluster: Cluster, namespace: str) -> Site:
    application = await cluster.apply(namespace, random_name())
    target = await cluster.loader.target_of(application)
    profile = ingress_profile("nginx", platform_namespace="plattr-system")
    ingress = build_ingress(target, profile=profile, cluster_issuer="letsencrypt")
    await cluster.kube.apply_owned(INGRESSES, ingress, target.owner, namespace)
    return Site(cluster, application, target.names.host)


async def test_routes_are_not_ready_before_the_certificate_and_say_why(cert_manager: None, site: Site) -> None:
    nothing = await site.judged()
    await site.put(certificate(site.secret, conditions=[MISSING]))
    asked = await site.judged()
    await site.put(certificate(site.secret, conditions=[MISSING, FAILED], failedIssuanceAttempts=1))
    failed = await site.judged()
    await site.put(tls_secret(site.secret, "another.example.test"))
    another = await site.judged()
    await site.put(tls_secret(site.secret, "another.example.test", site.host))
    issued = await site.judged()

    assert [(each["status"], each["reason"]) for each in (nothing, asked, failed, another, issued)] == [
        ("Unknown", "CertificatePending"),
        ("Unknown", "CertificatePending"),
        ("False", "CertificateFailed"),
        ("False", "CertificateFailed"),
        ("True", "Applied"),
    ]
    assert "has not made a Certificate" in nothing["message"]
    assert "Secret does not exist" in asked["message"]
    assert failed["message"].endswith("order is invalid: no such host")
    assert "is for others" in another["message"]


async def test_a_secret_that_others_have_put_there_is_judged_by_its_certificate(
    cluster: Cluster, cert_manager: None, site: Site
) -> None:
    domain = site.host.partition(".")[2]
    certificates_of = {
        "none": tls_secret(site.secret, site.host, issuer=None) | {"data": {"tls.crt": "", "tls.key": ""}},
        "garbage": tls_secret(site.secret, site.host, issuer=None) | {"data": {"tls.crt": "YQ==", "tls.key": ""}},
        "another": tls_secret(site.secret, "another.example.test", issuer=None),
        "its own": tls_secret(site.secret, site.host, issuer=None),
        "a wildcard": tls_secret(site.secret, f"*.{domain}", issuer=None),
        "a wildcard above": tls_secret(site.secret, f"*.{domain.partition('.')[2]}", issuer=None),
    }
    said = {}
    for name, secret in certificates_of.items():
        await site.put(secret)
        said[name] = await site.judged()

    assert {name: (each["status"], each["reason"]) for name, each in said.items()} == {
        "none": ("False", "CertificateMissing"),
        "garbage": ("False", "CertificateMissing"),
        "another": ("False", "CertificateForAnotherHost"),
        "its own": ("True", "Applied"),
        "a wildcard": ("True", "Applied"),
        "a wildcard above": ("False", "CertificateForAnotherHost"),
    }
    assert not any(key_pair(site.host)[1][:40] in each["message"] for each in said.values())


async def test_where_there_is_no_cert_manager_the_routes_are_ready_and_say_so(site: Site) -> None:
    without = await site.judged()
    await site.put(tls_secret(site.secret, "another.example.test", issuer=None))
    another = await site.judged()
    await site.put(tls_secret(site.secret, site.host, issuer=None))
    own = await site.judged()

    assert [(each["status"], each["reason"]) for each in (without, another, own)] == [
        ("True", "NoCertManager"),
        ("False", "CertificateForAnotherHost"),
        ("True", "Applied"),
    ]


async def routed(team: Team) -> StepInput:
    step = await team.create()
    await team.workload.reconcile_workload(step)
    return step


async def test_the_secret_that_cert_manager_made_for_our_ingress_goes_with_it(team: Team) -> None:
    step = await routed(team)
    name = f"{step.reference.name}-tls"
    await team.kube.create(SECRETS, tls_secret(name, "shop.example.test"), team.namespace)
    cleanup = await team.delete(step)

    for _ in range(2):
        await team.workload.delete_workload(cleanup)

    assert name not in await team.names_of(SECRETS, step.reference.name)


@pytest.mark.parametrize(
    "others",
    [
        {"issuer": None},
        {"issuer": "another"},
        {"kind": "Issuer"},
    ],
    ids=["by hand", "another issuer", "an issuer of the namespace"],
)
async def test_a_secret_that_others_made_stays(team: Team, others: dict[str, str | None]) -> None:
    step = await routed(team)
    name = f"{step.reference.name}-tls"
    secret = tls_secret(name, "shop.example.test", **others)  # type: ignore[arg-type]  # one keyword at a time
    await team.kube.create(SECRETS, secret, team.namespace)

    await team.workload.delete_workload(await team.delete(step))

    assert name in await team.names_of(SECRETS, step.reference.name)


async def test_the_secret_of_another_certificate_and_of_a_living_object_stays(team: Team) -> None:
    step, living = await routed(team), await routed(team)
    own = f"{living.reference.name}-tls"
    await team.kube.create(SECRETS, tls_secret(own, "shop.example.test"), team.namespace)
    another = tls_secret(f"{step.reference.name}-tls", "shop.example.test")
    another["metadata"]["annotations"]["cert-manager.io/certificate-name"] = "wildcard"
    await team.kube.create(SECRETS, another, team.namespace)

    await team.workload.delete_workload(await team.delete(step))
    # The cleanup of an earlier incarnation.
    await team.workload.delete_workload((await team.delete(step)).model_copy(update={"reference": living.reference}))

    assert f"{step.reference.name}-tls" in await team.names_of(SECRETS, step.reference.name)
    assert own in await team.names_of(SECRETS, living.reference.name)


async def test_while_its_certificate_would_have_it_made_again_the_secret_stays(
    team: Team, cert_manager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "WAIT_SECONDS", 0.2)
    step = await routed(team)
    name, ingress = f"{step.reference.name}-tls", await team.get(INGRESSES, step.reference.name)
    # A finalizer: the garbage collector would be quicker than this test.
    ours = certificate(name, ingress)
    ours["metadata"]["finalizers"] = ["example.test/hold"]
    await team.kube.create(CERTIFICATES, ours, team.namespace)
    await team.kube.create(SECRETS, tls_secret(name, "shop.example.test"), team.namespace)
    cleanup = await team.delete(step)

    with pytest.raises(StillDeleting, match=name):
        await team.workload.delete_workload(cleanup)
    held = name in await team.names_of(SECRETS, step.reference.name)
    release: list[Json] = [{"op": "remove", "path": "/metadata/finalizers"}]
    await team.kube.json_patch(CERTIFICATES, name, release, team.namespace)
    await team.kube.delete(CERTIFICATES, name, team.namespace)
    await team.workload.delete_workload(cleanup)

    assert held
    assert name not in await team.names_of(SECRETS, step.reference.name)


async def test_the_secret_of_a_certificate_that_somebody_made_by_hand_stays(team: Team, cert_manager: None) -> None:
    step = await routed(team)
    name = f"{step.reference.name}-tls"
    await team.kube.create(CERTIFICATES, certificate(name), team.namespace)
    await team.kube.create(SECRETS, tls_secret(name, "shop.example.test"), team.namespace)

    await team.workload.delete_workload(await team.delete(step))

    assert name in await team.names_of(SECRETS, step.reference.name)
