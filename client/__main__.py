"""The `client` command, also as ``python -m capnp_rig.client``."""

import signal

# Without the import of typing, 5 ms in which Ctrl-C would print a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# Enough to import everything and to connect.
_OPEN_FILES = 16


def main() -> "NoReturn":
    """Run the `client` command."""
    # Ctrl-C during the imports ends the process, without the traceback of half an import. Where
    # it is ignored, as in the background of a script, it stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from capnp_rig import rigcli

    rigcli.require_files("client", _OPEN_FILES)
    from capnp_rig.client.cli import cli

    rigcli.run(cli, "client", prints=True)


if __name__ == "__main__":
    main()
