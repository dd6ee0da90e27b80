import xml.etree.ElementTree as ET

import pytest

from bench.platform import percentile
from bench.plot import draw
from bench.standing import known

METRICS = """
# TYPE plattr_objects gauge
plattr_objects{kind="Application",phase="Running"} 299.0
plattr_objects{kind="PreviewEnvironment",phase="Running"} 2.0
plattr_watcher_queue_depth 0.0
"""


def test_percentiles_lie_within_the_values() -> None:
    assert percentile([3.0], 99) == 3.0
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert 2.9 < percentile([1.0, 2.0, 3.0], 99) < 3.0


@pytest.mark.parametrize(
    ("metric", "value"),
    [("plattr_objects", 301), ("plattr_watcher_queue_depth", 0), ("plattr_missing", -1)],
    ids=["a sum over labels", "without labels", "missing"],
)
def test_a_metric_is_read_from_a_page(metric: str, value: float) -> None:
    assert known(METRICS, metric) == value


def test_the_plot_is_xml_with_a_ratio_for_each_row() -> None:
    rows = [{"kind": "with <auth>", "operation": "provision", "floor": [100, 150], "plattr": [150, 300]}]

    texts = [element.text or "" for element in ET.fromstring(draw(rows, "one machine")).iter()]  # noqa: S314  our own

    assert "150, 1.50 x" in texts
    assert "provision, with <auth>" in texts
