"""What a service does to its worker that it should not (C14, H4), on both loops."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_services import PROBE
from raw_peer import RawPeer, call_builder, encoded, raw_peer
from rude_services import FAILURES
from running_server import Running, running_server

TESTS = Path(__file__).resolve().parent.parent
METHODS = list(PROBE.schema.methods)


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    args = ["--service", "rude_services:Rude", "--workers", "1", "--loop", request.param]
    with running_server(*args, cwd=TESTS) as running:
        workers = running.workers()
        yield running
        assert running.workers() == workers


def probe_call(
    question_id: int, method: str, fill: Callable[[Any], object] = lambda _: None
) -> bytes:
    build = call_builder(
        question_id, interface_id=PROBE.schema.node.id, method_id=METHODS.index(method)
    )
    fill(build.call.params.content.as_struct(PROBE.schema.methods[method].param_type))
    return encoded(build)


def results(peer: RawPeer, method: str) -> dict[str, Any]:
    peer.send(probe_call(999, method))
    return peer.answer_to(999).results(PROBE.schema.methods[method].result_type)


@pytest.mark.parametrize(
    ("size", "calls"), [(100, 80), (20_000, 80), (200_000, 80), (1_000_000, 10)]
)
def test_c14_what_a_plain_method_keeps_never_shows_another_call(
    server: Running, size: int, calls: int
) -> None:
    with raw_peer(server, timeout_s=20) as peer, raw_peer(server, timeout_s=20) as other:
        before = results(peer, "ledger")["started"]
        for number in range(1, calls + 1):
            data = bytes([number]) * size
            for one in (peer, other):
                one.send(
                    probe_call(
                        number,
                        "lengths",
                        lambda params, data=data: setattr(params.init("kinds"), "data", data),
                    )
                )
                assert one.receive().kind == "results"
        kept = results(peer, "ledger")
        assert kept == {"started": before + 2 * calls, "ended": 0}
        assert results(other, "depth")["depth"] == 2 * kept["started"]


@pytest.mark.parametrize("method", ["large", "largeLater"])
def test_h4_a_base_exception_of_a_method_is_answered(server: Running, method: str) -> None:
    with raw_peer(server) as peer, raw_peer(server) as bystander:
        for number, failure in enumerate(FAILURES):
            peer.send(probe_call(1, method, lambda params, n=number: setattr(params, "size", n)))
            reply = peer.answer_to(1)
            assert (reply.kind, reply.type) == ("exception", "failed")
            assert reply.text.startswith("internal error [id ")
            (line,) = server.err.wait_for(f"{reply.text} in {method}")
            assert line
            server.err.wait_for(failure.__name__)
        assert results(bystander, "ledger")["ended"] == 0
