"""Tells the service manager how the server is: systemd's protocol, as in sd_notify(3).

Each message is a datagram to the socket that NOTIFY_SOCKET names. Without one nothing is sent. A
service manager that does not read may hold up the server for a second when its state changes, and
else its message is dropped.
"""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Self

# How long a message waits for room that must not be lost: without READY=1, the server is killed.
_PATIENCE_S = 1.0
# More often, the messages would take the supervisor's time: 40 % of a CPU for WATCHDOG_USEC=1.
_LEAST_WATCHDOG_S = 0.01


class ServiceManager:
    """Who started the server and waits to hear of it; nobody if `path` is None.

    `watchdog_s` is how often it wants to hear that the server is alive, None if it does not.
    """

    def __init__(self, path: str | None = None, watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s
        self._path = path

    @classmethod
    def of_environment(cls, environ: MutableMapping[str, str]) -> Self:
        """Take its variables out of `environ`: workers, and what services start, get none."""
        path = environ.pop("NOTIFY_SOCKET", "")
        # An abstract name, which has no file.
        path = f"\0{path[1:]}" if path.startswith("@") else path
        period_us = environ.pop("WATCHDOG_USEC", "")
        is_for_us = environ.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        # Half of the time after which it would kill us.
        # 20 digits are its 64 bits, all that systemd says.
        is_number = period_us.isdecimal() and len(period_us) <= 20
        watchdog_s = int(period_us) / 2e6 if is_for_us and is_number else 0.0
        return cls(path or None, max(watchdog_s, _LEAST_WATCHDOG_S) if watchdog_s else None)

    def ready(self, status: str) -> None:
        """Say that the server serves, after its start or a reload; `status` shows to people."""
        self._tell("READY=1", f"STATUS={status}", patience_s=_PATIENCE_S)

    def reloading(self) -> None:
        """Say that a reload begins, which `ready` ends."""
        self._tell(
            "RELOADING=1",
            f"MONOTONIC_USEC={time.monotonic_ns() // 1000}",
            patience_s=_PATIENCE_S,
        )

    def stopping(self) -> None:
        """Say that the server is about to end."""
        self._tell("STOPPING=1", "STATUS=Draining", patience_s=_PATIENCE_S)

    def status(self, text: str) -> None:
        """Show a line to people."""
        self._tell(f"STATUS={text}")

    def watchdog(self) -> None:
        """Say that the server is alive."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str, patience_s: float = 0.0) -> None:
        if self._path is None:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(patience_s)
            sock.sendto("\n".join(lines).encode(), self._path)
