"""The metrics of a load run: rate, percentiles and server CPU per call, by its units (no I/O).

Units are the repeats or, where these are too few, the seconds. The odd units against the even
ones are the run against itself (A/A).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from capnp_rig.loadtest.results.load_samples import LoadRun
from capnp_rig.loadtest.results.load_series import (
    Second,
    UsageInterval,
    seconds_of,
    usage_intervals,
    used_between,
)
from capnp_rig.loadtest.stats.histogram import Histogram, merge, us_of
from capnp_rig.loadtest.stats.metric import Metric, floor_of, metric_of_values, tail_problems
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.resampling import (
    LEAST_SECONDS,
    Blocks,
    Resampled,
    block_length,
    draw_blocks,
    resample_percentiles,
    resample_sums,
)
from capnp_rig.loadtest.stats.run_summary import LIMITS, PERCENTILES, Summary
from capnp_rig.loadtest.stats.tally import WARMUP

RATE, SERVER_CPU = "calls/s", "server CPU per call"
# Longer runs are cut into so many units, of several seconds each: more would take minutes.
_MOST_UNITS = 120
# The sampler may miss the edges of the window.
_LEAST_WATCHED = 0.8


def metrics_by_repeat(load: LoadRun, *, seed: int) -> Iterator[Metric]:
    """Yield each metric as the median of what it is in the repeats."""
    repeats = [load.summary([number]) for number in load.repeats]
    whole = load.summary()
    yield metric_of_values(RATE, "calls/s", [each.calls_per_s for each in repeats], seed)
    for clock in _clocks(load):
        for percent in PERCENTILES:
            values = [us_of(getattr(each, clock).percentile_ns(percent)) for each in repeats]
            problems = tail_problems(getattr(whole, clock), percent)
            yield metric_of_values(f"{clock}.p{percent:g}", "µs", values, seed, problems)
    cpu_us = [each.server_cpu_us_per_call for each in repeats]
    yield metric_of_values(SERVER_CPU, "µs", cpu_us, seed, _cpu_problems(whole))


def _clocks(load: LoadRun) -> tuple[str, ...]:
    return ("response", "service") if load.is_open_loop else ("service",)


def _cpu_problems(whole: Summary) -> tuple[Reason, ...]:
    if whole.server_cpu_s is None:
        return (Reason.of(ReasonCode.CPU_NOT_KNOWN),)
    least_s = LIMITS["least_server_cpu_s"]
    is_little = whole.server_cpu_s < least_s
    return (Reason.of(ReasonCode.LITTLE_CPU, least_s=least_s),) if is_little else ()


@dataclass(frozen=True, slots=True)
class _Piece:
    """A unit of a run by seconds: what came within `length_s` of it.

    `watched_s` of them the server's processes were sampled, and used `cpu_s`.
    """

    length_s: float
    calls: int
    clocks: Mapping[str, Histogram]
    cpu_s: float
    watched_s: float


def _pieces(load: LoadRun) -> list[list[_Piece]]:
    """Return the units of each repeat: full seconds, or several where they are many.

    What is left at the end, and what was answered later, belongs to the last one.
    """
    full = {number: max(1, int(repeat.seconds)) for number, repeat in load.repeats.items()}
    each = -(-sum(full.values()) // _MOST_UNITS)
    return [_pieces_of(load, number, max(1, full[number] // each), each) for number in full]


def _pieces_of(load: LoadRun, repeat: int, count: int, each: int) -> list[_Piece]:
    by_piece: list[list[Second]] = [[] for _ in range(count)]
    for second in seconds_of(load, repeat):
        if second.second != WARMUP:
            by_piece[min(second.second // each, count - 1)].append(second)
    intervals = [
        of_process
        for (role, _, _), of_process in usage_intervals(load, repeat).items()
        if role == "server"
    ]
    pieces = []
    for number, seconds in enumerate(by_piece):
        from_s, length_s = number * each, sum(second.length_s for second in seconds)
        cpu_s, watched_s = _server_use(intervals, from_s, from_s + length_s)
        clocks = {
            clock: merge(getattr(second.clocks, clock) for second in seconds)
            for clock in ("response", "service")
        }
        calls = sum(second.window.answered for second in seconds)
        pieces.append(_Piece(length_s, calls, clocks, cpu_s, watched_s))
    return pieces


def _server_use(
    processes: Iterable[Iterable[UsageInterval]], from_s: float, until_s: float
) -> tuple[float, float]:
    used = [used_between(intervals, from_s, until_s) for intervals in processes]
    return sum(cpu_s for cpu_s, _ in used), max((seen_s for _, seen_s in used), default=0.0)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Pieces, and the blocks of them that the resamples have."""

    pieces: Sequence[_Piece]
    blocks: Blocks

    def rate(self) -> Resampled | None:
        return resample_sums(
            lambda calls, length_s: calls / length_s if length_s else 0.0,
            self.blocks,
            [piece.calls for piece in self.pieces],
            [piece.length_s for piece in self.pieces],
        )

    def percentiles(self, clock: str) -> dict[float, Resampled] | None:
        times = [piece.clocks[clock] for piece in self.pieces]
        return resample_percentiles(times, merge(times), PERCENTILES, self.blocks)

    def cpu(self) -> Resampled | None:
        pieces = self.pieces
        if not all(piece.watched_s for piece in pieces):
            return None
        return resample_sums(
            _cpu_us_per_call,
            self.blocks,
            [piece.cpu_s for piece in pieces],
            [piece.watched_s for piece in pieces],
            [piece.calls for piece in pieces],
            [piece.length_s for piece in pieces],
        )


