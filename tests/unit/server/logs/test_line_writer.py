import contextlib
import errno
import os
import socket
import time
from pathlib import Path

import pytest

from capnp_rig.server.logs.line_writer import LineWriter, Sink, open_sink


class Room:
    """Takes what its room allows, like a descriptor that does not block."""

    def __init__(self) -> None:
        self.data = b""
        self.room = 1_000
        self.error: int | None = None

    def __call__(self, data: bytes) -> int:
        if self.error is not None:
            raise OSError(self.error, "no")
        taken = data[: self.room]
        self.data += taken
        return len(taken)


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EPIPE, errno.ENOSPC, errno.EIO])
def test_a19_lines_that_cannot_be_written_are_counted_and_reported(error: int) -> None:
    sink = Room()
    writer = LineWriter(sink)
    writer.write("one")
    sink.error = error
    writer.write("two")
    writer.write("three")
    sink.error = None
    writer.write("four")
    writer.write("five")
    assert sink.data == b"one\n2 log lines dropped\nfour\nfive\n"


def test_a_line_cut_short_does_not_run_into_the_next() -> None:
    sink = Room()
    writer = LineWriter(sink)
    sink.room = 3
    writer.write("abcdef")
    sink.room = 1_000
    writer.write("next")
    assert sink.data == b"abc\n1 log lines dropped\nnext\n"


def test_what_utf8_cannot_hold_is_written_out() -> None:
    sink = Room()
    LineWriter(sink).write("\udcff")
    assert sink.data == b"\\udcff\n"


def fill(sink: Sink) -> None:
    started_s = time.monotonic()
    with contextlib.suppress(BlockingIOError):
        while True:
            sink(b"x" * 1_000)
    assert time.monotonic() - started_s < 10


def test_a_full_pipe_never_blocks_and_stays_blocking_for_others() -> None:
    reader, writer = os.pipe()
    try:
        fill(open_sink(writer))
        assert os.get_blocking(writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_full_socket_never_blocks() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fill(open_sink(ours.fileno()))
        assert ours.getblocking()


def test_a_pipe_without_reader_is_an_error_only() -> None:
    reader, writer = os.pipe()
    sink = open_sink(writer)
    os.close(reader)
    lines = LineWriter(sink)
    lines.write("lost")
    os.close(writer)
    assert lines.dropped == 1


def test_a_closed_descriptor_swallows_everything() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    assert open_sink(writer)(b"abc") == 3


def test_a_file_gets_every_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        writer = LineWriter(open_sink(file.fileno()))
        writer.write("one")
        writer.write("two")
    assert path.read_bytes() == b"one\ntwo\n"
