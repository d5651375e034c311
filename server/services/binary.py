"""The tutorial's job on bytes: they come in, they go out backwards."""

from collections.abc import Mapping
from typing import Any

from capnp_rig.schema import load_schema
from capnp_rig.server.services.reverse import Note


def reverse_bytes(data: bytes | memoryview, note: Note = None) -> bytearray:
    """Return the bytes in reverse order."""
    if note is not None:
        note(f"Received {len(data):,} bytes")
    # Three times as fast as a slice of large bytes with a negative step.
    backwards = bytearray(data)
    backwards.reverse()
    return backwards


class Binary:
    """`Binary.reverse`; no data gives no data."""

    interface = load_schema("binary.capnp").Binary
    note: Note = None

    def reverse(self, params: Any) -> Mapping[str, bytearray]:
        """Answer with the bytes reversed."""
        return {"data": reverse_bytes(params.data, self.note)}
