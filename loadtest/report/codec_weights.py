"""What messages weigh: encoded, compressed, and in memory with their copies (no I/O)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from capnp_rig.loadtest.report.cells import cell, row
from capnp_rig.loadtest.report.chart import Axis, RowChart, Series, Value
from capnp_rig.loadtest.report.codec_lines import key_of
from capnp_rig.loadtest.report.codec_view import CodecView, by_codec, grouped, matching, thing
from capnp_rig.loadtest.report.document import Part, Row, Table
from capnp_rig.loadtest.report.figures import row_series
from capnp_rig.loadtest.report.units import (
    capitalized,
    count_text,
    digits,
    sentence,
    size_text,
    time_text,
)
from capnp_rig.loadtest.stats.figure import Figure, FigureKind


def _series(
    figures: Sequence[Figure], label: str, size: float, said: Callable[[Figure], str]
) -> list[Series]:
    """Return a series per value of a label, with a bar per codec: multiples of a message's size."""

    def bar(figure: Figure) -> Value:
        share = (figure.value or 0.0) / size
        text = f"{_way(figure, label)}: {said(figure)}"
        return Value(share, void=figure.void_text, text=text, label=digits(share, 2))

    groups = {name: some for (name,), some in grouped(figures if size else [], label).items()}
    return row_series(groups, "codec", [*by_codec(figures)], bar, {})


def _way(figure: Figure, label: str) -> str:
    return f"{figure.labels['codec']}, {figure.labels[label]}"


# --- encoded sizes ---------------------------------------------------------------------------


def encoded_parts(view: CodecView) -> Iterator[Part]:
    """Yield a chart per message of the encoded sizes, and all of them as a table."""
    sizes = [figure for figure in view.of_kind(FigureKind.SIZE) if figure.value is not None]
    for (message, size), some in grouped(sizes, "message", "size_bytes").items():
        yield _encoded_chart(message, size, some)
    if sizes:
        headings = ["message", "codec", "method", "bytes", "time to compress"]
        rows = [_encoded_row(figure, figure.labels) for figure in sizes]
        yield Table("encoded-table", "Encoded sizes", headings, rows, folded=True)


def _encoded_chart(message: str, size: float, figures: Sequence[Figure]) -> RowChart:
    least = min(figures, key=lambda figure: figure.value or 0.0)
    most = max(figures, key=lambda figure: figure.value or 0.0)
    return RowChart(
        key=key_of("encoded", message, size_text(size)),
        title=capitalized(f"{thing(message)} of {size_text(size)}, encoded"),
        finding=sentence(
            f"the least is {size_text(least.value)} ({_way(least, 'method')}), "
            f"the most {size_text(most.value)} ({_way(most, 'method')})"
        ),
        x=Axis("encoded size over the size of the values", low=0),
        rows=[*by_codec(figures)],
        series=_series(figures, "method", size, _encoded_text),
    )


def _encoded_text(figure: Figure) -> str:
    took = figure.labels.get("compress_ns")
    return f"{count_text(figure.value)} B{f', compressed in {time_text(took)}' if took else ''}"


def _encoded_row(figure: Figure, labels: Mapping[str, Any]) -> Row:
    return row(
        f"{labels['message']}, {size_text(labels['size_bytes'])}",
        labels["codec"],
        labels["method"],
        cell(figure.value, count_text),
        cell(labels.get("compress_ns"), time_text),
    )


# --- copies and memory -----------------------------------------------------------------------


def copy_parts(view: CodecView, document: Mapping[str, Any]) -> Iterator[Part]:
    """Yield the copy ledger, and what a large message took in memory."""
    copies = document.get("copies")
    if isinstance(copies, list) and copies:
        yield Table(
            "copy-ledger",
            "How often a payload is copied; what is allocated is in payloads, view tells "
            "whether the array lies in the frame that was received",
            ["codec", "path", "copies", "allocated", "view", "note"],
            [_copy_row(path) for path in copies],
        )
    memory = view.of_kind(FigureKind.MEMORY)
    if memory:
        yield _memory_chart(memory)
        headings = ["message", "contract", "size", "codec", "resident", "by Python's allocators"]
        rows = [_memory_row(view, figure, figure.labels) for figure in memory]
        yield Table("memory-table", "Rise of the memory's peak", headings, rows, folded=True)


def _copy_row(path: Mapping[str, Any]) -> Row:
    return row(
        str(path.get("codec", "")),
        str(path.get("path", "")),
        cell(path.get("copies"), str),
        cell(path.get("allocated"), "{:.3g}".format),
        "yes" if path.get("is_view") else "no",
        str(path.get("note", "")),
    )


def _memory_chart(memory: Sequence[Figure]) -> RowChart:
    largest = max(memory, key=lambda figure: figure.labels["size_bytes"])
    message, size = largest.labels["message"], largest.labels["size_bytes"]
    figures = matching(memory, message=message, size_bytes=size)
    contract = figures[0].contract
    free = [
        figure.labels["codec"]
        for figure in matching(figures, contract=contract)
        if figure.value is not None and figure.value < size / 100
    ]
    said = f"{contract}: no further memory with {', '.join(free)}"
    return RowChart(
        key="memory",
        title=f"Memory for {thing(message)} of {size_text(size)}",
        finding=sentence(said if free else "how far the peak of the memory rose"),
        x=Axis("rise of the resident memory's peak, in payloads"),
        rows=[*by_codec(figures)],
        series=_series(figures, "contract", size, lambda figure: size_text(figure.value)),
    )


def _memory_row(view: CodecView, figure: Figure, labels: Mapping[str, Any]) -> Row:
    place = {name: labels[name] for name in ("message", "contract", "size_bytes", "codec")}
    allocated = view.of_kind(FigureKind.ALLOCATED, **place)
    return row(
        labels["message"],
        figure.contract,
        cell(labels["size_bytes"], size_text),
        labels["codec"],
        cell(figure.value, size_text),
        cell(allocated[0].value if allocated else None, size_text),
        void=figure.void_text,
    )
