from typing import Any

import pytest
from fake_transport import Transport

from capnp_rig.loadtest.peers.canned import Canned
from capnp_rig.loadtest.peers.frames import LAYOUTS, OURS, PEERS, Peer, bootstrap, release
from capnp_rig.loadtest.peers.in_memory import cases
from capnp_rig.loadtest.peers.tutorial_call import READ, TEXT, params_of, results_of


@pytest.mark.parametrize("peer", [OURS, *PEERS], ids=lambda peer: peer.name)
@pytest.mark.parametrize("step", [1, 50, 10_000])
def test_each_call_gets_its_answer_whatever_arrives_at_a_time(peer: Peer, step: int) -> None:
    rust = LAYOUTS["Rust"]
    results = results_of(TEXT)
    server = Canned(rust.bootstrap_results(), rust.results(0, results))
    transport: Any = Transport()
    server.connection_made(transport)
    sent = b"".join(
        [
            *(bootstrap(), peer.settled(), peer.call(7, READ, params_of("a")), peer.finish(7)),
            *(release(0, 2), peer.call(2**32 - 1, READ, params_of("b" * 999))),
        ]
    )
    for at in range(0, len(sent), step):
        server.data_received(sent[at : at + step])
    assert transport.unread == b"".join(
        [rust.bootstrap_results(), rust.results(7, results), rust.results(2**32 - 1, results)]
    )


def test_every_peer_has_its_cases_in_memory() -> None:
    # Each checks itself when it is made: what is answered, and that nothing fails.
    named = dict(cases([OURS, *PEERS]))
    whats = {name.partition(":")[0] for name in named}
    assert len(whats) == 7
    assert {name for name in named if "JavaScript" in name and "reply" in name} == set()
    assert len(named) == 6 * 4 + 5 + 2
    for work, messages in named.values():
        work()
        assert messages in {1, 16, 64, 500}
