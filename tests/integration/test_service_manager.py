"""The server under systemd: what it says to it, and the sockets that it is handed."""

import signal
import socket
from pathlib import Path

from running_server import running_server


def test_the_service_manager_hears_of_start_life_and_end(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        sock.bind(path)
        env = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}
        with running_server("--workers", "1", env=env) as server:
            said = [sock.recv(1000)]
            # A worker is not there yet, but the supervisor lives.
            while said[-1] == b"WATCHDOG=1":
                said.append(sock.recv(1000))
            ready = f"READY=1\nSTATUS=Listening on 127.0.0.1:{server.port} with 1 workers..."
            assert said[-1].decode() == ready
            for pid in server.workers():
                theirs = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8")
                assert "NOTIFY_SOCKET" not in theirs
                assert "WATCHDOG_USEC" not in theirs
            assert sock.recv(1000) == b"WATCHDOG=1"
            server.signal(signal.SIGTERM)
            while (last := sock.recv(1000)) == b"WATCHDOG=1":
                pass
            assert last == b"STOPPING=1\nSTATUS=Draining"
            assert server.wait() == 0
