"""`client call`: a pycapnp server is called by names, and its results are JSON."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import RunCommand, runner
from fake_server import answering, fake_server
from running_peer import running_peer
from running_server import environment

from capnp_rig.client.cli import cli
from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT, EncodedStruct
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.interfaces import compile_interface

DATA = Path(__file__).parents[1] / "data"
MAIN = ("--schema", str(DATA / "level_1.capnp"), "--interface", "Main")
GEOMETRY_FILE = str(DATA / "workload.capnp")
GEOMETRY = ("--schema", GEOMETRY_FILE, "--interface", "Geometry")
UNREADABLE = "message has a pointer of another kind where a struct is expected"
SEE = " (see client call --help)\n"
METHODS = compile_interface(load_schema(GEOMETRY_FILE).Geometry).methods


@pytest.fixture
def client(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> RunCommand:
    return runner(cli, "client", capsys, monkeypatch)


@pytest.fixture(scope="module")
def peer() -> Iterator[str]:
    with running_peer("named_call_server.py") as address:
        yield address


def echoing(call: Called) -> EncodedStruct:
    """Return the params of `kinds`, as they came."""
    method = METHODS["kinds"]
    assert call.method_id == method.method_id
    return method.results.write({"kinds": method.params.open(call.params).kinds})


def silent(_: Called) -> None:
    return None


# --- results --------------------------------------------------------------------------------


def test_results_are_one_json_document(client: RunCommand, peer: str) -> None:
    arguments = ("--method", "login", "--params", '{"user": "u"}')
    status, out, err = client("call", peer, *MAIN, *arguments)
    assert (status, err, out.count("\n")) == (0, "", 1)
    # What the server says is no command to the terminal.
    assert r'"u\u001b[31m\u009b\u202e"' in out
    assert json.loads(out) == {
        "session": "<capability Session>",
        "pair": {
            "name": "u\x1b[31m\x9b\u202e",
            "session": "<capability Session>",
            "others": ["<capability Session>", None],
            "any": None,
        },
    }


def test_a_null_capability_is_null_both_ways(client: RunCommand, peer: str) -> None:
    arguments = ("--method", "back", "--params", '{"callback": null}')
    assert client("call", peer, *MAIN, *arguments) == (0, '{"callback": null}\n', "")
    # So is one that is left out.
    assert client("call", peer, *MAIN, "--method", "back")[1] == '{"callback": null}\n'


def test_params_come_from_a_file_or_the_input(client: RunCommand, tmp_path: Path) -> None:
    kinds = {"i64": 5, "u64": str(2**64 - 1), "data": "AAH/", "text": "{{i}}", "f64": "NaN"}
    text = json.dumps({"kinds": kinds})
    file = tmp_path / "params.json"
    file.write_text(text)
    with fake_server(answering(echoing)) as address:
        call = ("call", address, *GEOMETRY, "--method", "kinds", "--params")
        printed = [
            client(*call, text),
            client(*call, f"@{file}"),
            client(*call, "-", stdin=text.encode()),
        ]
        strings = client(*call, text, "--int64-strings")
    assert printed[0][::2] == (0, "")
    assert printed[0] == printed[1] == printed[2]
    # A template is one for loads only.
    expected = {**kinds, "u64": 2**64 - 1}
    assert json.loads(printed[0][1])["kinds"].items() >= expected.items()
    assert json.loads(strings[1])["kinds"].items() >= {**kinds, "i64": "5"}.items()


def test_an_ascii_output_gets_json_all_the_same() -> None:
    with fake_server(answering(echoing)) as address:
        arguments = ("--method", "kinds", "--params", '{"kinds": {"text": "Grüße 🦀"}}')
        done = subprocess.run(
            [
                sys.executable,
                "-P",
                "-m",
                "capnp_rig.client",
                "call",
                address,
                *GEOMETRY,
                *arguments,
            ],
            capture_output=True,
            env={**environment(), "PYTHONIOENCODING": "ascii"},
            timeout=20,
            check=False,
        )
    assert (done.returncode, done.stderr, done.stdout.isascii()) == (0, b"", True)
    assert json.loads(done.stdout)["kinds"]["text"] == "Grüße 🦀"


def test_a_streaming_method_is_waited_for(client: RunCommand) -> None:
    upload = ("--schema", str(DATA / "streams.capnp"), "--interface", "Upload")
    arguments = ("--method", "write", "--params", '{"chunk": "AAH/"}', "--timeout", "0.2")
    with fake_server(answering(lambda _: EMPTY_STRUCT)) as address:
        assert client("call", address, *upload, *arguments) == (0, "{}\n", "")
    with fake_server(answering(silent)) as address:
        assert client("call", address, *upload, *arguments)[0] == 4


# --- failures -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            [*GEOMETRY[:2]],
            (
                "workload.capnp has several interfaces, name one of them: Measured, Geometry, "
                "Geometry.Callback, Outer.Nothing"
            ),
        ),
        (
            [*GEOMETRY, "--method", "x"],
            ("no method 'x' in Geometry: it has move, kinds, plain, rare, watch, open, measure"),
        ),
        ([*GEOMETRY[:3], "X"], "no interface 'X' in workload.capnp: it has Measured, Geometry, "),
        ([*GEOMETRY, "--method", "kinds", "--params", "{"], "params line 1, column 2: Expecting "),
        ([*GEOMETRY, "--method", "kinds", "--params", '{"x": 1}'], "params: no field 'x' in the "),
        (
            [*GEOMETRY, "--method", "watch", "--params", '{"callback": 1}'],
            "params: callback: a capability cannot be given as JSON: leave it out",
        ),
        ([*GEOMETRY, "--method", "kinds", "--params", "@/nowhere"], "cannot read /nowhere: No "),
        (["--schema", "/nowhere.capnp"], "no schema file at /nowhere.capnp"),
        ([*GEOMETRY, "-I", "/nowhere"], "no folder at /nowhere, which the import path (-I) names"),
        ([*MAIN, "--via", "login()"], "via: column 1: login() is followed by no field of its "),
        (
            [*MAIN, "--via", 'login({"x": 1}).session', "--method", "read"],
            "via: login: no field 'x' in the params of login: it has user",
        ),
        (["--timeout", "0"], "Invalid value for '--timeout': 0.0 is not in the range x>0."),
    ],
)
def test_a_mistake_is_told_before_anybody_is_called(
    client: RunCommand, arguments: list[str], error: str
) -> None:
    status, out, err = client("call", "127.0.0.1:1", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"client: {error}"), err
    assert err.endswith(SEE)


def test_an_error_of_the_server_is_one_line_that_does_no_harm(
    client: RunCommand, peer: str
) -> None:
    arguments = ("--method", "login", "--params", '{"user": "nobody"}')
    status, out, err = client("call", peer, *MAIN, *arguments)
    assert (status, out) == (1, "")
    assert err == "client: ValueError: wrong password \\x1b[31m\\x07 for nobody\n"


def test_each_failure_has_its_status(client: RunCommand) -> None:
    arguments = (*GEOMETRY, "--method", "kinds")
    refused = "client: cannot connect to 127.0.0.1:1: Connection refused\n"
    assert client("call", "127.0.0.1:1", *arguments) == (3, "", refused)
    with fake_server(answering(silent)) as address:
        late = client("call", address, *arguments, "--timeout", "0.05")
    assert late == (4, "", "client: no answer within the deadline\n")
    with fake_server(socket.socket.close) as address:
        assert client("call", address, *arguments)[0] == 5


def test_results_that_cannot_be_read_are_told(client: RunCommand) -> None:
    def reply(_: Called) -> EncodedStruct:
        return EncodedStruct(1 << 16, [b"\x01\0\0\x70\x02\x01\0\0"], 1)

    with fake_server(answering(reply)) as address:
        assert client("call", address, *GEOMETRY, "--method", "kinds") == (
            5,
            "",
            f"client: the results cannot be read: {UNREADABLE}\n",
        )


# --- chains ---------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", [[], ["--interface", "Main"], ["--interface", "Session"]])
def test_a_chain_leads_to_the_capability_that_is_called(
    client: RunCommand, peer: str, interface: list[str]
) -> None:
    chain = 'login({"user": "u"}).session.nested({"name": "n"}).session'
    arguments = ("--schema", MAIN[1], *interface, "--via", chain, "--method", "read")
    printed = client("call", peer, *arguments, "--params", '{"number": 7}')
    assert printed == (0, '{"text": "u.n 7"}\n', "")


def test_a_chain_through_structs_takes_one_round_trip(client: RunCommand, peer: str) -> None:
    arguments = ("--via", 'login({"user": "u"}).pair.session', "--method", "read")

    def relay(connection: socket.socket) -> None:
        """Give the client no answer before the last one is here."""
        host, port = peer.split(":")
        with socket.create_connection((host, int(port)), 20) as server:
            asking = threading.Thread(target=pump, args=(connection, server))
            asking.start()
            answers = b""
            while b"other 0" not in answers:
                answers += server.recv(65536)
            connection.sendall(answers)
            asking.join(20)

    def pump(connection: socket.socket, server: socket.socket) -> None:
        while data := connection.recv(65536):
            server.sendall(data)

    with fake_server(relay) as address:
        printed = client("call", address, *MAIN, *arguments)
    assert printed == (0, '{"text": "other 0"}\n', "")


def test_a_step_that_fails_is_what_is_told(client: RunCommand, peer: str) -> None:
    def walk(user: str, *more: str) -> tuple[int, str, str]:
        chain = f'login({{"user": "{user}"}}).session'
        return client("call", peer, *MAIN, "--via", chain, "--method", "read", *more)

    status, out, err = walk("nobody")
    assert (status, out) == (1, "")
    assert "wrong password" in err
    told = "there is no session in the results of login: it is null"
    assert walk("guest") == (1, "", f"client: {told}\n")
    assert walk("slow", "--timeout", "0.2")[::2] == (4, "client: no answer within the deadline\n")
