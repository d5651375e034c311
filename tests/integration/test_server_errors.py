"""What a peer learns of a failing call: one short line, no traceback, no path (H4, E1)."""

import re
from collections.abc import Iterator
from pathlib import Path

import capnp
import pytest
from pycapnp_peer import connected, run
from running_server import ENGINES, Running, running_server

HERE = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", params=ENGINES, ids="-".join)
def faulty(request: pytest.FixtureRequest) -> Iterator[Running]:
    engine, loop = request.param
    with running_server(
        *["--service", "sample_services:Faulty", "--workers", "1"],
        *["--engine", engine, "--loop", loop],
        cwd=HERE,
    ) as server:
        yield server


def outcome(server: Running, content: str | bytes) -> tuple[str | bytes, bytes]:
    """Return the error of one call, and the answer to a good one after it on that connection."""

    async def work() -> object:
        async with connected(server.port) as stream:
            request = stream.read_request()
            request.request.content = content
            try:
                error = (await request.send()).chunk
            except capnp.KjException as raised:
                # pycapnp adds words and a line's end of its own, on the client and as server.
                error = raised.description.removeprefix("remote exception: ")
                error = error.removeprefix("message = ").removesuffix("\n")
            return error, bytes((await stream.read({"content": "after"})).chunk)

    result: tuple[str | bytes, bytes] = run(work)
    return result


def test_a_services_own_error_is_sent_as_it_stands(faulty: Running) -> None:
    assert outcome(faulty, "service") == ("no such word", b"retfa")


@pytest.mark.parametrize("content", ["bug", "chained", "field", "type"])
def test_h4_an_unexpected_error_is_a_number_here_and_a_traceback_there(
    faulty: Running, content: str | bytes
) -> None:
    error, after = outcome(faulty, content)
    assert after == b"retfa"
    match = re.fullmatch(r"internal error \[id ([0-9]+-[0-9]+-[0-9]+)\]", str(error))
    assert match is not None
    faulty.err.wait_for(f"internal error [id {match[1]}] in read")
    faulty.err.wait_for("Traceback (most recent call last)")
    if content in {"bug", "chained"}:
        # The others are found when the method has returned.
        faulty.err.wait_for("sample_services.py")


def test_no_result_is_an_empty_result(faulty: Running) -> None:
    assert outcome(faulty, "none") == (b"", b"retfa")


def test_e1_text_that_is_not_utf8_is_refused_and_the_connection_lives(faulty: Running) -> None:
    # pycapnp checks nothing when it builds text from bytes.
    error, after = outcome(faulty, b"\xff\xfe")
    assert re.fullmatch("bad parameters: .*text .*is not UTF-8.*", str(error))
    assert after == b"retfa"
