"""What signals may do to the processes of the server: a table, and handlers for it.

A signal that has no meaning here must neither kill nor stop a process, so it gets a handler that
does nothing. It is not ignored (SIG_IGN): programs that a service starts would inherit that, and
could not be terminated. A handler ends at exec, and `reset_in_children` ends it at fork.

Left alone are the signals of a crash (SIGSEGV, SIGABRT...), those that do nothing by default
(SIGCHLD, SIGCONT, SIGURG, SIGWINCH), and SIGPIPE and SIGXFSZ, of which Python makes errors.
"""

import os
import signal
from collections.abc import Callable, Iterable
from types import FrameType

# The supervisor acts on these; on the last one only if it is Ctrl-Z. A worker takes its orders
# from the control socket alone.
SUPERVISOR_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGTSTP)
# By default, a process that reads from or writes to a terminal in the background is stopped.
_TERMINAL_SIGNALS = (signal.SIGTTIN, signal.SIGTTOU)
# By default, these end a process.
_DEADLY_SIGNALS = (
    signal.SIGHUP,
    signal.SIGUSR1,
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
IDLE_SIGNALS = (*_DEADLY_SIGNALS, *_TERMINAL_SIGNALS)
HANDLED = (*SUPERVISOR_SIGNALS, *IDLE_SIGNALS)

_Handler = Callable[[int, FrameType | None], None]


def survive_signals(numbers: Iterable[int] = HANDLED) -> None:
    """Make those signals do nothing, from now on and in this process only."""
    for number in numbers:
        signal.signal(number, _on_terminal if number in _TERMINAL_SIGNALS else _do_nothing)


def reset_in_children() -> None:
    """Give every process that is forked from this one the handlers of a new Python process."""
    os.register_at_fork(after_in_child=_reset)


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
