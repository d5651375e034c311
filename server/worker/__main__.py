"""A worker process: ``python -P -m capnp_rig.server.worker CONTROL_FD STAMP_FD SUPERVISOR_PID``.

It first ties its life to the supervisor's, then imports the rest. Its orders come over the control
socket only, so signals do nothing. It leads a process group, which the supervisor kills at its
end: what a service has started ends with its worker, unless it calls setsid.
"""

import atexit
import contextlib
import ctypes
import faulthandler
import mmap
import os
import resource
import signal
import socket
import sys

from capnp_rig.server.control.signals import reset_in_children, survive_signals

_PR_SET_PDEATHSIG = 1
_ORPHANED = 3
_FAILED = 1
_SIGNAL_STACK_BYTES = 1 << 20


def main() -> None:
    """Serve until told to leave; exit with 0 if every call was answered."""
    control_fd, stamp_fd, supervisor_pid = map(int, sys.argv[1:])
    _die_with(supervisor_pid)
    survive_signals()
    reset_in_children()
    # The supervisor starts us with them blocked, so that none arrives before the handlers; and a
    # process that a service starts inherits what is blocked.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # A core dump would put the memory of a server on a disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable(file=2)
    _enlarge_signal_stack()
    end = _QuickEnd()
    # What is registered first runs last.
    atexit.register(end)
    from capnp_rig.server.worker.start import start

    end.status = start(socket.socket(fileno=control_fd), stamp_fd)


class _SignalStack(ctypes.Structure):
    """C's `stack_t`."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


def _enlarge_signal_stack() -> None:
    """Make room for the handlers of all signals at once.

    faulthandler gives them all a stack of 16 KiB, where six overflow it: SIGSEGV.
    """
    memory = ctypes.c_char.from_buffer(mmap.mmap(-1, _SIGNAL_STACK_BYTES))
    stack = _SignalStack(ctypes.addressof(memory), 0, _SIGNAL_STACK_BYTES)
    if ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0:
        _in_use.append(memory)


_in_use: list[ctypes.c_char] = []


class _QuickEnd:
    """Ends the process when threads and the service's own `atexit` functions are done.

    Python would take its modules apart first, which is 70 ms of CPU for nothing.
    """

    def __init__(self) -> None:
        self.status = _FAILED
        self._pid = os.getpid()

    def __call__(self) -> None:
        """Exit, but for a process that was forked from this one."""
        if os.getpid() != self._pid:
            return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(self.status)


def _die_with(supervisor_pid: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # It may have died before the kernel was told.
    if os.getppid() != supervisor_pid:
        sys.exit(_ORPHANED)


if __name__ == "__main__":
    main()
