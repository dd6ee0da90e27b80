"""docs/operating.md: every command line in it is run as it stands there."""

import asyncio
import re
import shlex
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from clients.resources import APPLICATIONS, CONFIG_MAPS, PREVIEWS, Json
from plattr.objects import Kind
from tests.e2e.view import SMALL, View, random_name
from tests.fix_tenant import ROLE_BINDINGS

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"
DATABASE = SMALL | {"database": {"enabled": True}}
# `plattr audit` says with 1 that there are findings, and other tests may leave some lying about meanwhile.
CODES = {"plattr audit": {0, 1}}

Before = Callable[[View, str], Awaitable[object]]
Effect = Callable[[View, str], Awaitable[None]]
After = Callable[[View, str, object], Awaitable[None]]


def sections() -> dict[str, list[str]]:
    """Return the command lines of each section; a line that ends in a backslash goes on."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"(?m)^## ", PAGE.read_text())[1:]:
        blocks = re.findall(r"(?ms)^```sh\n(.*?)^```", section)
        lines = "".join(blocks).replace("\\\n", " ").splitlines()
        found[section.splitlines()[0]] = [line for line in lines if line.strip()]
    return {heading: lines for heading, lines in found.items() if lines}


async def running(view: View, name: str) -> None:
    await view.apply(name, DATABASE)
    await view.wait_running(name)
    await view.settle(name)


async def password(view: View, name: str) -> object:
    await running(view, name)
    return await view.secret(f"{name}-db")


async def rotated(view: View, name: str, before: object) -> None:
    await view.settle(name)
    secret = await view.secret(f"{name}-db")
    assert secret is not None
    assert secret != before
    assert await view.query("select 1", secret["DATABASE_URL"]) == [(1,)]


async def previewed(view: View, name: str) -> None:
    await running(view, name)
    spec = {"applicationRef": name, "pullRequest": 42, "branch": "topic", "ttl": "72h"}
    await view.apply(f"{name}-pr-42", spec, Kind.PREVIEW)
    await view.wait_running(f"{name}-pr-42", resource=PREVIEWS)
    await view.apply(name, DATABASE | {"search": {"enabled": True}})
    await view.wait_running(name)


def ends_after(ttl: timedelta) -> Effect:
    async def effect(view: View, name: str) -> None:
        def is_there(body: Json) -> bool:
            end = datetime.fromisoformat(body["metadata"]["creationTimestamp"]) + ttl
            return bool(body["status"].get("expiresAt") == f"{end:%Y-%m-%dT%H:%M:%SZ}")

        body = await view.wait(f"{name}-pr-42", is_there, resource=PREVIEWS)
        # A change of its own takes nothing over.
        assert body["status"]["parent"]["generation"] == 1

    return effect


async def taken_over(view: View, name: str) -> None:
    await view.wait(f"{name}-pr-42", lambda o: o["status"]["parent"]["generation"] == 2, resource=PREVIEWS)
    async with asyncio.timeout(30):
        while await view.config_map(f"{name}-pr42-search", f"preview-{name}-pr-42") is None:
            await asyncio.sleep(0.1)


async def preview_gone(view: View, name: str, _: object) -> None:
    await view.wait_gone(f"{name}-pr-42", resource=PREVIEWS)


async def nothing_left(view: View, name: str, _: object) -> None:
    await view.wait_gone(name)
    await view.settle(name)
    assert await view.schemas_and_roles(f"staging_{name.replace('-', '_')}") == set()


async def drifted(view: View, name: str) -> None:
    await running(view, name)
    await view.kube.delete(CONFIG_MAPS, f"{name}-redis", view.namespace)


async def mended(view: View, name: str, _: object) -> None:
    await view.settle(name)
    assert await view.config_map(f"{name}-redis") is not None
    description = await view.temporal.get_schedule_handle("plattr-resync-fleet").describe()
    assert not description.schedule.state.paused


async def removed_by_force(view: View, name: str) -> None:
    await running(view, name)
    view.platform.stop_service("watcher")
    drop = [{"op": "remove", "path": "/metadata/finalizers"}]
    await view.kube.json_patch(APPLICATIONS, name, drop, view.namespace)
    await view.delete(name)
    view.platform.start_service("watcher")
    assert await view.schemas_and_roles(f"staging_{name.replace('-', '_')}") != set()


async def with_an_operator(view: View, name: str) -> None:
    await running(view, name)
    body = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "operator", "namespace": view.namespace},
        "subjects": [{"kind": "User", "name": "operator", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "edit", "apiGroup": "rbac.authorization.k8s.io"},
    }
    await view.kube.create(ROLE_BINDINGS, body, view.namespace)


async def still_paused(view: View, name: str, _: object) -> None:
    body = await view.application(name)
    assert body is not None
    assert "platform.internal/paused" not in body["metadata"].get("annotations", {})


SCENES: dict[str, tuple[Before, After | None]] = {
    "Rotate a database password": (password, rotated),
    "Repair drift everywhere": (drifted, mended),
    "Pause an object": (running, still_paused),
    "Extend, take over, end a preview": (previewed, preview_gone),
    "Remove an application with Temporal alone": (running, nothing_left),
    "Take the finalizer off by hand": (with_an_operator, None),
    "Clean up after an object that was removed by force": (removed_by_force, nothing_left),
}
# What has to be so after a line of a scene.
EFFECTS: dict[str, Effect] = {
    "plattr preview extend my-app-pr-42 --by 24h -n team-a": ends_after(timedelta(hours=72 + 24)),
    "kubectl patch previewenvironment my-app-pr-42 -n team-a --type merge"
    """ --patch '{"spec": {"ttl": "120h"}}'""": ends_after(timedelta(hours=120)),
    "plattr resync preview/my-app-pr-42 -n team-a": taken_over,
}
# Each of these lines removes the application, so each has one of its own.
ONE_EACH = {"Remove an application": (running, nothing_left)}


def cases() -> list[ParameterSet]:
    made: list[ParameterSet] = []
    for heading, lines in sections().items():
        if heading in ONE_EACH:
            made += [pytest.param([line], ONE_EACH[heading], id=line) for line in lines]
        else:
            made.append(pytest.param(lines, SCENES.get(heading, (running, None)), id=heading))
    return made


@pytest.mark.parametrize(("lines", "scene"), cases())
async def test_the_lines_of_the_operating_guide_do_what_they_say(
    view: View, lines: list[str], scene: tuple[Before, After | None]
) -> None:
    name = random_name()
    before, after = scene
    known = await before(view, name)

    for line in lines:
        words = [word.replace("team-a", view.namespace).replace("my-app", name) for word in shlex.split(line)]
        done = view.command(*words, check=False)
        allowed = CODES.get(line, {0})
        assert done.returncode in allowed, f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        if line in EFFECTS:
            await EFFECTS[line](view, name)

    if after is not None:
        await after(view, name, known)


def test_every_scene_is_a_section_of_the_guide_and_every_effect_that_of_a_line() -> None:
    assert {*SCENES, *ONE_EACH} <= set(sections())
    assert set(EFFECTS) <= {line for lines in sections().values() for line in lines}


def test_no_command_of_the_guide_stands_outside_the_tested_blocks() -> None:
    text = re.sub(r"(?ms)^```sh\n.*?^```", "", PAGE.read_text())

    assert re.findall(r"(?m)^ *(?:plattr|temporal|kubectl) .*", text) == []


def test_every_metric_of_the_guide_exists() -> None:
    root = PAGE.parents[1]
    files = [
        path for folder in ("telemetry", "activities", "watcher", "worker") for path in (root / folder).rglob("*.py")
    ]
    defined = set(re.findall(r'"(plattr_[a-z_]+)"', "".join(path.read_text() for path in files)))
    named = {name.removesuffix("_total") for name in re.findall(r"plattr_[a-z_]+", PAGE.read_text())}

    assert named <= defined
