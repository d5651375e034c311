"""What a bad network does to the bytes of one direction, with toxiproxy's names and no sockets.

A `Way` holds the bytes that are under way and says, given the time, what is to be done next. Its
toxics may be others each time that it is asked.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from random import Random

# As much as toxiproxy sends at once on a slow line.
_BANDWIDTH_STEP_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Toxic:
    """A fault, which acts on a connection with the probability `toxicity`."""

    toxicity: float = 1.0


@dataclass(frozen=True)
class Latency(Toxic):
    """Each byte comes `latency_s` later, give or take up to `jitter_s`; their order stays."""

    latency_s: float
    jitter_s: float = 0.0


@dataclass(frozen=True)
class Bandwidth(Toxic):
    """No more than so many bytes pass in a second; with 0 they wait, as TCP sends them again."""

    bytes_per_s: float


@dataclass(frozen=True)
class SlowClose(Toxic):
    """The end of the stream comes `delay_s` later."""

    delay_s: float


@dataclass(frozen=True)
class Timeout(Toxic):
    """A black hole: bytes vanish; the connection is closed after `timeout_s`, None never.

    A connection that lost bytes is closed as soon as this acts no more.
    """

    timeout_s: float | None = None


@dataclass(frozen=True)
class ResetPeer(Toxic):
    """Both peers get an RST, `timeout_s` after this began to act."""

    timeout_s: float = 0.0


@dataclass(frozen=True)
class Slicer(Toxic):
    """Bytes leave in pieces of `average_bytes`, give or take up to `variation_bytes`."""

    average_bytes: int
    variation_bytes: int = 0
    delay_s: float = 0.0


@dataclass(frozen=True)
class LimitData(Toxic):
    """The connection is closed once `most_bytes` have passed."""

    most_bytes: int


class Do(Enum):
    """What is next: `END` passes on the end of the stream; `CLOSE` and `RESET` end both ways."""

    WAIT = 1
    SEND = 2
    END = 3
    CLOSE = 4
    RESET = 5


@dataclass(frozen=True)
class Step:
    """`data` is what to send, `until_s` when to ask again if nothing happens before."""

    do: Do
    data: bytes = b""
    until_s: float = inf


@dataclass
class _Piece:
    came_s: float
    data: bytes
    jitter: float


@dataclass
class Way:
    """One direction of one connection. Times are those of the caller's monotonic clock."""

    random: Random
    waiting_bytes: int = 0
    _pieces: deque[_Piece] = field(default_factory=deque)
    # When the stream ended, and how: `Do.END` or `Do.RESET`.
    _ended: tuple[float, Do] | None = None
    # When the line is free for more bytes.
    _free_s: float = 0.0
    _sent_bytes: int = 0
    _has_lost: bool = False
    # The toxics that were drawn for this connection: since when they act, None if they do not.
    _drawn: dict[Toxic, float | None] = field(default_factory=dict)

    def receive(self, data: bytes, now_s: float) -> None:
        self._pieces.append(_Piece(now_s, data, self.random.uniform(-1, 1)))
        self.waiting_bytes += len(data)

    def receive_end(self, now_s: float, *, is_reset: bool = False) -> None:
        self._ended = now_s, Do.RESET if is_reset else Do.END

    def next(self, toxics: Sequence[Toxic], now_s: float) -> Step:
        """Return what to do now."""
        acting = self._draw(toxics, now_s)
        until_s = inf
        for toxic, since_s in acting.items():
            if isinstance(toxic, ResetPeer) or (
                isinstance(toxic, Timeout) and toxic.timeout_s is not None
            ):
                due_s = since_s + (toxic.timeout_s or 0)
                if now_s >= due_s:
                    return Step(Do.RESET if isinstance(toxic, ResetPeer) else Do.CLOSE)
                until_s = min(until_s, due_s)
            elif isinstance(toxic, LimitData) and self._sent_bytes >= toxic.most_bytes:
                return Step(Do.CLOSE)
        if any(isinstance(toxic, Timeout) for toxic in acting):
            self._lose()
            return Step(Do.WAIT, until_s=until_s)
        if self._has_lost:
            return Step(Do.CLOSE)
        if any(isinstance(toxic, Bandwidth) and toxic.bytes_per_s == 0 for toxic in acting):
            return Step(Do.WAIT, until_s=until_s)
        if not self._pieces:
            return self._end(list(acting), now_s, until_s)
        due_s = max(self._free_s, self._pieces[0].came_s + self._latency_s(list(acting)))
        if now_s < due_s:
            return Step(Do.WAIT, until_s=min(until_s, due_s))
        return self._send(list(acting), now_s, until_s)

    def _draw(self, toxics: Sequence[Toxic], now_s: float) -> dict[Toxic, float]:
        """Return those that act on this connection, and since when."""
        self._drawn = {
            toxic: self._drawn[toxic]
            if toxic in self._drawn
            else (now_s if toxic.toxicity >= 1 or self.random.random() < toxic.toxicity else None)
            for toxic in toxics
        }
        return {toxic: since_s for toxic, since_s in self._drawn.items() if since_s is not None}

    def _lose(self) -> None:
        self._has_lost = self._has_lost or bool(self._pieces)
        self._pieces.clear()
        self.waiting_bytes = 0

    def _latency_s(self, acting: Sequence[Toxic]) -> float:
        jitter = self._pieces[0].jitter if self._pieces else 0.0
        return sum(t.latency_s + t.jitter_s * jitter for t in acting if isinstance(t, Latency))

    def _end(self, acting: Sequence[Toxic], now_s: float, until_s: float) -> Step:
        if self._ended is None:
            return Step(Do.WAIT, until_s=until_s)
        closing_s = sum(toxic.delay_s for toxic in acting if isinstance(toxic, SlowClose))
        due_s = max(self._ended[0] + self._latency_s(acting), self._free_s) + closing_s
        if now_s < due_s:
            return Step(Do.WAIT, until_s=min(until_s, due_s))
        return Step(self._ended[1])

    def _send(self, acting: Sequence[Toxic], now_s: float, until_s: float) -> Step:
        piece = self._pieces[0]
        size, free_s = len(piece.data), now_s
        for toxic in acting:
            if isinstance(toxic, Slicer):
                spread = toxic.variation_bytes
                drawn = toxic.average_bytes + self.random.randint(-spread, spread)
                size, free_s = min(size, max(drawn, 1)), free_s + toxic.delay_s
            elif isinstance(toxic, LimitData):
                size = min(size, toxic.most_bytes - self._sent_bytes)
        rates = [toxic.bytes_per_s for toxic in acting if isinstance(toxic, Bandwidth)]
        if rates:
            size = min(size, max(int(min(rates) * _BANDWIDTH_STEP_S), 1))
            free_s += size / min(rates)
        self._free_s = free_s
        data, piece.data = piece.data[:size], piece.data[size:]
        if not piece.data:
            self._pieces.popleft()
        self.waiting_bytes -= size
        self._sent_bytes += size
        return Step(Do.SEND, data)
