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
    for one in copies:
        allocated = one.get("allocated")
        rows.append(
            Row(
                [
                    Cell(str(one.get("codec", ""))),
                    Cell(str(one.get("path", ""))),
                    Cell(str(one.get("copies", NOTHING)), _number(one.get("copies"))),
                    Cell(NOTHING if allocated is None else f"{allocated:.3g}", _number(allocated)),
                    Cell("yes" if one.get("is_view") else "no"),
                    Cell(str(one.get("note", ""))),
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
            (str(one.labels.get("message")), one.contract, one.labels.get("size_bytes") or 0)
            for one in figures
        )
    )


def _memory_chart(memory: Sequence[Figure]) -> RowChart:
    message, _, size = max(_memory_places(memory), key=lambda place: place[2])
    at_size = [
        one
        for one in memory
        if (one.labels.get("message"), one.labels.get("size_bytes")) == (message, size)
    ]
    codecs = [codec for codec, _ in ordered(at_size)]
    contracts = list(dict.fromkeys(one.contract for one in at_size))
    by_place = {(one.labels.get("codec"), one.contract): one for one in at_size}
    series = [
        Series(
            contract,
            [_payloads(by_place.get((codec, contract)), size) for codec in codecs],
            look_of(contract, {}, number),
        )
        for number, contract in enumerate(contracts)
    ]
    none = [
        str(one.labels.get("codec"))
        for one in at_size
        if one.contract == contracts[0] and one.value is not None and one.value < size / 100
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
        (one.labels.get("codec"), one.contract, one.labels.get("size_bytes")): one
        for one in view.of_kind(FigureKind.ALLOCATED)
    }
    rows = []
    for one in view.of_kind(FigureKind.MEMORY):
        labels = one.labels
        size = labels.get("size_bytes")
        python = allocated.get((labels.get("codec"), one.contract, size))
        rows.append(
            Row(
                [
                    Cell(str(labels.get("message"))),
                    Cell(one.contract),
                    Cell(size_text(size), size),
                    Cell(str(labels.get("codec"))),
                    Cell(size_text(one.value), one.value),
                    Cell(
                        size_text(None if python is None else python.value),
                        None if python is None else python.value,
                    ),
                ],
                one.void_text,
            )
        )
    headings = ["message", "contract", "size", "codec", "resident", "by Python's allocators"]
    return Table("memory-table", "Rise of the memory's peak", headings, rows, folded=True)
