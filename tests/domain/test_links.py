"""Links of the pages that are not part of the documentation site, where `make docs` checks them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?://)([^)#]+)")


@pytest.mark.parametrize("page", sorted(path.name for path in ROOT.glob("*.md")))
def test_every_link_leads_to_a_file(page: str) -> None:
    targets = LINK.findall((ROOT / page).read_text())

    assert [target for target in targets if not (ROOT / target).exists()] == []
