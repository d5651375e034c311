from pathlib import Path

import pytest
from sample_results import write_ab

from capnp_rig.loadtest.report.ab_blocks import ab_parts
from capnp_rig.loadtest.report.chart import LineChart
from capnp_rig.loadtest.report.document import Paragraph, Table
from capnp_rig.loadtest.report.sources import read_sources


def test_two_servers_have_their_ratios_and_every_block(tmp_path: Path) -> None:
    (source,) = read_sources([write_ab(tmp_path / "ab")]).sources
    ratios, notes, chart, blocks = ab_parts(source)
    assert isinstance(ratios, Table)
    assert len(ratios.rows) == 2
    assert notes == Paragraph("2 of 2 planned blocks.")
    assert isinstance(chart, LineChart)
    points = {line.name: [(point.x, point.y) for point in line.points] for line in chart.lines}
    assert points == {
        "candidate to baseline": [(1, pytest.approx(1.05)), (2, pytest.approx(1.05))],
        "baseline to itself": [(1, 1.0), (2, 1.0)],
    }
    # A metric that was not measured has no columns.
    assert isinstance(blocks, Table)
    assert [cell.text for cell in blocks.rows[0].cells] == ["1", "20", "21", "20"]
