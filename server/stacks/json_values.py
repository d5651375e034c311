"""Finds JSON values in a stream that comes in any portions: pure, and linear in what it reads.

Objects and strings end where they end, so nothing has to stand between two of them; whitespace
may. Lines are the quick way: if every line of a read is a whole value, each is decoded as it
stands. Otherwise a scanner looks for the end of the value and remembers how far it came, so that
a value of many portions is looked at once. Its steps are regular expressions that run over whole
strings and flat lists at a time; they are possessive, because a backtracking one keeps a record
of every character that it might give back.
"""

import re
from typing import Any

import orjson

UNREADABLE = "unreadable data"

# orjson's own limit.
_MAX_DEPTH = 1024
_QUOTE, _BRACE, _BRACKET = b'"{['
_BLANKS = re.compile(rb"[ \t\n\r]*+")
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
# As far as no bracket opens or closes a level, except around something flat, and no string is
# only partly here, or long: `find` is many times as fast for those (5 ns a byte by the pattern).
_FLAT = re.compile(
    rb'(?:[^"{}\[\]]++|"(?:[^"\\]{1,256}+|\\.){0,16}+"|\{[^"{}\[\]]*+\}|\[[^"{}\[\]]*+\])*+',
    re.DOTALL,
)


class JsonReader:
    """Takes bytes, returns values. After `fault` is set it is of no further use.

    `fault` is `UNREADABLE`, or a sentence about a value of more than `limit_bytes`. Values that
    came before it are returned all the same.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.fault: str | None = None
        self._limit_bytes = limit_bytes
        # Between two reads: the value that is only partly here, from its first byte on. While
        # values are taken: those that were, up to `_begin`, and what follows.
        self._kept = bytearray()
        self._begin = 0
        # The state of the scanner in the value at `_begin`.
        self._scanned = 0
        self._depth = 0
        self._in_string = False

    @property
    def pending_bytes(self) -> int:
        """Bytes of a value that is only partly here."""
        return len(self._kept)

    def feed(self, data: bytes) -> list[Any]:
        """Return the values that `data` completes.

        Only strings and objects have an end of their own. Another value is returned if it had a
        line for itself, else it is a fault: it is of no use to the caller either way.
        """
        values: list[Any] = []
        if self._kept:
            self._kept += data
            if not self._take_value(values):
                return values
            # Lines may follow.
            data = bytes(memoryview(self._kept)[self._begin :])
            self._forget_taken(len(self._kept))
        if not self._take_lines(data, values):
            self._take_values(data, values)
        return values

    def _take_lines(self, data: bytes, values: list[Any]) -> bool:
        """Decode line by line; return False, with nothing taken, if a line is no whole value."""
        lines, newline, rest = data.rpartition(b"\n")
        if not newline or len(data) > self._limit_bytes:
            return False
        try:
            values += [orjson.loads(line) for line in lines.split(b"\n") if line]
        except orjson.JSONDecodeError:
            return False
        if rest:
            self._take_values(rest, values)
        return True

    def _take_values(self, data: bytes, values: list[Any]) -> None:
        """Decode what stands back to back, and keep what is left."""
        self._kept += data
        while self._take_value(values):
            pass
        self._forget_taken(self._begin)

    def _take_value(self, values: list[Any]) -> bool:
        """Decode the value at `_begin`; return False if it is not all here, or faulty."""
        kept = self._kept
        self._begin = begin = _skip(_BLANKS, kept, self._begin)
        if begin == len(kept):
            return False
        self._scanned = max(self._scanned, begin)
        end = self._find_end()
        if (len(kept) if end is None else end) - begin > self._limit_bytes:
            self.fault = f"a value may have at most {self._limit_bytes} bytes"
        if end is None or self.fault is not None:
            return False
        try:
            with memoryview(kept) as view, view[begin:end] as value:
                values.append(orjson.loads(value))
        except orjson.JSONDecodeError:
            self.fault = UNREADABLE
            return False
        self._begin = self._scanned = end
        return True

    def _find_end(self) -> int | None:
        """Return where the value ends; None if it is not all here, or cannot be read."""
        kept, at, depth = self._kept, self._scanned, self._depth
        size = len(kept)
        if at == self._begin and kept[at] not in (_QUOTE, _BRACE):
            self.fault = UNREADABLE
            return None
        while at < size:
            if self._in_string:
                at = _skip_string(kept, at)
                # A backslash stands alone when what it escapes is still to come.
                if at == size or kept[at] != _QUOTE:
                    break
                self._in_string = False
            else:
                if depth:
                    at = _skip(_FLAT, kept, at)
                    if at == size:
                        break
                byte = kept[at]
                if byte == _QUOTE:
                    self._in_string = True
                    at += 1
                    continue
                depth += 1 if byte in (_BRACE, _BRACKET) else -1
            at += 1
            if depth == 0:
                self._depth = 0
                return at
            if depth > _MAX_DEPTH:
                self.fault = UNREADABLE
                return None
        self._scanned, self._depth = at, depth
        return None

    def _forget_taken(self, end: int) -> None:
        del self._kept[:end]
        self._begin = 0
        self._scanned = max(self._scanned - end, 0)


def _skip_string(data: bytearray, at: int) -> int:
    """Return where the string ends that `at` is in; its closing quote may be still to come."""
    # A text of 16 MiB without escapes takes 1 ms so, and 90 by the pattern alone.
    quote = data.find(b'"', at)
    end = len(data) if quote < 0 else quote
    escape = data.find(b"\\", at, end)
    return end if escape < 0 else _skip(_IN_STRING, data, escape)


def _skip(pattern: re.Pattern[bytes], data: bytearray, at: int) -> int:
    """Return where a pattern that also matches nothing stops matching."""
    match = pattern.match(data, at)
    assert match is not None
    return match.end()
