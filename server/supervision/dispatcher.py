"""Accepts connections and hands them to the workers.

The listener is read only while some worker can take a connection, so the kernel's backlog is the
queue; what was accepted and not handed over waits in `_pending`. A stack whose workers listen
by themselves has none of this: the listener only holds the port.

A connection over the limit is refused. A peer whose calls killed workers is refused for a while
(`quarantine`).
"""

import asyncio
import errno
import socket
from collections import Counter, deque

from capnp_rig.rigcli import os_error_text
from capnp_rig.server.config import ServerConfig
from capnp_rig.server.logs.log import Log, open_log
from capnp_rig.server.supervision.listener import Listener, has_bytes, peer_of, uid_of
from capnp_rig.server.supervision.notify import ServiceManager
from capnp_rig.server.supervision.peer_limits import PeerLimits
from capnp_rig.server.supervision.quarantine import DEATHS, QUARANTINE_S, Quarantine, is_suspect
from capnp_rig.server.supervision.refused_connections import RefusedConnections, overload_reply
from capnp_rig.server.supervision.slots import DISPATCH
from capnp_rig.server.supervision.worker_process import Connection
from capnp_rig.server.supervision.workers import EndedWorker, Workers
from capnp_rig.wire.rpc.messages import ExceptionType

_ACCEPTS_PER_TURN = 64
_FD_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_FD_SHORTAGE_PAUSE_S = 0.1


