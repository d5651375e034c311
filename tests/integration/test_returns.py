"""What methods return and raise is the same to a peer, whichever engine serves (H4)."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from deadline import eventually
from pycapnp_peer import connected, run
from raw_peer import call_builder, encoded, finish, raw_peer
from return_services import CASES, NUMBERS, RETURNS
from return_services import KINDS as SCHEMA
from running_server import Running, running_server

from capnp_rig.client import Client, RemoteError
from capnp_rig.wire import AnyValue, compile_struct
from capnp_rig.wire.rpc.interfaces import compile_interface

HERE = Path(__file__).resolve().parent.parent
INTERFACE = compile_interface(RETURNS)
RARE = compile_struct(SCHEMA.Rare.schema)
METHODS = list(RETURNS.schema.methods)
KINDS: dict[str, Any] = {
    "text": "Grüße",
    "data": b"\x00\x01",
    "longs": [1, -2],
    "texts": ["a", ""],
    "hues": ["red", "blue"],
    "inner": {"number": 3, "name": "n"},
    "inners": [{"number": 1, "name": "x"}, {"number": 2, "name": ""}],
    "grid": [[1, 2], []],
    "colour": "green",
}
FAILS = list(CASES)[list(CASES).index("int for bool") :]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Running]]:
    with ExitStack() as stack:
        yield {
            engine: stack.enter_context(
                running_server(
                    *["--service", "return_services:Returns", "--workers", "1"],
                    *["--engine", engine],
                    cwd=HERE,
                )
            )
            for engine in ("wire", "pycapnp")
        }


def outcome(server: Running, case: str, method: str) -> Any:
    """Return the results or the error text of one call; a good call follows it."""
    with Client.connect(f"127.0.0.1:{server.port}", interface=INTERFACE) as client:
        found: Any
        try:
            found = client.call(method, {"case": case, "kinds": KINDS}).to_dict()
            rare = found.get("rare", {})
            if "any" in rare:
                rare["any"] = RARE.to_bytes({"any": rare["any"]})
        except RemoteError as error:
            # Of many in a row some are not logged, and so have no id.
            found = re.sub(r"internal error \[.*\]", "internal error [id N]", str(error))
        assert client.call(method, {"case": "bytes"}).data == b"\x01\x02"
        return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_h4_both_engines_answer_alike(servers: dict[str, Running], case: str, method: str) -> None:
    workers = {engine: server.workers() for engine, server in servers.items()}
    found = {engine: outcome(server, case, method) for engine, server in servers.items()}
    assert found["wire"] == found["pycapnp"]
    if case == "service error":
        assert found["wire"] == "message = no such word\n"
    else:
        assert (found["wire"] == "internal error [id N]") == (case in FAILS), found
    assert workers == {engine: server.workers() for engine, server in servers.items()}


def test_what_was_returned_is_what_comes(servers: dict[str, Running]) -> None:
    for server in servers.values():
        for case, value in {
            "any text": "text",
            "any struct": AnyValue(SCHEMA.Inner, {"number": 7, "name": "n"}),
            "any list": AnyValue(NUMBERS, [1, -2]),
        }.items():
            assert outcome(server, case, "give")["rare"]["any"] == RARE.to_bytes({"any": value})
        for case, data in {
            "str for data": "Grüße".encode(),
            "strided": b"02468",
            "transposed array": bytes([0, 3, 1, 4, 2, 5]),
            "empty array": b"",
        }.items():
            assert outcome(server, case, "give")["data"] == data
        found = outcome(server, "params' struct", "giveLater")["kinds"]
        assert {name: found[name] for name in KINDS} == KINDS


@pytest.mark.parametrize("engine", ["wire", "pycapnp"])
def test_h4_an_internal_error_has_its_traceback_in_the_log_and_nowhere_else(
    servers: dict[str, Running], engine: str
) -> None:
    server = servers[engine]

    async def work() -> str:
        async with connected(server.port, interface=RETURNS) as peer:
            with pytest.raises(Exception, match="internal error") as caught:
                await peer.giveLater(case="exit")
            return str(caught.value)

    # The first that is logged: other tests may have used up what is for this method.
    said = eventually(lambda: text if "[id " in (text := run(work)) else "")
    match = re.search(r"internal error \[id ([0-9]+-[0-9]+-[0-9]+)\]", said)
    assert match is not None
    assert "Traceback" not in said
    assert "message =" not in said
    server.err.wait_for(f"internal error [id {match[1]}] in giveLater")
    server.err.wait_for("SystemExit: 3")
    server.err.wait_for("return_services.py")


@pytest.mark.parametrize("engine", ["wire", "pycapnp"])
def test_nobody_is_told_of_coroutines_that_were_never_awaited(
    servers: dict[str, Running], engine: str
) -> None:
    server = servers[engine]

    def is_told() -> bool:
        outcome(server, "coroutine", "give")
        told = "the method returned something to wait for, of type coroutine"
        return bool(server.err.find(told))

    # As above.
    eventually(is_told)
    assert not server.err.find("never awaited")


@pytest.mark.parametrize("engine", ["wire", "pycapnp"])
def test_d6_base_exceptions_and_cancels_free_their_slots(
    servers: dict[str, Running], engine: str
) -> None:
    errors = len(servers[engine].err.find("internal error"))
    with raw_peer(servers[engine]) as peer:
        for number in range(1, 601):
            case = ("wait", "exit", "cancelled")[number % 3]
            peer.send(give_later(number, case))
            if case == "wait":
                # Its age is no early cancel's share: a third of the calls.
                peer.send(finish(number))
            assert peer.answer_to(number).kind in {"exception", "canceled"}
        peer.send(give_later(1000, "bytes"))
        assert peer.answer_to(1000).kind == "results"
    # A genuine cancel is none of our errors.
    servers[engine].err.wait_for("internal error", count=errors + 1)


def give_later(question_id: int, case: str) -> bytes:
    method = RETURNS.schema.methods["giveLater"]
    build = call_builder(
        question_id, interface_id=RETURNS.schema.node.id, method_id=METHODS.index("giveLater")
    )
    build.call.params.content.as_struct(method.param_type).case = case
    return encoded(build)
