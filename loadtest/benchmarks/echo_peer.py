"""Sends back every frame that comes on a socket that it was handed, until that ends.

    python -m capnp_rig.loadtest.benchmarks.echo_peer FD

A frame is received whole before it goes back, as a service would do.
"""

import socket
import sys
from contextlib import suppress

from capnp_rig.loadtest.benchmarks.framed_socket import receive_frame, send_frame


def main() -> None:
    """Echo until the other end is closed, or its process gone."""
    with socket.socket(fileno=int(sys.argv[1])) as sock, suppress(EOFError, ConnectionError):
        while True:
            send_frame(sock, receive_frame(sock))


if __name__ == "__main__":
    main()
