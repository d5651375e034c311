"""The service that reverses bytes."""

from types import SimpleNamespace

import pytest

from capnp_rig.server.services.binary import Binary, reverse_bytes


@pytest.mark.parametrize("data", [b"", b"a", b"\x00\x01\xff", bytes(range(256)) * 1000])
def test_bytes_come_back_in_reverse_order(data: bytes) -> None:
    assert reverse_bytes(data) == reverse_bytes(memoryview(data)) == data[::-1]
    assert Binary().reverse(SimpleNamespace(data=memoryview(data))) == {"data": data[::-1]}


def test_a_call_is_noted_without_its_bytes() -> None:
    notes: list[str] = []
    service = Binary()
    service.note = notes.append
    service.reverse(SimpleNamespace(data=b"secret" * 200))
    assert notes == ["Received 1,200 bytes"]
