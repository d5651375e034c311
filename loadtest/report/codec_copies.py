"""How often a payload is copied, and what that takes in memory (no I/O)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from capnp_rig.loadtest.report.chart import Axis, RowChart, Series, Value
from capnp_rig.loadtest.report.codec_lines import ordered
from capnp_rig.loadtest.report.codec_view import CodecView, thing
from capnp_rig.loadtest.report.document import Cell, Part, Row, Table
from capnp_rig.loadtest.report.line_styles import look_of
from capnp_rig.loadtest.report.units import NOTHING, digits, sentence, size_text
from capnp_rig.loadtest.stats.figure import Figure, FigureKind


def copy_parts(view: CodecView, document: Mapping[str, Any]) -> Iterator[Part]:
    """Yield the copy ledger, and what a large message took in memory."""
    copies = document.get("copies")
    if isinstance(copies, list) and copies:
        yield _ledger(copies)
    memory = view.of_kind(FigureKind.MEMORY)
    if memory:
        yield _memory_chart(memory)
        yield _memory_table(view)


def _ledger(copies: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for path in copies:
        allocated = path.get("allocated")
        rows.append(
            Row(
                [
                    Cell(str(path.get("codec", ""))),
                    Cell(str(path.get("path", ""))),
                    Cell(str(path.get("copies", NOTHING)), _number(path.get("copies"))),
                    Cell(NOTHING if allocated is None else f"{allocated:.3g}", _number(allocated)),
                    Cell("yes" if path.get("is_view") else "no"),
                    Cell(str(path.get("note", ""))),
                ]
            )
        )
    return Table(
        "copy-ledger",
        "How often a payload is copied; what is allocated is in payloads, view tells "
        "whether the array lies in the frame that was received",
        ["codec", "path", "copies", "allocated", "view", "note"],
        rows,
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _memory_places(figures: Iterable[Figure]) -> list[tuple[str, str, float]]:
    return list(
        dict.fromkeys(
            (
                str(figure.labels.get("message")),
                figure.contract,
                figure.labels.get("size_bytes") or 0,
            )
            for figure in figures
        )
    )


def _memory_chart(memory: Sequence[Figure]) -> RowChart:
    message, _, size = max(_memory_places(memory), key=lambda place: place[2])
    at_size = [
        figure
        for figure in memory
        if (figure.labels.get("message"), figure.labels.get("size_bytes")) == (message, size)
    ]
    codecs = [codec for codec, _ in ordered(at_size)]
    contracts = list(dict.fromkeys(figure.contract for figure in at_size))
    by_place = {(figure.labels.get("codec"), figure.contract): figure for figure in at_size}
    series = [
        Series(
            contract,
            [_payloads(by_place.get((codec, contract)), size) for codec in codecs],
            look_of(contract, {}, number),
        )
        for number, contract in enumerate(contracts)
    ]
    none = [
        str(figure.labels.get("codec"))
        for figure in at_size
        if figure.contract == contracts[0]
        and figure.value is not None
        and figure.value < size / 100
    ]
    finding = f"{contracts[0]}: no further memory with {', '.join(none)}" if none else ""
    return RowChart(
        key="memory",
        title=f"Memory for {thing(message)} of {size_text(size)}",
        finding=sentence(finding) if finding else "How far the peak of the memory rose.",
        x=Axis("rise of the resident memory's peak, in payloads"),
        rows=codecs,
        series=series,
    )


def _payloads(figure: Figure | None, size: float) -> Value:
    if figure is None or figure.value is None:
        return Value(None)
    share = figure.value / size
    text = f"{figure.labels.get('codec')}, {figure.contract}: {size_text(figure.value)}"
    return Value(share, void=figure.void_text, text=text, label=digits(share, 2))


def _memory_table(view: CodecView) -> Table:
    allocated = {
        (figure.labels.get("codec"), figure.contract, figure.labels.get("size_bytes")): figure
        for figure in view.of_kind(FigureKind.ALLOCATED)
    }
    rows = []
    for figure in view.of_kind(FigureKind.MEMORY):
        labels = figure.labels
        size = labels.get("size_bytes")
        python = allocated.get((labels.get("codec"), figure.contract, size))
        rows.append(
            Row(
                [
                    Cell(str(labels.get("message"))),
                    Cell(figure.contract),
                    Cell(size_text(size), size),
                    Cell(str(labels.get("codec"))),
                    Cell(size_text(figure.value), figure.value),
                    Cell(
                        size_text(None if python is None else python.value),
                        None if python is None else python.value,
                    ),
                ],
                figure.void_text,
            )
        )
    headings = ["message", "contract", "size", "codec", "resident", "by Python's allocators"]
    return Table("memory-table", "Rise of the memory's peak", headings, rows, folded=True)
