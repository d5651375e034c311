"""Run something in a fork of the test."""

import faulthandler
import os
import sys
from collections.abc import Callable

# A lock that another thread held during the fork is never released in the child.
_HANGS_AFTER_S = 20.0


def in_child(work: Callable[[], str]) -> str:
    """Return what `work` returns in a fork, or what it raises there."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        faulthandler.dump_traceback_later(_HANGS_AFTER_S, exit=True, file=sys.__stderr__)
        try:
            said = work()
        except BaseException as error:
            said = repr(error)
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


def error_of(use: Callable[[], object]) -> type[BaseException] | None:
    """Return the type of what it raises."""
    try:
        use()
    except Exception as error:
        return type(error)
    return None
