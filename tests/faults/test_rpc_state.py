"""Peers that break or strain the rules of rpc.capnp (faults.md, D).

`test_agreement.py` has what both engines answer to single sequences of frames; here is what
needs time, numbers, or a look at the server.
"""

import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from deadline import eventually
from fault_services import PROBE
from raw_peer import (
    RPC,
    RawPeer,
    abort,
    assert_serves,
    bootstrap,
    call,
    call_builder,
    encoded,
    finish,
    raw_peer,
)
from running_server import Running, running_server

from capnp_rig.schema import message
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.connection import Ended, Failed
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError

TESTS = Path(__file__).resolve().parent.parent
MIB = 1 << 20
PROBE_ID: int = PROBE.schema.node.id
LEDGER = PROBE.schema.methods["ledger"]
METHODS = list(PROBE.schema.methods)
READ = compile_interface(message.MessageStream).methods["read"]


@pytest.fixture(scope="module", params=["wire", "pycapnp"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def probe(engine: str) -> Iterator[Running]:
    args = ["--service", "fault_services:Probe", "--workers", "1", "--engine", engine]
    with running_server(*args, cwd=TESTS) as running:
        yield running


@pytest.fixture(autouse=True)
def unhurt(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that every test leaves the worker alive and serving."""
    if "probe" not in request.fixturenames:
        yield
        return
    probe = request.getfixturevalue("probe")
    workers = probe.workers()
    yield
    assert_serves(probe, workers)
    eventually(lambda: running_calls(probe) == 0, what="every slot freed")


def probe_call(question_id: int, method: str) -> bytes:
    number = METHODS.index(method)
    build = call_builder(question_id, interface_id=PROBE_ID, method_id=number)
    # Params, if without fields: as a client sends them.
    build.call.params.content.as_struct(PROBE.schema.methods[method].param_type)
    return encoded(build)


def ledger(probe: Running) -> dict[str, int]:
    with raw_peer(probe) as peer:
        peer.send(probe_call(1, "ledger"))
        return peer.receive().results(LEDGER.result_type)


def running_calls(probe: Running) -> int:
    found = ledger(probe)
    return found["started"] - found["ended"]


def rss_bytes(server: Running) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in server.workers())


# --- D4, D5 ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [4, 7, 100, 1000, 65535])
def test_d4_an_abort_of_any_type_ends_its_connection_only(probe: Running, kind: int) -> None:
    errors = len(probe.err.lines)
    with raw_peer(probe) as peer, raw_peer(probe) as bystander:
        peer.send(probe_call(1, "wait"), abort(kind, "\x1b[31mred\nline"))
        assert peer.until_eof()[-1].kind == "eof"
        bystander.send(probe_call(1, "ledger"))
        assert bystander.receive().kind == "results"
    # What a peer writes reaches no terminal as it stands (H5).
    assert not [line for line in probe.err.lines[errors:] if "\x1b" in line]


@pytest.mark.parametrize("kind", [4, 5, 9, 200, 1000, 65535])
def test_d5_a_client_reads_any_type_of_exception_as_failed(kind: int) -> None:
    client = ClientConnection()
    client.data_to_send()
    client.receive_data(answer_with_capability())
    question_id = client.call(READ.interface_id, READ.method_id, READ.params.write({}))
    build = RPC.Message.new_message()
    body = build.init("return")
    body.answerId = question_id
    body.init("exception").reason = "new kind"
    data = bytearray(encoded(build))
    # Table, root, tag, pointer, Return of two data words and a pointer; the type is at byte 4.
    struct.pack_into("<H", data, 8 + 24 + 24 + 4, kind)
    expected = RemoteError("new kind", ExceptionType.FAILED)
    assert client.receive_data(bytes(data)) == [Failed(question_id, expected)]
    assert client.receive_data(abort(kind, "bye")) == [Ended(RemoteError("bye"))]


def answer_with_capability() -> bytes:
    build = RPC.Message.new_message()
    results = build.init("return").init("results")
    results.init("capTable", 1)[0].senderHosted = 0
    return encoded(build)


# --- D6 to D9 ----------------------------------------------------------------------------


def test_d6_a_finish_cancels_the_call_and_frees_its_slot(probe: Running) -> None:
    with raw_peer(probe) as peer:
        peer.send(probe_call(1, "wait"))
        eventually(lambda: running_calls(probe) == 1, what="the call runs")
        peer.send(finish(1))
        assert peer.receive().kind in {"canceled", "exception"}
        eventually(lambda: running_calls(probe) == 0, what="the call was cancelled")
        # Its id can be used again, and the connection lives.
        peer.send(probe_call(1, "ledger"))
        assert peer.answer_to(1).kind == "results"


def test_d6_a_disconnect_cancels_all_calls(probe: Running) -> None:
    for is_reset in (False, True):
        with raw_peer(probe) as peer:
            peer.send(*(probe_call(number, "wait") for number in range(1, 101)))
            eventually(lambda: running_calls(probe) == 100, what="the calls run")
            if is_reset:
                peer.reset()
        eventually(lambda: running_calls(probe) == 0, what="the calls were cancelled")


def test_d6_a_finish_that_comes_with_its_call_frees_the_slot_too(probe: Running) -> None:
    # More than may be in flight, too few for the limit of D7.
    with raw_peer(probe) as peer:
        for number in range(1, 301):
            peer.send(probe_call(number, "wait") + finish(number))
            reply = peer.answer_to(number)
            assert reply.kind == "canceled", reply
        peer.send(probe_call(301, "ledger"))
        assert peer.answer_to(301).kind == "results"


def test_d7_rapid_reset_closes_the_connection(probe: Running) -> None:
    with raw_peer(probe) as peer, raw_peer(probe) as bystander:
        stream = b"".join(
            probe_call(number, "wait") + finish(number) for number in range(1, 10_001)
        )
        # The server may close, and reset, before all of it is gone.
        with suppress(OSError):
            peer.send(stream)
        bystander.send(probe_call(1, "ledger"))
        assert bystander.receive().kind == "results"
        found = [reply.kind for reply in peer.replies()]
        assert found[-1] == "eof"
        # Those over the calls in flight are refused; of the others 500 were cancelled.
        assert len(found) < 5000
    # When the peer has closed, too.
    probe.err.wait_for("cancelled right after")


def test_d8_bootstraps_without_finish_are_bounded(probe: Running) -> None:
    with raw_peer(probe) as peer:
        before = rss_bytes(probe)
        stream = b"".join(map(bootstrap, range(1, 20_001)))
        with suppress(OSError):
            peer.send(stream)
        found = [reply.kind for reply in peer.replies()]
        # A reset may take the Abort, and answers, with it.
        assert found[-1] == "eof"
        assert found.count("capability") < 1024
        assert rss_bytes(probe) - before < 10 * MIB


def test_d8_bootstraps_with_finish_go_on_for_ever(probe: Running) -> None:
    with raw_peer(probe) as peer:
        for _ in range(20):
            peer.send(*(bootstrap(number) + finish(number) for number in range(1, 101)))
            assert {peer.receive().kind for _ in range(100)} == {"capability"}


def test_d9_calls_over_the_limit_are_refused_at_once(probe: Running) -> None:
    before = rss_bytes(probe)
    with raw_peer(probe, timeout_s=40) as peer:
        stream = b"".join(probe_call(number, "wait") for number in range(1, 10_001))
        sender = threading.Thread(target=peer.socket.sendall, args=[stream])
        sender.start()
        refused = [peer.receive() for _ in range(10_000 - 256)]
        sender.join(5)
        assert {(reply.kind, reply.type) for reply in refused} == {("exception", "overloaded")}
        # The first 256 run; of the others each was answered once.
        assert sorted(reply.id for reply in refused) == list(range(257, 10_001))
        assert running_calls(probe) == 256
        assert rss_bytes(probe) - before < 10 * MIB
        # A slot that is freed is given to the next.
        peer.send(finish(1))
        assert peer.answer_to(1).kind == "canceled"
        peer.send(probe_call(10_001, "wait"))
        eventually(lambda: running_calls(probe) == 256, what="the freed slot taken")


# --- D11 ---------------------------------------------------------------------------------


def test_d11_capabilities_in_params_are_released_and_never_called(probe: Running) -> None:
    build = call_builder(1, interface_id=PROBE_ID, method_id=METHODS.index("ledger"))
    table = build.call.params.init("capTable", 2)
    table[0].senderHosted = 50
    table[1].senderPromise = 51
    with raw_peer(probe) as peer:
        peer.send(encoded(build), bootstrap(9))
        replies = [peer.receive(), peer.receive()]
        returned = next(reply for reply in replies if reply.id == 1)
        assert returned.kind == "results"
        if not returned.releases_params:
            # pycapnp releases each by a message of its own.
            replies += [peer.receive() for _ in range(4 - len(replies))]
            assert [reply.kind for reply in replies].count("release") == 2
        assert "call" not in {reply.kind for reply in replies}


def test_d12_ids_are_free_again_right_after_their_answer(probe: Running) -> None:
    with RawPeer(probe) as peer:
        for _ in range(200):
            peer.send(bootstrap(7), finish(7), bootstrap(7))
            peer.send(
                encoded(
                    call_builder(
                        3, promise=7, interface_id=PROBE_ID, method_id=METHODS.index("ledger")
                    )
                )
            )
            kinds = [peer.receive().kind for _ in range(3)]
            assert sorted(kinds) == ["capability", "capability", "results"]
            peer.send(finish(3), finish(7))


def test_d12_an_id_in_use_ends_the_connection_and_cancels_its_calls(probe: Running) -> None:
    with raw_peer(probe) as peer:
        peer.send(probe_call(1, "wait"), probe_call(2, "wait"))
        eventually(lambda: running_calls(probe) == 2, what="the calls run")
        peer.send(probe_call(1, "wait"))
        kinds = [reply.kind for reply in peer.until_eof()]
        assert "abort" in kinds
        assert kinds[-1] == "eof"
    eventually(lambda: running_calls(probe) == 0, what="the calls were cancelled")


def test_d1_an_unknown_interface_leaves_the_connection_alive(probe: Running) -> None:
    with raw_peer(probe) as peer:
        for number in range(1, 50):
            peer.send(call(number))
            reply = peer.receive()
            assert (reply.kind, reply.type) == ("exception", "unimplemented")
        peer.send(probe_call(50, "ledger"))
        assert peer.receive().kind == "results"
