"""What a method may ask about the call that it runs in: `call_context()`.

The context of an async call is in a context variable of its task, so that tasks and threads
(`asyncio.to_thread`) which the method starts have it too. A plain method runs within the read
that brought its call, and most never ask, so nothing is made for it beforehand: the engine notes in
`INLINE` which connection is being served, once per read, and the first question makes the context.
It lasts until the method returns.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from threading import get_ident
from typing import Protocol

from capnp_rig.objects.call_peer import CallPeer


class CallSite(Protocol):
    """The connection that a call came by."""

    @property
    def peer(self) -> CallPeer:
        """The other end."""

    @property
    def is_left(self) -> bool:
        """Whether the other end has left."""

    @property
    def drain_remaining_s(self) -> float | None:
        """How long calls may still take, in s; None while the server does not drain."""

    def next_call_id(self) -> str:
        """Return a name for a call that no other has."""

    def write(
        self, level: str, context: "CallContext", text: str, fields: dict[str, object]
    ) -> None:
        """Log a line about a call."""


class CallLog:
    """The server's own log, for lines about one call.

    Each line names the worker, the peer, the call and its trace. As all lines that peers can bring
    about, they are escaped and cut, and of too many the rest is counted. With `--log-format json`
    the keyword arguments are fields; `traceback` may be an exception, which is shown in both.
    """

    __slots__ = ("_context",)

    def __init__(self, context: "CallContext") -> None:
        self._context = context

    def debug(self, text: str, /, **fields: object) -> None:
        """Log what only someone looking for a fault wants to see."""
        self._context.write("debug", text, fields)

    def info(self, text: str, /, **fields: object) -> None:
        """Log what is worth a line in normal operation."""
        self._context.write("info", text, fields)

    def warning(self, text: str, /, **fields: object) -> None:
        """Log what an operator should know."""
        self._context.write("warning", text, fields)

    def error(self, text: str, /, **fields: object) -> None:
        """Log what failed."""
        self._context.write("error", text, fields)


class CallContext:
    """One call of a method, as `call_context()` returns it.

    It stays valid after the call, for whoever keeps it; from any thread.
    """

    __slots__ = ("__weakref__", "_call_id", "_is_cancelled", "_site", "trace_id", "trace_note")

    def __init__(self, site: CallSite, trace_note: tuple[str, str] | None = None) -> None:
        """Stand for a call that came by `site`; services get theirs from `call_context`.

        `trace_note` is the trace that the caller announced: traceparent and tracestate.
        """
        self.trace_note = trace_note
        self._site = site
        self._call_id: str | None = None
        self._is_cancelled = False
        self.trace_id: str | None = None
        """The call's OpenTelemetry trace in hex digits; None if it has none."""

    @property
    def peer(self) -> CallPeer:
        """Who calls."""
        return self._site.peer

    @property
    def call_id(self) -> str:
        """The call's name: worker, connection and number, such as ``0-12-3``.

        No other call that this server is asked about has it. A caller whose call fails with an
        internal error is told it.
        """
        if self._call_id is None:
            self._call_id = self._site.next_call_id()
        return self._call_id

    @property
    def log(self) -> CallLog:
        """The server's log, with the call's id in each line."""
        return CallLog(self)

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer: the call was cancelled, or the caller has left.

        An async method is cancelled then, too. A plain one, and a thread, can only ask. While a
        plain method runs, the server reads nothing, and learns of the end of a connection only.
        """
        return self._is_cancelled or self._site.is_left

    @property
    def drain_remaining_s(self) -> float | None:
        """How long the call may still take in a drain, in s, 0 at least; None without a drain."""
        return self._site.drain_remaining_s

    def cancel(self) -> None:
        """Take note that nobody waits for the answer: for the server, which cancels the method."""
        self._is_cancelled = True

    def write(self, level: str, text: str, fields: dict[str, object]) -> None:
        """Log a line, as the methods of `log` do."""
        self._site.write(level, self, text, fields)


class ServedConnection(Protocol):
    """A connection whose calls are served on the spot."""

    def call_context(self) -> CallContext:
        """Return a new context for the call that is served now."""

    def note_trace(self, note: tuple[str, str]) -> None:
        """Take note of the trace of the next call that comes: traceparent and tracestate."""


class Inline:
    """The call that a plain method runs in: where it came by, and its context if one was made."""

    __slots__ = ("_token", "connection", "context", "thread")

    def __init__(self) -> None:
        # Whose calls are served now, in which thread.
        self.connection: ServedConnection | None = None
        self.thread = 0
        self.context: CallContext | None = None
        self._token: Token[CallContext | None] | None = None

    def ask(self) -> CallContext | None:
        """Return the context of the call that runs in this thread; None if none does."""
        # Another thread's call is none of this one's.
        if self.connection is None or self.thread != get_ident():
            return None
        if self.context is None:
            self.context = self.connection.call_context()
            # For tasks that the method starts from here on.
            self._token = CURRENT.set(self.context)
        return self.context

    def end(self) -> None:
        """Take note that the method has returned, whose call has a context."""
        token, self._token, self.context = self._token, None, None
        # The method may have asked within a `contextvars.Context` of its own.
        with suppress(ValueError):
            if token is not None:
                CURRENT.reset(token)


# Of a call of an async method, and of what it has started.
CURRENT: ContextVar[CallContext | None] = ContextVar("capnp_rig_call", default=None)
# One for the process: a server's worker has one loop.
INLINE = Inline()


def current_call() -> CallContext | None:
    """Return the context of the call that runs here; None if none does."""
    return INLINE.ask() or CURRENT.get()


def call_context() -> CallContext:
    """Return the context of the call that this method runs in, or that started this task.

    Tasks, and threads of `asyncio.to_thread`, have the context of the async method that started
    them. A plain method hands its own to the tasks that it starts after it has asked for it.

    Raises:
        LookupError: No method of a served object runs here.

    Examples:
        >>> class Accounts:
        ...     def read(self, params):
        ...         context = call_context()
        ...         context.log.info(f"account {params.name} was read by uid {context.peer.uid}")
    """
    context = current_call()
    if context is None:
        raise LookupError(
            "there is no call here: call_context() is for methods that a server runs, and for the "
            "tasks that they start; in tests, run them within simulated_call()"
        )
    return context


@contextmanager
def outside_of_calls() -> Iterator[None]:
    """Run what belongs to no call, wherever it comes in between."""
    connection, INLINE.connection = INLINE.connection, None
    token = CURRENT.set(None)
    try:
        yield
    finally:
        CURRENT.reset(token)
        INLINE.connection = connection
