"""D9: how many calls may be in flight is set by options, and a refusal names the option."""

from pathlib import Path

import pytest
from fault_services import PROBE
from raw_peer import call_builder, encoded, raw_peer
from running_rig import run_rig
from running_server import running_server

PROBE_ID: int = PROBE.schema.node.id
WAIT = list(PROBE.schema.methods).index("wait")
TESTS = Path(__file__).resolve().parent.parent
PROBED = ["--service", "fault_services:Probe", "--workers", "1"]


def wait(number: int) -> bytes:
    build = call_builder(number, interface_id=PROBE_ID, method_id=WAIT)
    build.call.params.content.as_struct(PROBE.schema.methods["wait"].param_type)
    return encoded(build)


@pytest.mark.parametrize("engine", ["wire", "pycapnp"])
@pytest.mark.parametrize(
    ("options", "most", "reason"),
    [
        (
            ["--max-in-flight", "1500"],
            1500,
            "more than 1500 calls in flight on this connection (--max-in-flight of the server)",
        ),
        (
            ["--max-worker-calls", "3"],
            3,
            "more than 3 calls in flight on this worker (--max-worker-calls of the server)",
        ),
    ],
)
def test_d9_the_limit_on_calls_in_flight_is_an_option(
    engine: str, options: list[str], most: int, reason: str
) -> None:
    args = [*PROBED, "--engine", engine, *options]
    with running_server(*args, cwd=TESTS) as server, raw_peer(server) as peer:
        peer.send(*map(wait, range(1, most + 3)))
        for number in (most + 1, most + 2):
            reply = peer.receive()
            assert (reply.id, reply.type, reply.text) == (number, "overloaded", reason)


def test_d9_a_load_with_more_calls_in_flight_says_so_before_the_run() -> None:
    warning = (
        "warning: --in-flight 300 is more than a server allows on a connection by default, 256"
    )
    for name in ("run", "sweep"):
        done = run_rig(name, "127.0.0.1:1", "--in-flight", "300")
        assert done.stderr.splitlines()[0].startswith(warning)
        assert done.returncode == 1
    done = run_rig("run", "127.0.0.1:1", "--in-flight", "256")
    assert "--max-in-flight" not in done.stderr
