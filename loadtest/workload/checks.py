"""How a reply is compared with what it must be, and both as JSON for people.

A `Check` belongs to a request. What a reply to constant params must be is told by --expect, or by
the first reply to them: its fields, since a server may lay out the same values in another way each
time. `capnp_exchange` compares bytes first, and asks a check about those that differ.
"""

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from capnp_rig.loadtest.stats.failures import shown
from capnp_rig.loadtest.stats.tally import FirstReply
from capnp_rig.loadtest.workload.bodies import WRONG_REPLY
from capnp_rig.loadtest.workload.expectations import Expectation
from capnp_rig.loadtest.workload.json_params import Slot
from capnp_rig.loadtest.workload.templates import Values
from capnp_rig.wire.encoding.view_repr import is_view
from capnp_rig.wire.errors import WireError

NOT_FIRST = (
    "wrong reply: not the first one to these params; one that varies needs --expect or --check id"
)
# So many first replies are compared with those of other processes: more would be a long report.
_PLACES = 1024


class Check(Protocol):
    """What is wrong with results, and what they should be."""

    def __call__(self, results: Any, /) -> str | None:
        """Return None, or the kind of fault, which holds no payload: "wrong reply: field sum".

        Raises:
            MalformedMessage: The results cannot be read.
        """

    def expected(self) -> str:
        """Return what the results must be as JSON, Data as text where it is; empty for anything."""


class Anything:
    """Compares nothing: the results could be opened."""

    def __call__(self, _results: Any, /) -> None:
        """Return that nothing is wrong."""

    def expected(self) -> str:
        """Return nothing."""
        return ""


class Watched:
    """Lets somebody see the results before they are compared."""

    __slots__ = ("_check", "_see", "expected")

    def __init__(self, check: Check, see: Callable[[Any], object]) -> None:
        self._check, self._see, self.expected = check, see, check.expected

    def __call__(self, results: Any, /) -> str | None:
        """Return what the other check does."""
        self._see(results)
        return self._check(results)


class FieldsOf:
    """Compares the fields that an expectation names."""

    __slots__ = ("_expectation", "_fields", "_values")

    def __init__(self, expectation: Expectation, fields: Mapping[str, Any], values: Values) -> None:
        self._expectation, self._fields, self._values = expectation, fields, values

    def __call__(self, results: Any, /) -> str | None:
        """Return which field is wrong, None if none is."""
        return self._expectation(self._values, results)

    def expected(self) -> str:
        """Return the fields, with their templates filled in."""
        return readable(_filled_in(self._fields, self._values))


class ReverseOf:
    """Compares a field with a body that is reversed, and the nonce reversed behind it."""

    __slots__ = ("_end", "_field", "_start")

    def __init__(self, field: str, start: bytes, end: bytes) -> None:
        self._field, self._start, self._end = field, start, end

    def __call__(self, results: Any, /) -> str | None:
        """Return that the reply is wrong, or None."""
        # As bytes: a memoryview is compared element by element.
        reply, start, end = bytes(getattr(results, self._field)), self._start, self._end
        if len(reply) == len(start) + len(end) and reply.startswith(start) and reply.endswith(end):
            return None
        return WRONG_REPLY

    def expected(self) -> str:
        """Return the results."""
        return readable({self._field: self._start + self._end})


class EqualToFirst:
    """Compares replies with the first one to the same params in this process.

    The first one is noted in `firsts` under `place`, where the params stand.
    """

    def __init__(self, place: str, firsts: dict[str, FirstReply]) -> None:
        self._frame: bytes | None = None
        self._place, self._firsts = place, firsts
        self._first: tuple[str, str] | None = None

    def __call__(self, results: Any, /) -> str | None:
        """Return that the reply is another than the first, None if it is the first or equal."""
        text = _encode(results.to_dict())
        if self._first is None:
            self._first = text, readable(results)
            digest = hashlib.sha256(text.encode()).hexdigest()[:32]
            if len(self._firsts) < _PLACES:
                self._firsts[self._place] = digest, shown(self._first[1])
        return None if text == self._first[0] else NOT_FIRST

    def is_known(self, data: bytes | bytearray, at: int, end: int) -> bool:
        """Tell whether the bytes of a reply are those that `keep` got: so are its fields."""
        frame = self._frame
        return frame is not None and end - at == len(frame) and data.startswith(frame, at)

    def keep(self, data: bytes | bytearray, at: int, end: int) -> None:
        """Keep the bytes of a reply that was right, if it is the first such."""
        if self._frame is None:
            self._frame = bytes(data[at:end])

    def expected(self) -> str:
        """Return the first reply."""
        return "" if self._first is None else self._first[1]


def _comparable(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else _kind(value)


# --- as JSON ---------------------------------------------------------------------------------


def json_text(results: Any, *, indent: int | None = None) -> str:
    """Return results as `json_params` reads them, so that they may be given as --expect.

    Raises:
        MalformedMessage: They cannot be read.
    """
    plain = _plain(results, data_as_text=False)
    return json.dumps(plain, ensure_ascii=False, indent=indent, default=_kind)


def readable(results: Any) -> str:
    """Return results as JSON for people, with the text that Data holds in place of base64."""
    try:
        plain = _plain(results, data_as_text=True)
    except WireError as error:
        return f"unreadable: {error}"
    return json.dumps(plain, ensure_ascii=False, default=_kind)


# Compiled by Python once, where `json.dumps` makes one each time that it gets a `default`.
_encode = json.JSONEncoder(default=_comparable).encode


def _plain(value: Any, *, data_as_text: bool) -> Any:
    if is_view(value):
        value = value.to_dict()
    if isinstance(value, memoryview):
        value = bytes(value) if value.format == "B" else value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(item, data_as_text=data_as_text) for name, item in value.items()}
    if isinstance(value, bytes | bytearray):
        if data_as_text:
            return value.decode(errors="backslashreplace")
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item, data_as_text=data_as_text) for item in value]
    return value


def _kind(value: object) -> str:
    # A capability or an AnyPointer of pycapnp's, whose `repr` may end the process.
    return f"<{type(value).__name__.removeprefix('_')}>"


def _filled_in(value: Any, values: Values) -> Any:
    if isinstance(value, Slot):
        return value.render(values)
    if isinstance(value, Mapping):
        return {name: _filled_in(item, values) for name, item in value.items()}
    return [_filled_in(item, values) for item in value] if isinstance(value, list) else value
