"""The commands and statements of docs/installing.md, as a reader copies them."""

import re

from tests.deploy.helm import ROOT

DOCUMENT = (ROOT / "docs" / "installing.md").read_text()


def block(language: str, containing: str) -> str:
    """Return the code block of a language that holds a text."""
    (found,) = [
        text
        for text in re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
        if containing in text
    ]
    return str(found)
