"""Every stack over TLS, as clients and loads reach it: `client`, `loadtest run`, `locust`."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_rig import ROOT
from running_server import Running, running_server
from throwaway_ca import ThrowawayCa

# A stack of the server, and those of the load that speak with it.
STACKS = {
    "capnp": ["capnp"],
    "echo": ["echo"],
    "json": ["json"],
    "http": ["http1", "http2"],
    "grpc": ["grpc"],
}


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> ThrowawayCa:
    return ThrowawayCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture(params=STACKS)
def served(request: pytest.FixtureRequest, ca: ThrowawayCa) -> Iterator[tuple[str, Running]]:
    options = ["--stack", request.param, "--workers", "1", *ca.server_options()]
    with running_server(*options) as server:
        yield request.param, server


def tls_options(ca: ThrowawayCa, prefix: str = "--tls") -> list[str]:
    files = {"ca": ca.pem, "cert": ca.client.cert, "key": ca.client.key}
    return [part for name, file in files.items() for part in (f"{prefix}-{name}", file)]


def run(module: str, *args: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_stack_is_called_and_loaded(
    served: tuple[str, Running], ca: ThrowawayCa, tmp_path: Path
) -> None:
    stack, server = served
    address = f"{server.host}:{server.port}"
    kinds: list[list[str]] = [[], ["--http2"]] if stack == "http" else [[]]
    for more in kinds:
        args = ["send", address, "Hello", "--stack", stack, *more]
        answer = run("capnp_rig.client", *args, *tls_options(ca))
        assert answer == ("Hello\n" if stack == "echo" else "olleH\n")
        assert "over TLS" in run("capnp_rig.client", *args, "--tls", status=1)
    for load in STACKS[stack]:
        options = ["--stack", load, "--calls", "50", "--connections", "2", "--allow-void"]
        results = ["--no-pin", "--results", str(tmp_path)]
        run("capnp_rig.loadtest", "run", address, *options, *results, *tls_options(ca))


def test_locust_loads_over_tls(ca: ThrowawayCa, tmp_path: Path) -> None:
    with running_server("--workers", "1", *ca.server_options()) as server:
        file = str(ROOT / "loadtest" / "capnp_user.py")
        users = ["-H", f"{server.host}:{server.port}", "--headless", "-u", "2", "-t", "1s"]
        results = ["--allow-void", "--results", str(tmp_path)]
        run("locust", "-f", file, *users, *results, *tls_options(ca, "--capnp-tls"))
        mistake = run("locust", "-f", file, *users, "--capnp-tls-cert", ca.client.cert, status=2)
    assert "cannot use the certificate" in mistake


def test_a_stack_without_tls_says_so(ca: ThrowawayCa) -> None:
    refused = run(
        "capnp_rig.server",
        "run",
        "127.0.0.1:0",
        "--stack",
        "selectors",
        *ca.server_options(),
        status=2,
    )
    assert "--tls-cert does not go with --stack selectors" in refused
