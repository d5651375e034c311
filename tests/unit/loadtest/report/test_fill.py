from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sample_results import write_results

from capnp_rig.loadtest.report.chart import Axis, Line, LineChart, Look, Panel, Point, RowChart
from capnp_rig.loadtest.report.contents import document_of
from capnp_rig.loadtest.report.document import (
    Cell,
    Document,
    Fold,
    Notes,
    Part,
    Row,
    Section,
    Table,
)
from capnp_rig.loadtest.report.fill_in import NoSuchPart, filled
from capnp_rig.loadtest.report.sources import find_sources

TABLE = Table("sizes", "Sizes", ["codec"], [Row([Cell("wire")])], folded=True)
CHART = LineChart(
    "sizes",
    "Time",
    "it rises",
    Axis("x"),
    [Panel(Axis("y"), [Line("a", [Point(1, 2)], Look("#000"))])],
)
ANSWERS = Table("answers", "Answers", ["what"], [Row([Cell("it pays")])])
PICTURE = replace(CHART, key="gain", title="Gain", finding="it falls")


def document(parts: Sequence[Part] = (TABLE, CHART)) -> Document:
    sections = [Section("s", "S", [Fold("more", parts)])]
    machine = Notes("Measured on", ["a machine"], "machine")
    return Document("Title", sections, [ANSWERS, PICTURE, machine])


def place(key: str, inside: str) -> str:
    return f"before\n\n<!-- report: {key} -->\n{inside}<!-- end of report -->\n\nafter\n"


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (
            "verdict",
            "Answers\n\n| what |\n| --- |\n| it pays |\n\n![Gain: it falls](pictures/gain.svg)\n",
        ),
        ("answers", "Answers\n\n| what |\n| --- |\n| it pays |\n"),
        ("gain.svg", "![Gain: it falls](pictures/gain.svg)\n"),
        ("machine", "- a machine\n"),
        ("sizes", "Sizes\n\n| codec |\n| --- |\n| wire |\n"),
        ("sizes.svg", "![Time: it rises](pictures/sizes.svg)\n"),
    ],
)
@pytest.mark.parametrize("inside", ["", "what was there\nbefore\n"])
def test_a_place_is_filled_and_nothing_else_changes(key: str, shown: str, inside: str) -> None:
    assert filled(place(key, inside), document(), "pictures") == place(key, shown)


def test_every_place_is_filled_by_itself() -> None:
    text = place("machine", "") + place("sizes", "")
    done = place("machine", "- a machine\n") + place(
        "sizes", "Sizes\n\n| codec |\n| --- |\n| wire |\n"
    )
    assert filled(text, document(), "") == done
    assert filled(done, document(), "") == done


def test_a_key_that_is_none() -> None:
    with pytest.raises(
        NoSuchPart,
        match=r"'size': there are answers, gain\.svg, machine, sizes, sizes\.svg, verdict",
    ):
        filled(place("size", ""), document(), "")


def test_a_text_without_a_place() -> None:
    with pytest.raises(NoSuchPart, match="write <!-- report: verdict -->"):
        filled("nothing here", document(), "")


def test_real_results_have_parts_to_fill_in(tmp_path: Path) -> None:
    write_results(tmp_path)
    real = document_of(find_sources(tmp_path), lambda source: source.name)
    text = filled(place("verdict", "") + place("machine", ""), real, "")
    answers, picture, *_ = real.verdict
    assert isinstance(answers, Table)
    assert isinstance(picture, LineChart | RowChart)
    assert all(row.cells[1].text in text for row in answers.rows)
    assert f"({picture.key}.svg)" in text
