"""`plattr adopt` shows what there is, asks, and has the worker take over exactly that."""

from collections.abc import AsyncIterator

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from plattr.adoption import Adoptable, Adoption, AdoptionInput
from plattr.marks import Mark
from plattr.objects import CustomObject
from plattr.steps import TASK_QUEUE
from tests.cli.conftest import Plattr, run_of
from workflows.adoption import AdoptResources

SCHEMA = Adoptable.of("schema 'prod_shop'", Mark(key="team/Application/shop", cluster="old"), "team/... of 'old'")
OBSTACLE = "Deployment 'shop' belongs to nobody that Plattr knows: it selects its pods by other labels"


class Backends:
    """Stands for the worker's activity."""

    def __init__(self) -> None:
        self.asked: list[AdoptionInput] = []
        self.left: tuple[Adoptable, ...] = (SCHEMA,)
        self.dies_after_taking = False

    @activity.defn
    async def adopt_resources(self, adoption: AdoptionInput) -> Adoption:
        self.asked.append(adoption)
        taken = tuple(each for each in self.left if each in adoption.approved)
        self.left = tuple(each for each in self.left if each not in taken)
        if taken and self.dies_after_taking:
            raise ApplicationError("the worker is gone", non_retryable=True)
        return Adoption(found=self.left, taken=taken, obstacles=(OBSTACLE,))


@pytest.fixture
async def backends(client: Client) -> AsyncIterator[Backends]:
    backends = Backends()
    async with Worker(client, task_queue=TASK_QUEUE, workflows=[AdoptResources], activities=[backends.adopt_resources]):
        yield backends


async def test_it_shows_from_whom_and_takes_nothing_over_without_a_yes(
    plattr: Plattr, backends: Backends, application: CustomObject
) -> None:
    outcome = await plattr("adopt", application.metadata.name, "-n", application.metadata.namespace, answer="n\n")

    assert outcome.exit_code == 1
    assert SCHEMA.what in outcome.stdout
    assert SCHEMA.holder in outcome.stdout
    assert OBSTACLE in outcome.stdout
    assert [each.approved for each in backends.asked] == [()]


async def test_what_was_shown_is_taken_over_and_the_object_runs_anew(
    plattr: Plattr, backends: Backends, application: CustomObject, client: Client
) -> None:
    outcome = await plattr("adopt", application.metadata.name, "-n", application.metadata.namespace, "--yes")

    assert outcome.exit_code == 0, outcome
    assert [each.approved for each in backends.asked] == [(), (SCHEMA,)]
    assert (await run_of(client, application.reference)).workflow_type == "ProvisionApplication"


async def test_the_object_runs_anew_also_when_nobody_can_say_what_was_taken(
    plattr: Plattr, backends: Backends, application: CustomObject, client: Client
) -> None:
    backends.dies_after_taking = True

    outcome = await plattr("adopt", application.metadata.name, "-n", application.metadata.namespace, "--yes")

    assert outcome.exit_code == 1
    assert "the worker is gone" in outcome.stderr
    assert (await run_of(client, application.reference)).workflow_type == "ProvisionApplication"


async def test_where_there_is_nothing_it_says_so(plattr: Plattr, backends: Backends, application: CustomObject) -> None:
    backends.left = ()

    outcome = await plattr("adopt", application.metadata.name, "-n", application.metadata.namespace, "--yes")

    assert "there is nothing" in outcome.stdout
    assert len(backends.asked) == 1
