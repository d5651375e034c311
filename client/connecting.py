"""Make a connection to an address within one deadline: `connect_socket` blocks, `open_socket` not.

Both carry out a `ConnectPlan`; they differ in how they wait. A name is looked up in a thread,
because the resolver has no deadline. It is a new thread each time: a look-up that hangs would keep
its place in a pool, and the end of the event loop would wait for it.
"""

import asyncio
import errno
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from capnp_rig.client.connect_plan import Candidate, ConnectPlan
from capnp_rig.objects.errors import ConnectError
from capnp_rig.objects.timeouts import check_timeout
from capnp_rig.rigcli import os_error_text
from capnp_rig.rigcli.address import Address
from capnp_rig.rigcli.socket_options import CLIENT_TIMEOUT_S, set_options

if TYPE_CHECKING:
    from capnp_rig.client.tls import Security, TlsArgument

Protocol = TypeVar("Protocol", bound=asyncio.BaseProtocol)

# The server's part in the end of a connection that we close.
_SHUTDOWN_S = 1.0
# What `getaddrinfo` returns, or why it does not.
_LookUp = Sequence[tuple[Any, ...]] | OSError | UnicodeError


def connect_socket(
    address: Address, timeout_s: float, security: "Security | None" = None
) -> socket.socket:
    """Return a connected socket; tries the addresses of a host name within one deadline.

    With `security`, the handshake is part of that, and an `ssl.SSLSocket` is returned.

    Raises:
        ConnectError: None of them answers, or the handshake fails.
        UsageError: `timeout_s` is not 0 to a year, or TLS does not know the server's name.
    """
    if security is not None:
        from capnp_rig.client.tls import shake_hands

        # Before the connection is made: a mistake costs the server nothing.
        security.name_of(address)
        deadline_s = time.monotonic() + check_timeout(timeout_s)
        return shake_hands(connect_socket(address, timeout_s), address, security, deadline_s)
    timeout_s = check_timeout(timeout_s)
    deadline_s = time.monotonic() + timeout_s
    candidates = _known(address) or _look_up_within(address, timeout_s)
    plan = ConnectPlan(candidates, now_s=time.monotonic(), deadline_s=deadline_s)
    with closing(_Race(plan, address)) as race:
        while True:
            winner = race.advance(time.monotonic())
            if winner is not None:
                winner.settimeout(timeout_s)
                return winner
            waiting = select.poll()
            for descriptor in race.under_way:
                waiting.register(descriptor, select.POLLOUT)
            wait_s = max(plan.wake_s - time.monotonic(), 0)
            race.ready = [descriptor for descriptor, _ in waiting.poll(wait_s * 1000)]


