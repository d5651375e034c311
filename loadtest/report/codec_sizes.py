"""How large messages are once they are encoded, and compressed (no I/O)."""

from collections.abc import Iterator, Sequence

from capnp_rig.loadtest.report.chart import Axis, RowChart, Series, Value
from capnp_rig.loadtest.report.codec_lines import key_of, ordered
from capnp_rig.loadtest.report.codec_view import CodecView, thing
from capnp_rig.loadtest.report.document import Cell, Part, Row, Table
from capnp_rig.loadtest.report.line_styles import look_of
from capnp_rig.loadtest.report.units import (
    capitalized,
    count_text,
    digits,
    sentence,
    size_text,
    time_text,
)
from capnp_rig.loadtest.stats.figure import Figure, FigureKind


def encoded_parts(view: CodecView) -> Iterator[Part]:
    """Yield a chart per message of the encoded sizes, and all of them as a table."""
    sizes = [figure for figure in view.of_kind(FigureKind.SIZE) if figure.value is not None]
    places = dict.fromkeys(
        (str(figure.labels.get("message")), figure.labels.get("size_bytes") or 0)
        for figure in sizes
    )
    for message, size in places:
        yield _encoded_chart(message, size, sizes)
    if sizes:
        yield _encoded_table(sizes)


def _encoded_chart(message: str, size: float, sizes: Sequence[Figure]) -> RowChart:
    own = [
        figure
        for figure in sizes
        if (figure.labels.get("message"), figure.labels.get("size_bytes")) == (message, size)
    ]
    codecs = [codec for codec, _ in ordered(own)]
    methods = list(dict.fromkeys(str(figure.labels.get("method")) for figure in own))
    by_place = {
        (figure.labels.get("codec"), str(figure.labels.get("method"))): figure for figure in own
    }
    series = [
        Series(
            method,
            [_share(by_place.get((codec, method)), size) for codec in codecs],
            look_of(method, {}, number),
        )
        for number, method in enumerate(methods)
    ]
    least = min(own, key=lambda figure: figure.value or 0.0)
    most = max(own, key=lambda figure: figure.value or 0.0)
    return RowChart(
        key=key_of("encoded", message, size_text(size)),
        title=capitalized(f"{thing(message)} of {size_text(size)}, encoded"),
        finding=sentence(
            f"the least is {size_text(least.value)} ({_way(least)}), "
            f"the most {size_text(most.value)} ({_way(most)})"
        ),
        x=Axis("encoded size over the size of the values", low=0),
        rows=codecs,
        series=series,
    )


def _way(figure: Figure) -> str:
    return f"{figure.labels.get('codec')}, {figure.labels.get('method')}"


def _share(figure: Figure | None, size: float) -> Value:
    if figure is None or figure.value is None or not size:
        return Value(None)
    share = figure.value / size
    took = figure.labels.get("compress_ns")
    time = f", compressed in {time_text(took)}" if took else ""
    text = f"{_way(figure)}: {count_text(figure.value)} B{time}"
    return Value(share, text=text, label=digits(share, 2))


def _encoded_table(sizes: Sequence[Figure]) -> Table:
    rows = []
    for figure in sizes:
        labels = figure.labels
        took = labels.get("compress_ns")
        rows.append(
            Row(
                [
                    Cell(f"{labels.get('message')}, {size_text(labels.get('size_bytes'))}"),
                    Cell(str(labels.get("codec"))),
                    Cell(str(labels.get("method"))),
                    Cell(count_text(figure.value), figure.value),
                    Cell(time_text(took), took),
                ]
            )
        )
    headings = ["message", "codec", "method", "bytes", "time to compress"]
    return Table("encoded-table", "Encoded sizes", headings, rows, folded=True)
