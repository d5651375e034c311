import os
import signal

import pytest

from capnp_rig.server.control.signals import (
    HANDLED,
    SentSignals,
    reset_in_children,
    survive_signals,
)

# What does no harm by default; what cannot be handled; what tells of a crash; what Python handles.
HARMLESS = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
NOT_TO_HANDLE = {signal.SIGKILL, signal.SIGSTOP}
OF_A_CRASH = {
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
}
OF_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}


def test_every_signal_that_could_end_or_stop_a_process_is_handled() -> None:
    others = HARMLESS | NOT_TO_HANDLE | OF_A_CRASH | OF_PYTHON
    assert set(HANDLED) | others == signal.valid_signals()
    assert set(HANDLED) & others == set()


@pytest.mark.parametrize("number", HANDLED, ids=lambda number: f"{number!r}")
def test_a_process_survives_it_and_its_children_do_not(number: int) -> None:
    """In a process of its own: handlers and what happens at fork last for life."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            survive_signals()
            reset_in_children()
            signal.raise_signal(number)
            is_handled = callable(signal.getsignal(number))
            grandchild = os.fork()
            if grandchild == 0:
                is_default = signal.getsignal(number) in (
                    signal.SIG_DFL,
                    signal.default_int_handler,
                )
                os._exit(7 if is_default else 1)
            _, ended = os.waitpid(grandchild, 0)
            status = 0 if is_handled and os.waitstatus_to_exitcode(ended) == 7 else 1
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == 0


def test_a10_signals_that_somebody_sends_are_told_apart_from_the_terminals() -> None:
    """In a process of its own: they stay blocked."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            sent = SentSignals()
            assert sent.read() == []
            os.kill(os.getpid(), signal.SIGTTOU)
            os.kill(os.getpid(), signal.SIGTTIN)
            status = 0 if sorted(sent.read()) == [signal.SIGTTIN, signal.SIGTTOU] else 1
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == 0
