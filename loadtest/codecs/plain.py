"""Native values as the dicts that self-describing formats send, and tensors back from bytes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from capnp_rig.loadtest.codecs.codec import Built, Frame, MessageCodec, Opened
from capnp_rig.loadtest.codecs.messages import KINDS, Record, Table, Tensor
from capnp_rig.loadtest.codecs.reading import read_text, readers, record_dicts
from capnp_rig.loadtest.stats.messages import Message
from capnp_rig.wire.encoding.generated import compile_function

# Of what was opened as dicts of plain values.
DICT_READS = readers('r["{}"]')
# A record by the names of its fields, its key as bytes.
record_dict = record_dicts("{}")


def records_dict(records: Sequence[Record]) -> dict[str, Any]:
    """Return a list of records as a message."""
    return {"records": [record_dict(record) for record in records]}


def tensor_dict(tensor: Tensor) -> dict[str, Any]:
    """Return a tensor by the names of its fields, its data as a view of the elements' bytes."""
    name, shape, values = tensor
    return {"name": name, "shape": shape, "data": values.data.cast("B")}


def tensor_of(name: str, shape: Sequence[int], data: Any, *, copy: bool) -> Tensor:
    """Return a tensor whose elements are in `data`; with `copy` they no longer are."""
    values = np.frombuffer(data, "<f4").reshape(shape)
    return Tensor(name, list(shape), values.copy() if copy else values)


def row_dicts(names: Sequence[str]) -> Callable[[Table], list[dict[str, Any]]]:
    """Return what makes dicts of a table's records that have the fields `names` alone."""
    items = ", ".join(f"{name!r}: {name}" for name in names)
    source = (
        "def rows(columns):\n"
        f"    return [{{{items}}} for {', '.join(names)}, in zip(*columns, strict=True)]\n"
    )
    rows: Callable[[Any], list[dict[str, Any]]] = compile_function(
        "rows", f"rows of {', '.join(names)}", source, {}
    )
    return lambda table: rows(column_lists(table, names))


def column_lists(table: Table, names: Sequence[str], *, named_kinds: bool = True) -> list[Any]:
    """Return columns as lists of Python values, a kind as its name or its number."""
    return [
        [KINDS[kind] for kind in table.columns[name].tolist()]
        if name == "kind" and named_kinds
        else table.columns[name].tolist()
        for name in names
    ]


def dict_codecs(
    dumps: Callable[[Built], Frame],
    loads: Callable[[Frame], Opened],
    write_text: Callable[[str], Frame] | None = None,
) -> dict[Message, MessageCodec]:
    """Return how a text, a record and records are carried as dicts.

    `write_text` is for a `dumps` of Python: a text's `build_encode` without that call in between.
    """
    return {
        Message.TEXT: MessageCodec(
            build=lambda text: {"content": text},
            encode=dumps,
            build_encode=write_text or (lambda text: dumps({"content": text})),
            open=loads,
            reads=DICT_READS[Message.TEXT],
            open_reads={100: lambda frame: read_text(loads(frame)["content"])},
            to_native=lambda frame: loads(frame)["content"],
        ),
        Message.RECORD: MessageCodec(
            build=record_dict,
            encode=dumps,
            open=loads,
            reads=DICT_READS[Message.RECORD],
            to_native=loads,
        ),
        Message.RECORDS: MessageCodec(
            build=records_dict,
            encode=dumps,
            open=loads,
            reads=DICT_READS[Message.RECORDS],
            to_native=lambda frame: loads(frame)["records"],
        ),
    }
