"""The TCP echo: every byte comes back, in order, as soon as it has come.

Wire format: none. There are no messages and no limits; a peer that wants an answer to a text of
n bytes reads n bytes. When the peer ends its half of the connection, what is left of the echo is
sent, and the connection is closed.
"""

from capnp_rig.server.services.reverse import received_line
from capnp_rig.server.stacks.streams import Stream


class Echo(Stream):
    """One connection."""

    def data_received(self, data: bytes) -> None:
        """Send it back."""
        self.received_bytes += len(data)
        if self._note is not None:
            self._note(received_line(data.decode(errors="replace")))
        # `data` is ours to give away. A `BufferedProtocol` would have to copy it here: what
        # does not leave at once is kept by reference, and the shared buffer is refilled.
        self._transport.write(data)
