"""What servers that take turns did, block by block (no I/O).

A block of a comparison has three servers: the baseline, the candidate, and the baseline again; that
of a benchmark may have more. Within it they take short turns under the same generator; a round has
one turn of each, in shuffled order.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from capnp_rig.loadtest.stats.disturbance import (
    GENERATOR,
    SERVER,
    OtherProcess,
    ProcessWindow,
    Surroundings,
)
from capnp_rig.loadtest.stats.failures import FailedCall
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.process_use import KernelCounts

_TURN, _TIMES, _OTHER = "turn", "times", "other"
_CLOCKS = ("response", "service", "lateness")


@dataclass(frozen=True, slots=True)
class Turn:
    """One server's turn in a round of a block: `calls` answered within `seconds`.

    `order` is its place in the round. `busy` is the share for which the generator worked. CPU time,
    and how long each side waited for a CPU, are None where its processes are not known.
    """

    block: int
    round: int
    order: int
    role: str
    calls: int
    seconds: float
    busy: float
    generator_wait_s: float | None
    server_cpu_s: float | None
    server_wait_s: float | None
    throttles: int | None = None
    throttled_s: float | None = None


@dataclass(frozen=True, slots=True)
class ServerTimes:
    """The times of all calls that one server of a block answered in its turns, and its failures.

    In an open loop `scheduled` calls were due. The failures of the turn before the first round, for
    new connections and cold caches, stand apart. `examples` are the first calls that failed.
    """

    block: int
    role: str
    response: Histogram
    service: Histogram
    lateness: Histogram = field(default_factory=Histogram)
    scheduled: int | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    warmup_failures: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[FailedCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Blocks:
    """All that was measured, of blocks that are over.

    `others` are the busiest processes of the machine that had nothing to do with it.
    """

    turns: tuple[Turn, ...] = ()
    times: tuple[ServerTimes, ...] = ()
    is_open_loop: bool = False
    others: tuple[OtherProcess, ...] = ()

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return len({each.block for each in self.times})

    @property
    def failures(self) -> Counter[tuple[str, str]]:
        """How many calls failed or have no answer, those before the first round too.

        They go by the role of the server and the kind of the failure.
        """
        failures: Counter[tuple[str, str]] = Counter()
        for each in self.times:
            for kind, count in (*each.failures.items(), *each.warmup_failures.items()):
                failures[each.role, kind] += count
        return failures

    @property
    def examples(self) -> dict[str, FailedCall]:
        """The first call that failed of each role, where any did."""
        first = reversed([(each.role, each.examples) for each in self.times if each.examples])
        return {role: examples[0] for role, examples in first}

    @property
    def surroundings(self) -> Surroundings:
        """What the machine did to the servers and the generator, all turns together."""
        servers = (
            self._window(SERVER, role, [turn for turn in self.turns if turn.role == role])
            for role in dict.fromkeys(turn.role for turn in self.turns)
        )
        generator = self._window(GENERATOR, "engine", self.turns)
        return Surroundings((*servers, generator), self.others)

    @staticmethod
    def _window(role: str, name: str, turns: Sequence[Turn]) -> ProcessWindow:
        is_server = role == SERVER
        waits = [turn.server_wait_s if is_server else turn.generator_wait_s for turn in turns]
        kernel = KernelCounts.total(
            KernelCounts(wait_s=wait_s, throttles=turn.throttles, throttled_s=turn.throttled_s)
            for wait_s, turn in zip(waits, turns, strict=True)
        )
        cpu_s = sum(
            (turn.server_cpu_s or 0.0) if is_server else turn.busy * turn.seconds for turn in turns
        )
        return ProcessWindow(role, name, 0, sum(turn.seconds for turn in turns), cpu_s, kernel)

    def of(self, *roles: str) -> "Blocks":
        """Return what servers of these roles did."""
        turns = tuple(turn for turn in self.turns if turn.role in roles)
        times = tuple(each for each in self.times if each.role in roles)
        return Blocks(turns, times, self.is_open_loop, self.others)

    def plus(self, other: "Blocks") -> "Blocks":
        """Return these blocks and those of `other`, which are later."""
        turns, times = self.turns + other.turns, self.times + other.times
        return Blocks(turns, times, self.is_open_loop, other.others)

    def samples(self) -> Iterator[dict[str, Any]]:
        """Yield plain values, of which `of_samples` makes the same again."""
        for turn in self.turns:
            yield {"kind": _TURN, **asdict(turn)}
        for each in self.times:
            clocks = {name: getattr(each, name).to_json() for name in _CLOCKS}
            place = {"block": each.block, "role": each.role, "scheduled": each.scheduled}
            failed = {
                "failures": each.failures,
                "warmup_failures": each.warmup_failures,
                "examples": [example.to_json() for example in each.examples],
            }
            yield {"kind": _TIMES, **place, **failed, **clocks}
        for other in self.others:
            yield {"kind": _OTHER, **asdict(other)}

    @classmethod
    def of_samples(cls, samples: Iterable[Mapping[str, Any]], *, is_open_loop: bool) -> Self:
        """Return what `samples` yielded.

        Raises:
            ValueError, LookupError, TypeError: A sample is damaged.
        """
        turns, times, others = [], [], []
        for sample in samples:
            values = {name: value for name, value in sample.items() if name != "kind"}
            if sample["kind"] == _TURN:
                turns.append(Turn(**values))
            elif sample["kind"] == _OTHER:
                others.append(OtherProcess(**values))
            else:
                clocks = {clock: Histogram.from_json(values[clock]) for clock in _CLOCKS}
                examples = map(FailedCall.from_json, values.get("examples", ()))
                times.append(ServerTimes(**values | clocks | {"examples": tuple(examples)}))
        return cls(tuple(turns), tuple(times), is_open_loop, tuple(others))
