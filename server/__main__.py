"""Run the command line: ``server``, or ``python -m capnp_rig.server``.

Nothing is imported first, so that Ctrl-C prints no traceback while the rest is.
"""

import os
import signal
from types import FrameType

# Without the import of typing, 5 ms in which Ctrl-C would print a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Run the `server` command and exit."""
    # Not if the signal is ignored, as for a script's background job.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)
    # An order that comes while the rest is imported waits until somebody can act on it.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGUSR1))
    from capnp_rig import rigcli
    from capnp_rig.server.cli import cli

    rigcli.run(cli, "server")


def _exit(_number: int, _frame: FrameType | None) -> "NoReturn":
    # As a shell expects.
    os._exit(130)


if __name__ == "__main__":
    main()
