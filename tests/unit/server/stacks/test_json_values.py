"""JSON values found in a stream, however it is cut."""

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("orjson", reason="needs the extra stacks: orjson")

from capnp_rig.server.stacks.json_values import UNREADABLE, JsonReader

CALL = b'{"method":"read","params":{"content":"a \\" } ] \\\\"},"id":7}'
CALL_VALUE = json.loads(CALL)


def read(*portions: bytes, limit_bytes: int = 1_000_000) -> tuple[list[Any], str | None]:
    reader = JsonReader(limit_bytes)
    values: list[Any] = []
    for portion in portions:
        if reader.fault is None:
            values += reader.feed(portion)
    return values, reader.fault


NESTED = {"a": [{}, [1, [2]], {"b": "]"}]}
STREAMS: list[tuple[bytes, list[Any], str | None]] = [
    (b'"Ping"', ["Ping"], None),
    (b'"Ping""Ping"', ["Ping", "Ping"], None),
    (b' \r\n\t"Ping"\n\n', ["Ping"], None),
    (b'""', [""], None),
    (b'"\\\\"', ["\\"], None),
    (b'"\\""', ['"'], None),
    (b'"\\u00e9\xc3\xa9"', ["éé"], None),
    (CALL, [CALL_VALUE], None),
    (CALL + CALL, [CALL_VALUE, CALL_VALUE], None),
    (CALL + b"\n" + CALL + b"\r\n", [CALL_VALUE, CALL_VALUE], None),
    (b'{\n "a": [\n{}, [1, [2]], {"b": "]"}\n]\n}\n"Ping"', [NESTED, "Ping"], None),
    (b"{}{}", [{}, {}], None),
    (b'"Ping" nonsense', ["Ping"], UNREADABLE),
    (b'"Ping"\nnonsense\n"Ping"\n', ["Ping"], UNREADABLE),
    (b"{]", [], UNREADABLE),
    (b'{"a":}', [], UNREADABLE),
    (b'"\xff"', [], UNREADABLE),
    (b'"\\ud800"', [], UNREADABLE),
    (b'"a\nb"', [], UNREADABLE),
    (b"\x00", [], UNREADABLE),
    (b"\xef\xbb\xbf{}", [], UNREADABLE),
    (b'{"a":' + b"[" * 1100, [], UNREADABLE),
]
INCOMPLETE = [b"", b" ", b'"', b'"\\', b"{", b'{"a', b'{"a":[', b'{"a":"}', b"{}"[:1]]


@pytest.mark.parametrize(("stream", "values", "fault"), STREAMS)
def test_values_come_out_of_any_portions(
    stream: bytes, values: list[Any], fault: str | None
) -> None:
    assert read(stream) == (values, fault)
    assert read(*(stream[at : at + 1] for at in range(len(stream)))) == (values, fault)
    for cut in range(1, len(stream)):
        assert read(stream[:cut], stream[cut:]) == (values, fault)


@pytest.mark.parametrize("stream", INCOMPLETE)
def test_a_value_that_is_not_all_here_is_waited_for(stream: bytes) -> None:
    assert read(stream) == ([], None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=10,
)
VALUES = st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=4) | st.text(), max_size=5)
GAPS = st.sampled_from(["", " ", "\n", "\r\n", " \n\t"])


@given(values=VALUES, data=st.data())
@example(values=["\\", '"', {"": "\\"}], data=None)
def test_what_was_written_is_read_whatever_stands_between(
    values: list[Any], data: st.DataObject | None
) -> None:
    stream = bytearray()
    for value in values:
        indent = data.draw(st.sampled_from([None, 1])) if data else None
        ascii_only = data.draw(st.booleans()) if data else False
        stream += json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode(
            errors="surrogatepass"
        )
        stream += (data.draw(GAPS) if data else "").encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8))) if data else []
    portions = [bytes(stream[a:b]) for a, b in pairwise([0, *cuts, len(stream)])]
    assert read(*portions) == (values, None)


@given(stream=st.binary(max_size=60), cut=st.integers(0, 60))
def test_nonsense_is_the_same_nonsense_however_it_is_cut(stream: bytes, cut: int) -> None:
    # Strings and objects have an end of their own; other values need not come out alike.
    whole = [value for value in read(stream)[0] if type(value) in (str, dict)]
    pieces = [value for value in read(stream[:cut], stream[cut:])[0] if type(value) in (str, dict)]
    assert pieces[: len(whole)] == whole[: len(pieces)]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_value_over_the_limit_is_a_fault_and_those_before_it_are_not(end: bytes) -> None:
    fine, over = b'"' + b"x" * 8 + b'"', b'"' + b"x" * 9 + b'"'
    fault = "a value may have at most 10 bytes"
    assert read(fine + end, limit_bytes=10) == (["x" * 8], None)
    assert read(fine + over + end, limit_bytes=10) == (["x" * 8], fault)
    assert read(fine, over[:5], over[5:] + end, limit_bytes=10) == (["x" * 8], fault)
    # It is not waited for until it ends.
    assert read(b'"' + b"x" * 10, limit_bytes=10) == ([], fault)
    assert read(b" " * 100, fine, limit_bytes=10) == (["x" * 8], None)


def test_nothing_is_kept_between_values() -> None:
    reader = JsonReader(1000)
    reader.feed(b'"Ping"\n  \n' + CALL + b"\n" + CALL + b" ")
    assert not reader._kept


@pytest.mark.parametrize(
    ("unit", "head", "tail"),
    [
        (b"x", b'"', b'"'),
        (b'\\"', b'"', b'"'),
        (b'"",', b'{"a":[', b'""]}'),
        (b"[],", b'{"a":[', b"[]]}"),
        (b" ", b'{"a":', b"1}"),
    ],
)
def test_a_large_value_in_small_portions_is_looked_at_once(
    unit: bytes, head: bytes, tail: bytes
) -> None:
    stream = head + unit * (2_000_000 // len(unit)) + tail
    portions = [stream[at : at + 1000] for at in range(0, len(stream), 1000)]
    started_s = time.process_time()
    values, fault = read(*portions, limit_bytes=len(stream))
    # Looked at again with each portion, it would be 2 GB, and minutes; this takes 0.05 s.
    assert time.process_time() - started_s < 20
    assert (len(values), fault) == (1, None)
