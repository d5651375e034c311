import pytest

from capnp_rig.loadtest.ab.server_command import (
    CommandError,
    free_address,
    split_command,
    with_address,
)
from capnp_rig.rigcli.address import parse_address

_ADDRESS = "127.0.0.1:40000"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("serve --listen {addr} -v", ["serve", "--listen", _ADDRESS, "-v"]),
        ("serve --bind=tcp://{addr}", ["serve", f"--bind=tcp://{_ADDRESS}"]),
        ("serve -h {host} --port={port}", ["serve", "-h", "127.0.0.1", "--port=40000"]),
        # The address that it has is not ours.
        (
            "server run 127.0.0.1:0 --service old:S",
            ["server", "run", _ADDRESS, "--service", "old:S"],
        ),
        ("server run unix:/run/s --workers 2", ["server", "run", _ADDRESS, "--workers", "2"]),
        ("server run --service old:S", ["server", "run", "--service", "old:S", _ADDRESS]),
        ("'my server' {addr}", ["my server", _ADDRESS]),
    ],
)
def test_a_command_gets_an_address(command: str, expected: list[str]) -> None:
    assert with_address(split_command(command), _ADDRESS) == expected


@pytest.mark.parametrize(
    ("command", "message"),
    [("", "an empty command"), ("server 'run", 'bad command "server \'run": No closing quotation')],
)
def test_what_is_no_command(command: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        split_command(command)


def test_a_free_address_is_one_of_loopback() -> None:
    address = parse_address(free_address())
    assert address.host == "127.0.0.1"
    assert address.port
