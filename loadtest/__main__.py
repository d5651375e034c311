"""The `loadtest` command, also as ``python -m capnp_rig.loadtest``."""

import signal

# Without the import of typing, 5 ms in which Ctrl-C would print a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# Enough to import everything; a load of many connections says so if they are too many.
_OPEN_FILES = 32


def main() -> "NoReturn":
    """Run the `loadtest` command."""
    # Ctrl-C during the imports ends the process, without the traceback of half an import. Where
    # it is ignored, as in the background of a script, it stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from capnp_rig import rigcli

    rigcli.require_files("loadtest", _OPEN_FILES)
    from capnp_rig.loadtest.cli import cli

    rigcli.run(cli, "loadtest", prints=True)


if __name__ == "__main__":
    main()
