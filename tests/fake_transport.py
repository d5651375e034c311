"""A transport of asyncio's that keeps everything, for protocols without a socket."""

from collections.abc import Iterable
from typing import Any

from capnp_rig.wire.encoding.pointers import Buffer


class Transport:
    """Keeps what is written as unread, until the test reads."""

    def __init__(self) -> None:
        self.unread = b""
        self.is_aborted = False
        self.is_ended = False
        self.protocol: Any = None
        self.high = 1 << 60
        self._is_paused = False

    def write(self, data: bytes) -> None:
        assert not self.is_ended
        self.unread += data
        if len(self.unread) > self.high and not self._is_paused:
            self._is_paused = True
            self.protocol.pause_writing()

    def writelines(self, buffers: Iterable[Buffer]) -> None:
        self.write(b"".join(buffers))

    def read(self, size: int = 1 << 60) -> bytes:
        data, self.unread = self.unread[:size], self.unread[size:]
        return data

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return len(self.unread)

    def get_extra_info(self, _name: str) -> None:
        return None

    def write_eof(self) -> None:
        self.is_ended = True

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    close = abort

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading
