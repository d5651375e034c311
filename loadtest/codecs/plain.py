"""Native values as the dicts that self-describing formats send, and tensors back from bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from capnp_rig.loadtest.codecs.messages import Record, Tensor


def record_dict(record: Record) -> dict[str, Any]:
    """Return a record by the names of its fields, its key as bytes."""
    id_, time, kind, active, total, change, price, weight, name, note, key, readings = record
    return {
        "id": id_,
        "time": time,
        "kind": kind,
        "active": active,
        "total": total,
        "change": change,
        "price": price,
        "weight": weight,
        "name": name,
        "note": note,
        "key": key,
        "readings": readings,
    }


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
