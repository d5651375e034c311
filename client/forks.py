"""A forked child and its parent's connections: it drops them at once, and may not use them.

A child has copies of its parent's descriptors, for the same sockets and the same epoll set. What
it writes, reads or shuts down happens to the parent's connection. If it closes or collects a
transport, its loop takes the socket out of the epoll set for both. So right after the fork, before
any other code of the child, its copies are replaced by descriptors of a dead socket. Whatever
the child does then, such as to end its event loop, happens to the dead socket.

Only `Owner.check` notices a fork that Python does not see, by a library in C.
"""

import os
import socket
import weakref

from capnp_rig.objects.errors import UsedAfterFork

_guarded: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def keep_from_children(sock: socket.socket) -> None:
    """Let no forked child have this socket, as long as it is open."""
    _guarded.add(sock)


class Owner:
    """The process that made a connection."""

    __slots__ = ("_pid",)

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is that process."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Go on in that process only.

        Raises:
            UsedAfterFork: This is a child of it.
        """
        if os.getpid() != self._pid:
            raise UsedAfterFork(
                f"the connection was made in process {self._pid}, before a fork: connect anew"
            )


def _drop_all() -> None:
    guarded = [sock for sock in _guarded if sock.fileno() >= 0]
    _guarded.clear()
    if not guarded:
        return
    try:
        dead, other = socket.socketpair()
    except OSError:
        # No descriptor is free. Closed ones are not safe for ever: their numbers come again.
        for sock in guarded:
            sock.close()
        return
    other.close()
    with dead:
        for sock in guarded:
            os.dup2(dead.fileno(), sock.fileno(), inheritable=False)


os.register_at_fork(after_in_child=_drop_all)