async def open_socket(address: Address, timeout_s: float) -> socket.socket:
    """Return a connected socket that does not block, as `connect_socket`."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + check_timeout(timeout_s)
    candidates = _known(address) or await _look_up(address, deadline_s)
    plan = ConnectPlan(candidates, now_s=loop.time(), deadline_s=deadline_s)
    with closing(_Race(plan, address)) as race:
        while True:
            winner = race.advance(loop.time())
            if winner is not None:
                return winner
            race.ready = await _first_ready(list(race.under_way), plan.wake_s)


def secured(tls: "TlsArgument", protocols: Sequence[str] = ()) -> "Security | None":
    """Load the files of `tls`, as `client.tls.secure`, which is imported only for TLS."""
    if tls is None:
        return None
    from capnp_rig.client.tls import secure

    return secure(tls, protocols)


async def adopt(
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    handshake: Mapping[str, Any] | None = None,
) -> None:
    """Give a connected socket to a transport, which owns it from here on.

    `handshake` has the options of TLS.
    """
    loop = asyncio.get_running_loop()
    unix = sock.family == socket.AF_UNIX
    create: Any = loop.create_unix_connection if unix else loop.create_connection
    adopting = asyncio.ensure_future(create(lambda: protocol, sock=sock, **(handshake or {})))
    try:
        await asyncio.shield(adopting)
    except asyncio.CancelledError:
        # It is done in two turns of the loop. Cancelled in between, uvloop would leave open
        # who closes the descriptor.
        adopting.add_done_callback(_close_unwanted)
        raise
    except OSError as error:
        sock.close()
        raise ConnectError(f"cannot use the connection: {error.strerror}") from error


async def open_secured(
    address: Address,
    timeout_s: float,
    security: "Security | None",
    make: Callable[[socket.socket], Protocol],
) -> Protocol:
    """Connect within one deadline, over TLS if there is `security`; return the protocol.

    `make` makes that of the connected socket.

    Raises:
        ConnectError, UsageError: As `connect_socket`.
    """
    if security is None:
        sock = await open_socket(address, timeout_s)
        protocol = make(sock)
        await adopt(sock, protocol)
        return protocol
    from capnp_rig.client.tls import handshake_error

    loop = asyncio.get_running_loop()
    name = security.name_of(address)
    deadline_s = loop.time() + check_timeout(timeout_s)
    sock = await open_socket(address, timeout_s)
    protocol = make(sock)
    options = {
        "ssl": security.context,
        # Without a name to check, asyncio wants an empty one.
        "server_hostname": name or "",
        "ssl_handshake_timeout": max(deadline_s - loop.time(), 0.001),
        "ssl_shutdown_timeout": _SHUTDOWN_S,
    }
    try:
        await adopt(sock, protocol, options)
    except ConnectError as error:
        cause = error.__cause__
        assert isinstance(cause, OSError)
        raise handshake_error(address, cause) from cause
    return protocol


def _close_unwanted(
    adopted: asyncio.Future[tuple[asyncio.Transport, asyncio.BaseProtocol]],
) -> None:
    if not adopted.cancelled() and adopted.exception() is None:
        adopted.result()[0].close()


class _Race:
    """The sockets of the attempts under way. `close` it: it closes all but the winner."""

    def __init__(self, plan: ConnectPlan, address: Address) -> None:
        self.under_way: dict[int, tuple[socket.socket, Candidate]] = {}
        # Descriptors of those that stand or have failed.
        self.ready: list[int] = []
        self._plan = plan
        self._address = address
        self._error: OSError | None = None

    def close(self) -> None:
        for sock, _ in self.under_way.values():
            sock.close()
        self.under_way.clear()

    def advance(self, now_s: float) -> socket.socket | None:
        """Look at what is ready, start what is due; return the first socket that stands."""
        for descriptor in self.ready:
            sock, candidate = self.under_way.pop(descriptor)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if self._stands(sock, candidate, code, now_s):
                return sock
        while (due := self._plan.take(now_s)) is not None:
            winner = self._start(due, now_s)
            if winner is not None:
                return winner
        is_late = now_s >= self._plan.deadline_s
        if is_late or (self._plan.is_exhausted and not self.under_way):
            raise self._failure(is_late=is_late) from self._error
        return None

    def _start(self, candidate: Candidate, now_s: float) -> socket.socket | None:
        try:
            sock = socket.socket(candidate.family, candidate.kind, candidate.protocol)
        except OSError as error:
            self._failed(candidate, error, now_s)
            return None
        sock.settimeout(0)
        try:
            code = sock.connect_ex(candidate.where)
        except OSError as error:
            # Raised all the same for a path that is too long.
            sock.close()
            self._failed(candidate, error, now_s)
            return None
        if code == errno.EINPROGRESS:
            self.under_way[sock.fileno()] = sock, candidate
            return None
        return sock if self._stands(sock, candidate, code, now_s) else None

    def _stands(self, sock: socket.socket, candidate: Candidate, code: int, now_s: float) -> bool:
        if code:
            sock.close()
            self._failed(candidate, OSError(code, os.strerror(code)), now_s)
            return False
        # The server may have reset it already: its first call finds that out.
        with suppress(OSError):
            set_options(sock, CLIENT_TIMEOUT_S)
        return True

    def _failed(self, candidate: Candidate, error: OSError, now_s: float) -> None:
        self._error = error
        is_backlog_full = candidate.family == socket.AF_UNIX and isinstance(error, BlockingIOError)
        self._plan.failed(candidate, now_s, is_busy=is_backlog_full)

    def _failure(self, *, is_late: bool) -> ConnectError:
        reason: object = "no answer in time"
        if self._error is not None:
            if isinstance(self._error, BlockingIOError):
                reason = "no room in the server's backlog in time"
            elif not is_late:
                reason = os_error_text(self._error)
        return ConnectError(f"cannot connect to {self._address}: {reason}")


async def _first_ready(descriptors: list[int], wake_s: float) -> list[int]:
    """Wait until one can be written to, or until `wake_s`; return it."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[list[int]] = loop.create_future()

    def tell(ready: list[int]) -> None:
        if not first.done():
            first.set_result(ready)

    timer = loop.call_at(wake_s, tell, [])
    for descriptor in descriptors:
        loop.add_writer(descriptor, tell, [descriptor])
    try:
        return await first
    finally:
        timer.cancel()
        # At once, before anybody closes them: the loop knows them by number.
        for descriptor in descriptors:
            loop.remove_writer(descriptor)


# --- names ------------------------------------------------------------------------------


def _known(address: Address) -> list[Candidate] | None:
    """Return what to try where no name has to be looked up, else None."""
    if address.path is not None:
        return [Candidate(socket.AF_UNIX, socket.SOCK_STREAM, 0, address.path)]
    with suppress(OSError, UnicodeError):
        return _candidates(
            socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        )
    return None


def _candidates(answer: Sequence[tuple[Any, ...]]) -> list[Candidate]:
    return [Candidate(family, kind, protocol, where) for family, kind, protocol, _, where in answer]


def _look_up_within(address: Address, timeout_s: float) -> list[Candidate]:
    answers: queue.SimpleQueue[_LookUp] = queue.SimpleQueue()
    _start_look_up(address, answers.put)
    try:
        return _read_look_up(address, answers.get(timeout=timeout_s))
    except queue.Empty:
        raise _not_resolved(address, "no answer in time") from None


async def _look_up(address: Address, deadline_s: float) -> list[Candidate]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_LookUp] = loop.create_future()

    def settle(answer: _LookUp) -> None:
        if not future.done():
            future.set_result(answer)

    def report(answer: _LookUp) -> None:
        # The loop is closed where nobody waits any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, answer)

    _start_look_up(address, report)
    try:
        async with asyncio.timeout_at(deadline_s):
            return _read_look_up(address, await future)
    except TimeoutError:
        raise _not_resolved(address, "no answer in time") from None


def _start_look_up(address: Address, report: Callable[[_LookUp], object]) -> None:
    def look_up() -> None:
        try:
            answer: _LookUp = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            answer = error
        report(answer)

    try:
        threading.Thread(target=look_up, name="look up a host name", daemon=True).start()
    except RuntimeError as error:
        raise _not_resolved(address, error) from error


def _read_look_up(address: Address, answer: _LookUp) -> list[Candidate]:
    if isinstance(answer, (OSError, UnicodeError)):
        raise _not_resolved(address, answer) from answer
    return _candidates(answer)


def _not_resolved(address: Address, reason: object) -> ConnectError:
    return ConnectError(f"cannot resolve {address.host}: {reason}")
