"""The `loadtest` command, also as ``python -m capnp_rig.loadtest``."""

import os
import signal
import sys

# Without the import of typing, 5 ms in which Ctrl-C would print a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

# Enough to import everything; a load of many connections says so if they are too many.
_OPEN_FILES = 32


def main() -> "NoReturn":
    """Run the `loadtest` command."""
    # During the imports a signal ends the process without the traceback of half an import. One
    # that is ignored, as Ctrl-C in the background of a script, stays so.
    handled = [number for number in _RAISING if signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, _leave)
    from capnp_rig import rigcli

    rigcli.require_files("loadtest", _OPEN_FILES)
    from capnp_rig.loadtest.cli import cli

    for number in handled:
        signal.signal(number, _RAISING[number])
    rigcli.run(cli, "loadtest", prints=True)


def _leave(number: int, _frame: "FrameType | None") -> "NoReturn":
    # As a shell expects.
    os._exit(128 + number)


def _unwind(number: int, _frame: "FrameType | None") -> "NoReturn":
    # What was started is ended on the way.
    sys.exit(128 + number)


_RAISING = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _unwind}


if __name__ == "__main__":
    main()
