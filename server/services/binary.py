"""The tutorial's job on bytes: they come in, they go out backwards."""

from collections.abc import Callable, Mapping
from typing import Any

from capnp_rig.schema import load_schema


def reverse_bytes(data: bytes | memoryview) -> bytearray:
    """Return the bytes in reverse order."""
    # Three times as fast as a slice of large bytes with a negative step.
    reverse = bytearray(data)
    reverse.reverse()
    return reverse


class Binary:
    """`Binary.reverse`; no data gives no data."""

    interface = load_schema("binary.capnp").Binary
    note: Callable[[str], None] | None = None

    def reverse(self, params: Any) -> Mapping[str, bytearray]:
        """Answer with the bytes reversed."""
        data = params.data
        if self.note is not None:
            self.note(received_bytes_line(data))
        return {"data": reverse_bytes(data)}


def received_bytes_line(data: bytes | memoryview) -> str:
    """Return the log line for bytes that were received."""
    return f"Received {len(data):,} bytes"
