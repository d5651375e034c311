"""What signals may do to the processes of the server: a table, and handlers for it.

A signal that has no meaning here must neither kill nor stop a process, so it gets a handler that
does nothing. It is not ignored (SIG_IGN): programs that a service starts would inherit that, and
could not be terminated. A handler ends at exec, and `reset_in_children` ends it at fork.

Left alone are the signals of a crash (SIGSEGV, SIGABRT...), those that do nothing by default
(SIGCHLD, SIGCONT, SIGURG, SIGWINCH), and SIGPIPE and SIGXFSZ, of which Python makes errors.
"""

import ctypes
import os
import signal
import struct
from collections.abc import Callable, Iterable
from types import FrameType

# The supervisor acts on these and on those of the next two tables; on SIGTSTP only if it is Ctrl-Z.
# A worker takes its orders from the control socket alone.
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGTSTP)
ORDER_SIGNALS = (signal.SIGHUP, signal.SIGUSR1)
# Somebody may send them; and by default, a process that reads from or writes to a terminal in the
# background is sent one by the kernel, and stopped.
TERMINAL_SIGNALS = (signal.SIGTTIN, signal.SIGTTOU)
# By default, these end a process.
IDLE_SIGNALS = (
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGPWR,
    signal.SIGSTKFLT,
    signal.SIGXCPU,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
SUPERVISOR_SIGNALS = (*END_SIGNALS, *ORDER_SIGNALS)
HANDLED = (*SUPERVISOR_SIGNALS, *TERMINAL_SIGNALS, *IDLE_SIGNALS)

# Of C's `sigset_t`, and of what a signalfd yields: its number, an errno, and who sent it.
_SIGSET_BYTES = 128
_SIGNAL_INFO_BYTES = 128
_SIGNAL_INFO = struct.Struct("=Iii")
# SI_USER, and below it those of sigqueue and tgkill; the kernel's are above.
_SENT_BY_A_PROCESS = 0

_Handler = Callable[[int, FrameType | None], None]


def survive_signals(numbers: Iterable[int] = HANDLED) -> None:
    """Make those signals do nothing, from now on and in this process only."""
    for number in numbers:
        signal.signal(number, _on_terminal if number in TERMINAL_SIGNALS else _do_nothing)


def reset_in_children() -> None:
    """Give every process that is forked from this one the handlers of a new Python process."""
    os.register_at_fork(after_in_child=_reset)


class SentSignals:
    """Those of `TERMINAL_SIGNALS` that somebody sends, without those of the kernel.

    They stay blocked in this process, so that its use of a terminal raises none; a handler could
    not tell who sent one (signalfd(2)).
    """

    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
        bits = sum(1 << (number - 1) for number in TERMINAL_SIGNALS)
        wanted = ctypes.create_string_buffer(bits.to_bytes(_SIGSET_BYTES, "little"), _SIGSET_BYTES)
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self._fd: int = ctypes.CDLL(None, use_errno=True).signalfd(-1, wanted, flags)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "signalfd")

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        return self._fd

    def read(self) -> list[int]:
        """Return the numbers of those that came."""
        try:
            data = os.read(self._fd, 16 * _SIGNAL_INFO_BYTES)
        except BlockingIOError:
            return []
        starts = range(0, len(data), _SIGNAL_INFO_BYTES)
        infos = (_SIGNAL_INFO.unpack_from(data, start) for start in starts)
        return [number for number, _errno, code in infos if code <= _SENT_BY_A_PROCESS]


def in_foreground() -> bool:
    """Return whether the keys of a terminal reach this process, as Ctrl-C and Ctrl-Z do."""
    return _foreground_group() == os.getpgrp()


def stop_like_others() -> None:
    """Stop as if SIGTSTP had no handler, and return when SIGCONT came."""
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, handler)


def in_background() -> bool:
    """Return whether this process has a terminal whose keys reach others."""
    return _foreground_group() not in (None, os.getpgrp())


def _foreground_group() -> int | None:
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.tcgetpgrp(terminal)
    except OSError:
        return None
    finally:
        os.close(terminal)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def _on_terminal(number: int, _frame: FrameType | None) -> None:
    # The call that caused it is repeated after this handler, by Python, and causes it again: a
    # loop without end. Where the signal is ignored, the write goes through and the read fails.
    if in_background():
        signal.signal(number, signal.SIG_IGN)


def _reset() -> None:
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # It belongs to the parent's event loop.
    signal.set_wakeup_fd(-1)
