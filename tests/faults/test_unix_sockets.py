"""H2: who may connect to a Unix socket, by the mode of its file and by user."""

import os
import stat
from pathlib import Path

import pytest
from running_server import run_to_end, running_server

from capnp_rig.client.reverse import ReverseClient
from capnp_rig.objects.errors import ClientError


@pytest.mark.parametrize(("options", "mode"), [((), 0o600), (("--socket-mode", "660"), 0o660)])
def test_h2_the_file_has_its_mode(tmp_path: Path, options: tuple[str, ...], mode: int) -> None:
    path = tmp_path / "rig.sock"
    with running_server("--workers", "1", *options, address=f"unix:{path}"):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_h2_users_are_served_or_told_that_they_are_not(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/rig.sock"
    us, another = str(os.getuid()), str(os.getuid() + 1)
    with (
        running_server("--workers", "1", "--allow-uid", us, address=address),
        ReverseClient.connect(address) as client,
    ):
        assert client.reverse("Hello") == "olleH"
    with running_server("--workers", "1", "--allow-uid", another, address=address) as server:
        with (
            ReverseClient.connect(address) as client,
            pytest.raises(ClientError, match=f"uid {us} is not served here"),
        ):
            client.reverse("Hello")
        server.err.wait_for(f"Refusing a connection: uid {us} is none of --allow-uid")


def test_h2_what_a_unix_socket_alone_can_keep_is_not_promised_for_tcp() -> None:
    refused = run_to_end("run", "127.0.0.1:0", "--allow-uid", "1")
    assert refused.returncode == 2
    assert "--allow-uid goes with a Unix socket" in refused.stderr
    refused = run_to_end("run", "unix:/tmp/x", "--socket-mode", "888")
    assert refused.returncode == 2
    assert "no mode in octal" in refused.stderr
