from __future__ import annotations

from riwoa.datasets.digits import CLASSES, RESOLUTIONS
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.obtain import shipped_table
from riwoa.hardware.stand import MOST_VISITS
from riwoa.supernet.geometry import Backbone


def test_the_shipped_table_covers_the_embedded_space_with_every_repeat() -> None:
    table = LatencyTable.load(shipped_table())
    assert table.missing(RESOLUTIONS, Backbone(0.25, CLASSES)) == []
    assert {timing.count for timing in table.entries.values()} == {MOST_VISITS}
    assert (table.settings.runtime, table.settings.graph_level) == ("onnxruntime", "all")
    assert table.settings.runtime_version
    assert table.calibration.networks >= 20