def _cpu_us_per_call(cpu_s: float, watched_s: float, calls: float, length_s: float) -> float:
    return cpu_s / watched_s * length_s / calls * 1e6 if calls else 0.0


def metrics_by_second(load: LoadRun, *, seed: int) -> Iterator[Metric]:
    """Yield each metric of the whole run, all repeats together."""
    whole, stretches = load.summary(), _pieces(load)
    pieces = [piece for stretch in stretches for piece in stretch]
    lengths = [len(stretch) for stretch in stretches]
    length = block_length(lengths)
    if length is None:
        few = Reason.of(ReasonCode.FEW_SECONDS, count=len(pieces), least=LEAST_SECONDS)
        for metric in _metrics(load, whole, len(pieces), [None, None, None]):
            yield Metric(metric.name, metric.unit, metric.value, metric.n, problems=(few,))
        return
    drawn = [_Drawn(pieces, draw_blocks(lengths, length, seed=seed))]
    for first in (1, 0):
        # Odd and even over the whole run: a repeat may have one unit only.
        numbers = range(first, len(pieces), 2)
        halves = [sum(1 for at in numbers if low <= at < high) for low, high in _ranges(lengths)]
        halves = [half for half in halves if half]
        short = min(-(-length // 2), *halves)
        blocks = draw_blocks(halves, short, seed=-seed - first)
        drawn.append(_Drawn(pieces[first::2], blocks))
    yield from _metrics(load, whole, len(pieces), drawn)


def _ranges(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = 0
    for length in lengths:
        yield first, first + length
        first += length


def _metrics(
    load: LoadRun, whole: Summary, n: int, drawn: Sequence[_Drawn | None]
) -> Iterator[Metric]:
    """Yield the metrics of a run from all of its pieces, the odd and the even ones."""
    rates = [None if each is None else each.rate() for each in drawn]
    yield _metric(RATE, "calls/s", whole.calls_per_s, n, rates)
    for clock in _clocks(load):
        times: Histogram = getattr(whole, clock)
        resampled = [None if each is None else each.percentiles(clock) for each in drawn]
        for percent in PERCENTILES:
            each_ns = [None if each is None else each[percent] for each in resampled]
            value, problems = us_of(times.percentile_ns(percent)), tail_problems(times, percent)
            yield _metric(f"{clock}.p{percent:g}", "µs", value, n, each_ns, problems)
    cpu = [None if each is None else each.cpu() for each in drawn]
    problems = _cpu_problems(whole) or _watch_problems(drawn[0])
    yield _metric(SERVER_CPU, "µs", whole.server_cpu_us_per_call, n, cpu, problems)


def _watch_problems(drawn: _Drawn | None) -> tuple[Reason, ...]:
    if drawn is None:
        return ()
    watched_s = sum(piece.watched_s for piece in drawn.pieces)
    seconds = sum(piece.length_s for piece in drawn.pieces)
    is_watched = watched_s >= _LEAST_WATCHED * seconds
    return () if is_watched else (Reason.of(ReasonCode.CPU_NOT_SAMPLED),)


def _metric(
    name: str,
    unit: str,
    value: float | None,
    n: int,
    drawn: Sequence[Resampled | None],
    problems: tuple[Reason, ...] = (),
) -> Metric:
    whole, odd, even = drawn
    if whole is None or odd is None or even is None or not value or not whole.value:
        problems = problems or (Reason.of(ReasonCode.NOT_MEASURED),)
        return Metric(name, unit, value, n, problems=problems)
    # The value is the exact one of the whole window, at whose edges no sample was taken.
    scale = value / whole.value
    scaled = Resampled(value, [scale * draw for draw in whole.draws])
    return Metric(name, unit, value, n, scaled, floor_of(odd, even), problems)
