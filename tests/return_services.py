"""Methods that return everything there is, and raise everything there is: both engines agree."""

import asyncio
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import capnp
import numpy as np

from capnp_rig.objects.binding import ServiceError
from capnp_rig.schema import load_schema
from capnp_rig.wire import AnyValue

DATA = Path(__file__).resolve().parent / "data"
RETURNS, KINDS = load_schema(DATA / "returns.capnp").Returns, load_schema(DATA / "kinds.capnp")
NUMBERS = capnp._ListSchema(capnp.types.Int16)
GRID = np.arange(6, dtype=np.uint8).reshape(2, 3)


class Custom(BaseException):
    """What is no Exception."""


async def coroutine() -> dict[str, bytes]:
    return {"data": b""}


CASES: dict[str, Callable[[Any], Any]] = {
    "none": lambda _: None,
    "empty": lambda _: {},
    "bytes": lambda _: {"data": b"\x01\x02"},
    "bytearray": lambda _: {"data": bytearray(b"\x01\x02")},
    "memoryview": lambda _: {"data": memoryview(b"0123456789")[3:6]},
    "strided": lambda _: {"data": memoryview(b"0123456789")[::2]},
    "str for data": lambda _: {"data": "Grüße"},
    "array": lambda _: {"data": array("i", [1, 2])},
    "uint8 array": lambda _: {"data": GRID},
    "float array": lambda _: {"data": np.array([1.5, 2.5], dtype="<f4")},
    "transposed array": lambda _: {"data": GRID.T},
    "empty array": lambda _: {"data": np.zeros((0, 3))},
    "none for data": lambda _: {"data": None, "text": "t"},
    "params' data": lambda p: {"data": p.kinds.data},
    "params' text": lambda p: {"text": p.kinds.text},
    "params' struct": lambda p: {"kinds": p.kinds},
    "params' inner": lambda p: {"kinds": {"inner": p.kinds.inner, "inners": [p.kinds.inner]}},
    "params' lists": lambda p: {
        "kinds": {"longs": p.kinds.longs, "texts": p.kinds.texts, "hues": p.kinds.hues}
    },
    "params' structs": lambda p: {"kinds": {"inners": p.kinds.inners, "grid": p.kinds.grid}},
    "params' enum": lambda p: {"kinds": {"colour": p.kinds.colour}},
    "numbers": lambda _: {"kinds": {"longs": [1, -2], "shorts": (3, 4), "floats": [1, 2.5]}},
    "number arrays": lambda _: {
        "kinds": {"longs": np.array([1, -2]), "doubles": np.array([1.0, 2.0], dtype="f4")}
    },
    "strided numbers": lambda _: {"kinds": {"longs": np.arange(6)[::2]}},
    "numpy scalars": lambda _: {"number": np.int64(7), "kinds": {"f64": np.float32(1.5)}},
    "bools": lambda _: {"flag": True, "kinds": {"flags": [True, False]}},
    "nested": lambda _: {"kinds": {"again": {"again": {"text": "deep", "blobs": [bytearray(2)]}}}},
    "nested none": lambda _: {"kinds": {"text": None, "u64": 2**64 - 1}},
    "rare": lambda _: {"rare": {"second": "chosen", "group": {"low": 1}, "flags": [True]}},
    "any text": lambda _: {"rare": {"any": "text"}},
    "any struct": lambda _: {"rare": {"any": AnyValue(KINDS.Inner, {"number": 7, "name": "n"})}},
    "any list": lambda _: {"rare": {"any": AnyValue(NUMBERS, [1, -2])}},
    "bool for int": lambda _: {"number": True},
    "numpy bool": lambda _: {"flag": np.array([True])[0]},
    "int for bool": lambda _: {"flag": 1},
    "int for any": lambda _: {"rare": {"any": 7}},
    "texts for numbers": lambda _: {"rare": {"any": AnyValue(NUMBERS, ["a"])}},
    "float for int": lambda _: {"number": 1.0},
    "int too large": lambda _: {"number": 40_000},
    "int for text": lambda _: {"text": 1},
    "bytes for text": lambda _: {"text": b"x"},
    "int for data": lambda _: {"data": 1},
    "lone surrogate": lambda _: {"text": "\ud800"},
    "unknown field": lambda _: {"nope": 1},
    "unknown inner field": lambda _: {"kinds": {"nope": 1}},
    "unknown enumerant": lambda _: {"kinds": {"colour": "pink"}},
    "str for list": lambda _: {"kinds": {"texts": "abc"}},
    "list for struct": lambda _: {"kinds": [1]},
    "list": lambda _: ["data"],
    "empty list": lambda _: [],
    "zero": lambda _: 0,
    "number": lambda _: 5,
    "bytes alone": lambda _: b"data",
    "coroutine": lambda _: coroutine(),
    "generator": lambda _: (number for number in range(3)),
    "too large": lambda _: {"data": bytes(5_000_000)},
    "too large in parts": lambda _: {"data": bytes(3_000_000), "text": "x" * 2_000_000},
    "service error": lambda _: _throw(ServiceError("message = no such word\n")),
    "exception": lambda _: _throw(ValueError("secret of /etc/passwd")),
    "exit": lambda _: _throw(SystemExit(3)),
    "interrupt": lambda _: _throw(KeyboardInterrupt("secret")),
    "generator exit": lambda _: _throw(GeneratorExit("secret")),
    "cancelled": lambda _: _throw(asyncio.CancelledError("secret")),
    "custom": lambda _: _throw(Custom("secret")),
}


def _throw(error: BaseException) -> None:
    raise error


class Returns:
    interface = RETURNS

    def give(self, params: Any) -> Any:
        return CASES[params.case](params)

    async def giveLater(self, params: Any) -> Any:
        case: str = params.case
        if case == "wait":
            await asyncio.sleep(60)
        await asyncio.sleep(0)
        return CASES[case](params)
