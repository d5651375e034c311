"""Which address to try when: staggered attempts within one deadline, without sockets or clocks.

As RFC 8305 has it: the families take turns, an attempt that does not answer is joined by the
next one after 250 ms, one that fails is followed at once, and the first to stand wins. So an
address that swallows packets costs a quarter of a second, not the whole timeout. Where that is
too short for so many steps of 250 ms, they are shorter: each address gets its part.

A Unix socket whose backlog is full refuses at once, with EAGAIN, where TCP would wait for room:
there the same address is tried again, more and more slowly.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any

STAGGER_S = 0.25
# RFC 8305, section 5: never less.
_SHORTEST_STAGGER_S = 0.01
_FIRST_RETRY_S = 0.005
_LONGEST_RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address as `socket.socket` and `connect` want it; `tries` were in vain."""

    family: int
    kind: int
    protocol: int
    where: Any
    tries: int = 0


class ConnectPlan:
    """What to try next. Times are those of the caller's monotonic clock."""

    def __init__(self, candidates: Sequence[Candidate], *, now_s: float, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self._next_s = now_s
        self._untried = deque(interleave(candidates))
        part_s = (deadline_s - now_s) / max(len(candidates), 1)
        self._stagger_s = max(min(STAGGER_S, part_s), _SHORTEST_STAGGER_S)
        self._retries: deque[tuple[float, Candidate]] = deque()

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing is left to start."""
        return not self._untried and not self._retries

    @property
    def wake_s(self) -> float:
        """When to look again, if nothing happens before: an attempt or the deadline is due."""
        due_s = [self.deadline_s]
        if self._untried:
            due_s.append(self._next_s)
        if self._retries:
            due_s.append(self._retries[0][0])
        return min(due_s)

    def take(self, now_s: float) -> Candidate | None:
        """Return what to try now, None if nothing is due."""
        if now_s >= self.deadline_s:
            return None
        if self._retries and now_s >= self._retries[0][0]:
            return self._retries.popleft()[1]
        if self._untried and now_s >= self._next_s:
            self._next_s = now_s + self._stagger_s
            return self._untried.popleft()
        return None

    def failed(self, candidate: Candidate, now_s: float, *, is_busy: bool) -> None:
        """Take note that an attempt failed, `is_busy` if it may do better in a moment."""
        # Whatever the reason, no other address has to wait for this one any more.
        self._next_s = now_s
        if is_busy:
            wait_s = min(_FIRST_RETRY_S * 2**candidate.tries, _LONGEST_RETRY_S)
            again = replace(candidate, tries=candidate.tries + 1)
            self._retries.append((now_s + wait_s, again))


def interleave(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates with their families taking turns, the first one's first."""
    families: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        families.setdefault(candidate.family, []).append(candidate)
    turns = chain.from_iterable(zip_longest(*families.values()))
    return [candidate for candidate in turns if candidate is not None]
