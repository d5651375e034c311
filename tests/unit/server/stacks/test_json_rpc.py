"""What the JSON RPC answers to one value."""

from typing import Any

import pytest

pytest.importorskip("orjson", reason="needs the extra stacks: orjson")

from capnp_rig.server.stacks.json_rpc import answer


def call(**members: Any) -> dict[str, Any]:
    return {"method": "read", "params": {"content": "añb"}, "id": 7} | members


def binary(data: Any) -> dict[str, Any]:
    return call(method="reverse_bytes", params={"data": data})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("Ping", b'"Ack"'),
        (call(), '{"id":7,"result":"bña"}\n'.encode()),
        (call(id="x"), '{"id":"x","result":"bña"}\n'.encode()),
        (call(id=None, more=1), '{"id":null,"result":"bña"}\n'.encode()),
        (call(params={"content": "", "x": 1}), b'{"id":7,"result":""}\n'),
        ({"method": "read", "params": {"content": "ab"}}, b'{"id":null,"result":"ba"}\n'),
        (
            call(method="write"),
            b'{"id":7,"error":"no such method: there are read and reverse_bytes"}\n',
        ),
        ({}, b'{"id":null,"error":"no such method: there are read and reverse_bytes"}\n'),
        (
            call(method=["read"]),
            b'{"id":7,"error":"no such method: there are read and reverse_bytes"}\n',
        ),
        (binary("AQID"), b'{"id":7,"result":"AwIB"}\n'),
        (binary(""), b'{"id":7,"result":""}\n'),
        (binary("AQI"), b'{"id":7,"error":"params.data must be base64"}\n'),
        (binary("ä"), b'{"id":7,"error":"params.data must be base64"}\n'),
        (binary(1), b'{"id":7,"error":"params.data must be base64"}\n'),
        (
            call(method="reverse_bytes", params=[]),
            b'{"id":7,"error":"params.data must be base64"}\n',
        ),
        (call(params={}), b'{"id":7,"error":"params.content must be a string"}\n'),
        (call(params=["x"]), b'{"id":7,"error":"params.content must be a string"}\n'),
        (call(params={"content": 1}), b'{"id":7,"error":"params.content must be a string"}\n'),
        (call(id=[1]), b'{"id":null,"error":"id must be a string, a number or null"}\n'),
        (call(id=True), b'{"id":null,"error":"id must be a string, a number or null"}\n'),
        ("Pong", None),
        (12, None),
        (None, None),
        (["Ping"], None),
    ],
)
def test_each_value_has_its_answer(value: Any, words: bytes | None) -> None:
    assert answer(value) == words


def test_a_call_is_noted() -> None:
    notes: list[str] = []
    answer(call(), notes.append)
    answer("Ping", notes.append)
    answer(binary("AQID"), notes.append)
    assert notes == ["Received content: añb", "Received 3 bytes"]
