"""How a reply is compared with what it must be, and both as JSON for people.

A `Check` belongs to a request. What a reply to constant params must be is told by --expect, or by
the first reply to them: its fields, since a server may lay out the same values in another way each
time. `capnp_exchange` compares bytes first, and asks a check about those that differ.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol

from capnp_rig.loadtest.stats.failures import shown
from capnp_rig.loadtest.stats.tally import FirstReply
from capnp_rig.loadtest.workload.bodies import WRONG_REPLY
from capnp_rig.loadtest.workload.expectations import Expectation
from capnp_rig.loadtest.workload.templated_params import Slot
from capnp_rig.loadtest.workload.templates import Values
from capnp_rig.wire.encoding.view_repr import is_view
from capnp_rig.wire.errors import WireError
from capnp_rig.wire.json_values.writing import JsonForm

NOT_FIRST = (
    "wrong reply: not the first one to these params; one that varies needs --expect or --check id"
)
# Of so many first replies the text is told, too, to compare them with those of other processes.
_TOLD_FIRSTS = 1024
# Of other layouts of the first reply: a server may use a few of them in turn.
_KEPT_FRAMES, _KEPT_BYTES = 256, 4096
# Of each first reply, for people.
_MOST_CHARS = 65_536


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

    The first one is noted in `firsts` under `place`, where the params stand; `request` is asked
    for their text then.
    """

    def __init__(
        self, place: str, request: Callable[[], str], firsts: dict[str, FirstReply]
    ) -> None:
        self._frame: bytes | None = None
        self._others: set[bytes] = set()
        self._place, self._request, self._firsts = place, request, firsts
        # Not the text: there may be thousands of lines, with large replies.
        self._digest: str | None = None
        self._readable = ""

    def __call__(self, results: Any, /) -> str | None:
        """Return that the reply is another than the first, None if it is the first or equal."""
        digest = blake2b(json_text(results).encode(), digest_size=16).hexdigest()
        if self._digest is None:
            self._digest, self._readable = digest, readable(results)[:_MOST_CHARS]
            is_told = len(self._firsts) < _TOLD_FIRSTS
            texts = (self._request(), self._readable) if is_told else ("", "")
            self._firsts[self._place] = digest, shown(texts[0]), shown(texts[1])
        return None if digest == self._digest else NOT_FIRST

    def is_known(self, data: bytes | bytearray, at: int, end: int) -> bool:
        """Tell whether a reply has the bytes of one that `keep` got, and so its fields."""
        frame, size = self._frame, end - at
        if frame is not None and size == len(frame) and data.startswith(frame, at):
            return True
        return size <= _KEPT_BYTES and bytes(data[at:end]) in self._others

    def keep(self, data: bytes | bytearray, at: int, end: int) -> None:
        """Keep the bytes of a reply that was right: the first, and some that are small."""
        if self._frame is None:
            self._frame = bytes(data[at:end])
        elif end - at <= _KEPT_BYTES and len(self._others) < _KEPT_FRAMES:
            self._others.add(bytes(data[at:end]))

    def expected(self) -> str:
        """Return the first reply."""
        return self._readable


# --- as JSON ---------------------------------------------------------------------------------


def json_text(results: Any, *, indent: int | None = None) -> str:
    """Return results as `templated_params` reads them, so that they may be given as --expect.

    Raises:
        MalformedMessage: They cannot be read.
    """
    plain = _AS_SENT.of(results)
    return (
        _encode(plain) if indent is None else json.dumps(plain, ensure_ascii=False, indent=indent)
    )


def readable(results: Any) -> str:
    """Return results as JSON for people, with the text that Data holds in place of base64."""
    try:
        return _encode(_for_people(results))
    except WireError as error:
        return f"unreadable: {error}"


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


# Made once: `json.dumps` makes one each time that it is not its own.
_encode = json.JSONEncoder(ensure_ascii=False).encode
_AS_SENT = JsonForm()
_FOR_PEOPLE = JsonForm(_text)


def _for_people(value: Any) -> Any:
    """Return what `json.dumps` takes of a view, or of values to write, which may have some."""
    if is_view(value):
        return _FOR_PEOPLE.of(value)
    if isinstance(value, memoryview):
        value = value.tobytes() if value.format == "B" else value.tolist()
    if isinstance(value, Mapping):
        return {name: _for_people(item) for name, item in value.items()}
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_for_people(item) for item in value]
    return value


def _filled_in(value: Any, values: Values) -> Any:
    if isinstance(value, Slot):
        return value.render(values)
    if isinstance(value, Mapping):
        return {name: _filled_in(item, values) for name, item in value.items()}
    return [_filled_in(item, values) for item in value] if isinstance(value, list) else value
