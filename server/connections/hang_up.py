"""Whether a peer has gone whose connection is not read."""

import asyncio
import select


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Return whether the peer has ended its half of a connection, or all of it.

    A transport that is paused does not notice.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))
