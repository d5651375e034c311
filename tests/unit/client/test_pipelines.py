"""Pipelines of the blocking client whose calls were given up."""

import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from capnp_rig.client import Client, DeadlineExceeded
from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT
from capnp_rig.wire.rpc.connection import Called, Cancelled, Connection
from capnp_rig.wire.rpc.messages import RemoteError

FILES = load_schema(Path(__file__).parents[2] / "data" / "chains.capnp").Files


def answer_all_but_the_first(server: socket.socket, numbers: list[int]) -> None:
    wire = Connection(bootstrap="main")
    while data := server.recv(65_536):
        for event in wire.events(data):
            if isinstance(event, Called):
                numbers.append(event.question_id)
                if len(numbers) > 1:
                    wire.send_results(event.question_id, EMPTY_STRUCT)
            elif isinstance(event, Cancelled):
                wire.send_exception(event.question_id, RemoteError("cancelled"))
        with suppress(BrokenPipeError):
            server.sendall(wire.data_to_send())
    server.close()


def test_a_pipeline_that_was_given_up_leaves_the_call_alone_that_has_its_number() -> None:
    server, ours = socket.socketpair()
    server.settimeout(10)
    numbers: list[int] = []
    thread = threading.Thread(target=answer_all_but_the_first, args=[server, numbers])
    thread.start()
    with Client(ours, interface=FILES, timeout_s=10) as client:
        given_up = client.pipeline("login", {"user": "ada"}, timeout_s=0.05)
        with pytest.raises(DeadlineExceeded, match="no answer"):
            given_up.wait()
        # With the first of these the number is free again.
        client.call("login", {"user": "ada"})
        later = [client.submit("login", {"user": "ada"}) for _ in range(3)]
        assert numbers[0] in {call.question_id for call in later}
        for _ in range(2):
            with pytest.raises(DeadlineExceeded):
                given_up.wait()
            with pytest.raises(DeadlineExceeded):
                _ = given_up.session
        while not all(call.done for call in later):
            client.wait()
        assert [call.error for call in later] == [None] * 3
    thread.join(10)
