"""Every alert has its lines in docs/operating.md: what it means, where to look, what to do."""

import re

import yaml

from tests.deploy.helm import CHART, ROOT


def test_every_alert_says_what_it_means_where_to_look_and_what_to_do() -> None:
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"]]
    (section,) = re.findall(r"^## Alerts$(.*?)^## ", (ROOT / "docs" / "operating.md").read_text(), re.M | re.S)
    described = re.findall(r"^### (\w+)\n\n\*\*Means:\*\*.+?\n\*\*Look:\*\*.+?\n\*\*Do:\*\*", section, re.M | re.S)

    assert described == alerts
