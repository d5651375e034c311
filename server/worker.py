"""A worker process: ``python -P -m server.worker CONTROL_FD SUPERVISOR_PID``.

It first ties its life to the supervisor's, then imports the rest. Its orders come over the control
socket only, so the signals a terminal sends to the whole group are ignored.
"""

import ctypes
import faulthandler
import os
import resource
import signal
import socket
import sys

_PR_SET_PDEATHSIG = 1
_ORPHANED = 3
_GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


def main() -> None:
    """Serve until told to leave; exit with 0 if every call was answered."""
    control_fd, supervisor_pid = int(sys.argv[1]), int(sys.argv[2])
    _die_with(supervisor_pid)
    _ignore_group_signals()
    # The memory of a server is not for the disk of whoever sees it crash.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable(file=2)
    from server.worker_start import start  # noqa: PLC0415 - only once the process is set up

    sys.exit(start(socket.socket(fileno=control_fd)))


def _die_with(supervisor_pid: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # It may have died before the kernel was told.
    if os.getppid() != supervisor_pid:
        sys.exit(_ORPHANED)


def _ignore_group_signals() -> None:
    for number in _GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # The supervisor starts us with them blocked, so that none arrives before this line.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)


if __name__ == "__main__":
    main()
