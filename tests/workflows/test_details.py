"""The top of a run in Temporal's UI shows texts, and renders none of them."""

import pytest

from plattr.steps import Problem, Progress, Remedy
from workflows.details import describe_progress

pytestmark = pytest.mark.attack


def test_a_quoted_message_is_no_markdown() -> None:
    lure = "denied:\n\n# Session over\n[sign in](https://evil.example.test) ![x](http://evil.example.test/i.png) <b>"
    problem = Problem(reason="BackendRefused", message=lure, remedy=Remedy.WAIT)

    shown = describe_progress("team/Application/shop", Progress(last_error=problem))

    assert "\n#" not in shown
    assert "](" not in shown
    assert "https://" not in shown
    assert "\\<b\\>" in shown
