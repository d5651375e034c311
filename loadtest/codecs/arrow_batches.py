"""Arrow IPC by pyarrow: a record batch in a stream, whose columns lie one after the other.

A batch is what a table wants to be: a column is read where it lies, side by side, and no other one
is touched. Kinds are sent as numbers. Needs pyarrow, which only this codec uses.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from capnp_rig.loadtest.codecs.codec import Codec, Frame, table_codec
from capnp_rig.loadtest.codecs.messages import NUMERIC, Record, Table
from capnp_rig.loadtest.codecs.plain import record_dict
from capnp_rig.loadtest.codecs.reading import KIND_NUMBERS
from capnp_rig.loadtest.stats.messages import Message

_TYPES = {
    **{name: pa.from_numpy_dtype(dtype) for name, dtype in NUMERIC.items()},
    "name": pa.string(),
    "note": pa.string(),
    "key": pa.binary(),
    "readings": pa.list_(pa.float64()),
}
_SCHEMA = pa.schema(_TYPES.items())


def _frame(batch: Any) -> Frame:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def _write_records(records: Sequence[Record]) -> Frame:
    rows = [{**record_dict(each), "kind": KIND_NUMBERS[each.kind]} for each in records]
    return _frame(pa.RecordBatch.from_pylist(rows, _SCHEMA))


def _write_columns(table: Table, names: Sequence[str]) -> Frame:
    arrays = [pa.array(table.columns[name]) for name in names]
    return _frame(pa.RecordBatch.from_arrays(arrays, list(names)))


def _read_columns(frame: Frame, names: Sequence[str]) -> Iterable[Any]:
    with pa.ipc.open_stream(frame) as stream:
        batch = stream.read_next_batch()
    # Bools are bits here, too.
    return [batch.column(name).to_numpy(zero_copy_only=False) for name in names]


ARROW = Codec(
    "Arrow IPC", {Message.TABLE: table_codec(_write_records, _read_columns, _write_columns)}
)