class Dispatcher:
    """Owns the listener and the connections that no worker has yet."""

    def __init__(
        self,
        config: ServerConfig,
        listener: Listener,
        workers: Workers,
        log: Log,
        manager: ServiceManager,
        *,
        max_connections: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._listener = listener
        self._workers = workers
        self._log = log
        self._manager = manager
        self._max_connections = max_connections
        self._pending: deque[Connection] = deque()
        self._quarantine = Quarantine()
        self._peer_limits = PeerLimits(config.limits)
        self._refused = RefusedConnections(self._loop)
        self._last_worker = -1
        self.accepted = 0
        # Connections that were refused, by limit.
        self.refusals: Counter[str] = Counter()
        self._listening = False
        self._accepting = False
        self._short_of_fds = False
        self._stopped = False

    def reconfigure(self, config: ServerConfig, max_connections: int) -> None:
        """Go on with another configuration, of the same address and stack."""
        # What peers have used of a rate that stays is not forgotten.
        if config.limits != self._config.limits:
            self._peer_limits = PeerLimits(config.limits)
        self._config, self._max_connections = config, max_connections

    def start_when_ready(self) -> None:
        """Begin to accept as soon as every worker is ready, and say so."""
        if self._listening or self._stopped:
            return
        if all(slot.ready for slot in self._workers.slots()):
            self._listening = True
            event = f"Listening on {self._listener.address} with {len(self._workers)} workers..."
            # At every level: it is how a program that starts us learns of the port.
            open_log("info", self._config.log_format).info(
                event,
                address=str(self._listener.address),
                workers=len(self._workers),
            )
            self._manager.ready(event)

    @property
    def is_open(self) -> bool:
        """Whether connections are taken."""
        return self._listening and not self._stopped

    def stop(self) -> None:
        """Stop listening, and close what no worker has yet; may be called again."""
        self._stopped = True
        self.dispatch()
        self._listener.close()
        self._drop_pending()

    def close(self) -> None:
        """Close the connections that were refused and still linger."""
        self._refused.close()

    def dispatch(self) -> None:
        """Hand over what waits, and read the listener only if a worker can take more."""
        while self._pending:
            if not self._is_refused(self._pending[0]) and not self._hand_over(self._pending[0]):
                break
            self._pending.popleft()
        self._end_silent()
        self._accept_when(
            self._listening
            and not self._stopped
            and not self._config.workers_listen
            and not self._pending
            and not self._short_of_fds
            and any(slot.open for slot in self._workers.slots())
        )

    def after_end(self, ended: EndedWorker) -> None:
        """Take back what an ended worker did not take, and blame the peer that killed it."""
        self._pending.extendleft(reversed(ended.orphans))
        if self._stopped:
            self._drop_pending()
            return
        worker, culprit = ended.worker, ended.culprit
        if (
            worker.ready
            and culprit is not None
            and is_suspect(culprit.reads, was_killed=worker.was_killed)
        ):
            self._blame(culprit.origin)

    def _drop_pending(self) -> None:
        while self._pending:
            self._pending.popleft().sock.close()

    # --- handing over --------------------------------------------------------------------

    def _hand_over(self, connection: Connection) -> bool:
        choose = DISPATCH[self._config.dispatch]
        while (index := choose(self._workers.slots(), self._last_worker)) is not None:
            worker = self._workers[index]
            assert worker is not None  # an absent worker has no open slot
            self._last_worker = index
            self._log.debug(
                f"Dispatching new connection to worker {index}",
                kind="Dispatching new connections",
                worker=index,
                peer=connection.peer,
            )
            if worker.hand(connection):
                return True
            # Its slot is blocked now; the kernel says when there is room.
            self._workers.when_writable(worker, self.dispatch)
        return False

    # --- accepting -----------------------------------------------------------------------

    def _accept_when(self, wanted: bool) -> None:
        if wanted == self._accepting:
            return
        self._accepting = wanted
        if wanted:
            self._loop.add_reader(self._listener.sock.fileno(), self._on_connections)
        else:
            self._loop.remove_reader(self._listener.sock.fileno())

    def _on_connections(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if not self._accepting or not self._accept():
                return

    def _accept(self) -> bool:
        """Accept one connection; return False when there is none, or no descriptor for it."""
        try:
            sock, name = self._listener.sock.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _FD_SHORTAGE:
                self._pause_for_fds(error)
                return False
            # That connection broke before it was accepted; the next may be fine.
            return True
        if sum(worker.load for worker in self._workers.alive()) >= self._max_connections:
            self._refuse(sock)
            return True
        label, origin = peer_of(sock, name)
        if self._is_stranger(sock):
            self._refuse_stranger(sock, origin)
            return True
        reason = self._peer_limits.refusal(origin, self._open_of(origin), self._loop.time())
        if reason is not None:
            self.refusals["peer"] += 1
            words = self._last_words(f"{reason}: try again later", ExceptionType.OVERLOADED)
            self._refused.end(sock, words)
            kind = "Refusing connections of peers over their limits"
            self._log.warning(f"Refusing a connection: {reason}", kind=kind, origin=origin)
            return True
        self.accepted += 1
        self._pending.append(Connection(self.accepted, sock, label, origin, self._loop.time()))
        self.dispatch()
        return True

    def _open_of(self, origin: str) -> int:
        if not self._peer_limits.counts:
            return 0
        here = sum(connection.origin == origin for connection in self._pending)
        return here + sum(worker.load_of(origin) for worker in self._workers.alive())

    def _end_silent(self) -> None:
        """End what waits for a worker, and says nothing, at the limit on the first message."""
        limit_s = self._config.limits.first_frame_timeout_s
        while self._pending and limit_s:
            first = self._pending[0]
            if self._loop.time() < first.accepted_s + limit_s or has_bytes(first.sock):
                return
            self._pending.popleft().sock.close()
            self._warn("Closing connections that said nothing while they waited for a worker")

    def _pause_for_fds(self, error: OSError) -> None:
        # The connection stays in the backlog, so the listener stays readable: do not spin.
        self._warn(f"Cannot accept connections: {os_error_text(error)}")
        self._short_of_fds = True
        self.dispatch()
        self._loop.call_later(_FD_SHORTAGE_PAUSE_S, self._resume_after_fds)

    def _resume_after_fds(self) -> None:
        self._short_of_fds = False
        self.dispatch()

    # --- refusing ------------------------------------------------------------------------

    def _refuse(self, sock: socket.socket) -> None:
        self.refusals["max-connections"] += 1
        reason = f"{self._max_connections} connections are open: try again later"
        self._refused.end(sock, self._last_words(reason, ExceptionType.OVERLOADED))
        self._warn(f"Refusing connections: {self._max_connections} are open")

    def _is_stranger(self, sock: socket.socket) -> bool:
        allowed = self._config.unix.allow_uid
        return bool(allowed) and sock.family == socket.AF_UNIX and uid_of(sock) not in allowed

    def _refuse_stranger(self, sock: socket.socket, origin: str) -> None:
        self.refusals["allow-uid"] += 1
        words = self._last_words(f"{origin} is not served here", ExceptionType.FAILED)
        self._refused.end(sock, words)
        self._log.warning(
            f"Refusing a connection: {origin} is none of --allow-uid",
            kind="Refusing connections of users that are not allowed",
            origin=origin,
        )

    def _last_words(self, reason: str, type_: ExceptionType) -> bytes:
        if self._config.tls.tls_cert is None:
            return overload_reply(self._config.stack, reason, type_)
        # Nothing can be said before the handshake, which is not ours to make: only that it ends.
        from capnp_rig.server.connections.tls import REFUSAL

        return REFUSAL

    def _is_refused(self, connection: Connection) -> bool:
        rest_s = self._quarantine.rest_s(connection.origin, self._loop.time())
        if rest_s is None:
            return False
        reason = (
            f"calls from {connection.origin} killed {DEATHS} workers: it is refused for "
            f"{rest_s:.0f} s"
        )
        self.refusals["quarantine"] += 1
        # Not overloaded, which invites the peer to try again.
        self._refused.end(connection.sock, self._last_words(reason, ExceptionType.FAILED))
        self._log.warning(
            f"Refusing a connection from {connection.origin}",
            kind="Refusing connections from peers in quarantine",
            origin=connection.origin,
        )
        return True

    def _blame(self, origin: str) -> None:
        now_s = self._loop.time()
        was_refused = self._quarantine.rest_s(origin, now_s) is not None
        if self._quarantine.blame(origin, now_s):
            self._log.error(
                f"Refusing {origin} for {QUARANTINE_S:g} s: {DEATHS} workers died in its calls",
                origin=origin,
            )
        if was_refused:
            # It goes on over connections that it had before.
            for worker in self._workers.alive():
                worker.drop(origin)

    def _warn(self, event: str) -> None:
        """Log a warning that peers can provoke."""
        self._log.warning(event, kind=event)
