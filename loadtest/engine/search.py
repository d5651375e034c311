"""``loadtest search``: the highest rate at which a server keeps its objectives."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from capnp_rig.loadtest.engine.early_end import EarlyEnd, kept_steps
from capnp_rig.loadtest.engine.engine_runs import EngineRun
from capnp_rig.loadtest.engine.progress import Progress, ShowProgress
from capnp_rig.loadtest.engine.run import RunConfig, RunError, measure
from capnp_rig.loadtest.engine.server_usage import local_servers
from capnp_rig.loadtest.protocols import load_any_workload
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.results.load_samples import window_samples
from capnp_rig.loadtest.results.writing import Origin, WrittenResult, write_result
from capnp_rig.loadtest.stats.disturbance import disturbances, pooled
from capnp_rig.loadtest.stats.histogram import merge
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.rate_search import LOWER_BOUNDS, Answer, Probe, RateSearch
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode, codes_of, text_of
from capnp_rig.loadtest.stats.run_summary import (
    LIMITS,
    OF_MACHINE,
    Summary,
    checked,
    plain_examples,
    summarize,
    walks_json,
)
from capnp_rig.loadtest.stats.slo import Outcome, Slo, judge, least_calls, service_failed

_CONTRACT = "round trip"
# A process that starts and connects, beside its load.
_OVERHEAD_S = 1.0
_WORDS: Mapping[Outcome, str] = {
    Outcome.HELD: "held",
    Outcome.FAILED: "failed",
    Outcome.GENERATOR: "failed, perhaps for the generator",
    Outcome.DISTURBED: "failed, on a disturbed machine",
}


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """A search for the objectives `slo` from `start_hz` up to `highest_hz`.

    `load` says how each probe is made, its `seconds` among the rest; its `rate_hz` is ignored. With
    `tries_highest` the second probe is at the highest rate, else the rate is doubled.
    """

    load: RunConfig
    slo: Slo
    start_hz: float = 1000.0
    highest_hz: float = 1_000_000.0
    tries_highest: bool = False

    @property
    def lowest_hz(self) -> float:
        """The rate below which a probe has too few calls to prove the objectives."""
        assert self.load.seconds is not None
        # A Poisson schedule may have a few calls less than it has on average.
        return 1.2 * least_calls(self.slo) / self.load.seconds


@dataclass(frozen=True, slots=True)
class Measured:
    """One probe: what was asked, what came of it, and what it saw."""

    probe: Probe
    outcome: Outcome
    run: EngineRun
    summary: Summary


@dataclass(frozen=True, slots=True)
class Point:
    """All probes at one rate together; times in µs, None without a call."""

    rate_hz: float
    calls_per_s: float
    p50: float | None
    p99: float | None
    p999: float | None
    lateness_p99: float | None
    held: int
    probes: int
    reasons: tuple[Reason, ...]

    @property
    def note(self) -> str:
        """The reasons to doubt it in words, empty without any."""
        return text_of(self.reasons)

    def to_json(self) -> dict[str, Any]:
        """Return plain values: ``note`` in words, ``reason_codes`` for programs."""
        plain = asdict(self)
        del plain["reasons"]
        return plain | {
            "note": self.note,
            "reason_codes": [reason.to_json() for reason in self.reasons],
        }


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Where a search was written, its answer, the curve by rate, and why it ended early if so.

    `has_failed` says whether the service failed, as no load explains (`service_failed`).
    """

    written: WrittenResult
    answer: Answer
    curve: tuple[Point, ...]
    early_end: EarlyEnd | None
    has_failed: bool = False


def run(config: SearchConfig, show: ShowProgress) -> SearchResult:
    """Search, write the result, and return it.

    A search that Ctrl-C, SIGTERM or a dying server ends has the probes that were over by then; its
    answer is what they say.

    Raises:
        WorkloadError: What to send is unusable.
        RunError: An engine process failed in the first probe.
        OSError: The result cannot be written.
        KeyboardInterrupt: Somebody stopped it before the first probe was over.
    """
    label = load_any_workload(config.load.stack, config.load.workload).label
    origin = Origin.now(config.load.name)
    search = RateSearch(
        config.start_hz,
        config.highest_hz,
        seed=config.load.seed,
        lowest_hz=config.lowest_hz,
        tries_highest=config.tries_highest,
    )
    done, early_end = kept_steps(_measure(config, search, show), RunError)
    answer, curve = search.answer(), curve_of(done)
    written = write_result(
        "search",
        origin,
        origin.make_folder(config.load.results),
        config=asdict(config) | {"load": config.load.to_json(), "slo": config.slo.text},
        figures=figures(answer, curve, is_over=early_end is None),
        samples=_samples(done),
        workload=label,
        limits=dict(LIMITS),
        checked=checked(config.load.unchecked),
        failed_calls=plain_examples(each.summary for each in done),
        walks=walks_json(merge(each.summary.walks for each in done)),
        found=_plain_answer(answer),
        curve=[point.to_json() for point in curve],
        probes=list(_probes(done)),
        ended_early=None if early_end is None else early_end.text,
    )
    outcomes = [(each.outcome, each.summary) for each in done]
    has_failed = service_failed(config.slo, outcomes)
    return SearchResult(written, answer, curve, early_end, has_failed)


def _measure(config: SearchConfig, search: RateSearch, show: ShowProgress) -> Iterator[Measured]:
    server = local_servers(config.load.addresses)
    assert config.load.seconds is not None
    each_s = config.load.seconds + config.load.warmup_s + _OVERHEAD_S
    number, seen = 0, ""
    while (probe := search.next_probe()) is not None:
        total = number + probe.left
        note = f"{seen}probe {number + 1} of about {total}, to {probe.purpose}: "
        note += f"{probe.rate_hz:,g} calls/s"
        show(Progress(number, total, probe.left * each_s, note))
        measured = measure(replace(config.load, rate_hz=probe.rate_hz), server, repeat=number)
        measured.raise_signal()
        if measured.lost:
            raise RunError(f"an engine was lost: {measured.lost[0]}")
        summary = summarize([measured.part])
        scheduled = sum(result.report.scheduled or 0 for result in measured.results)
        outcome = judge(config.slo, summary, scheduled)
        search.add(probe, outcome)
        number, seen = number + 1, f"{_WORDS[outcome]}; "
        yield Measured(probe, outcome, measured, summary)
    show(Progress(number, number, 0, f"{seen}{number} probes"))


def curve_of(done: Sequence[Measured]) -> tuple[Point, ...]:
    """Return the probes by rate, those of one rate merged."""
    rates = sorted({each.probe.rate_hz for each in done})
    return tuple(
        _point(rate, [each for each in done if each.probe.rate_hz == rate]) for rate in rates
    )


def _point(rate_hz: float, probes: Sequence[Measured]) -> Point:
    response = merge(each.summary.response for each in probes)
    lateness = merge(each.summary.lateness for each in probes)
    p50, p99, p999 = (_us(response.percentile_ns(percent)) for percent in (50, 99, 99.9))
    blamed = any(each.outcome is Outcome.GENERATOR for each in probes)
    errors = sum(each.summary.errors for each in probes)
    reasons = [Reason(ReasonCode.GENERATOR_LATE_OR_BUSY)] if blamed else []
    reasons += [Reason.of(ReasonCode.CALLS_FAILED, count=errors)] if errors else []
    reasons += disturbances([pooled(each.run.surroundings for each in probes)])
    return Point(
        rate_hz=rate_hz,
        calls_per_s=sum(each.summary.calls_per_s for each in probes) / len(probes),
        p50=p50,
        p99=p99,
        p999=p999,
        lateness_p99=_us(lateness.percentile_ns(99)),
        held=sum(each.outcome is Outcome.HELD for each in probes),
        probes=len(probes),
        reasons=tuple(reasons),
    )


def _us(value_ns: int | None) -> float | None:
    return None if value_ns is None else value_ns / 1000


def figures(answer: Answer, curve: Sequence[Point], *, is_over: bool = True) -> list[Figure]:
    """Return the answer, and the curve, as figures; a search that is not over has a void answer."""
    problems = [] if answer.rate_hz is not None else [Reason(ReasonCode.NO_VERIFIED_RATE)]
    problems += [] if is_over else [Reason(ReasonCode.ENDED_EARLY)]
    highest = _figure("highest verified rate", answer.rate_hz, answer.verified, *problems)
    code = LOWER_BOUNDS.get(answer.limit)
    if code is not None and not problems:
        highest = replace(highest, verdict=Verdict.AT_LEAST, reasons=(Reason(code),))
    listed = [
        highest,
        _figure("lowest failing rate", answer.failing_hz, 1),
    ]
    for point in curve:
        for name, value in (("p50", point.p50), ("p99", point.p99), ("p99.9", point.p999)):
            label = f"{point.rate_hz:,g} calls/s: response time {name}"
            figure = Figure(label, value, "µs", _CONTRACT, point.probes, reasons=point.reasons)
            if codes_of(point.reasons) & OF_MACHINE:
                figure = replace(figure, verdict=Verdict.VOID)
            listed.append(figure)
    return listed


def _figure(name: str, value: float | None, n: int, *problems: Reason) -> Figure:
    verdict = Verdict.VOID if problems else Verdict.OK
    return Figure(name, value, "calls/s", _CONTRACT, n, verdict=verdict, reasons=problems)


def _plain_answer(answer: Answer) -> dict[str, Any]:
    outcomes = [[rate, list(kept)] for rate, kept in sorted(answer.outcomes.items())]
    return asdict(answer) | {"outcomes": outcomes}


def _probes(done: Sequence[Measured]) -> Iterator[dict[str, Any]]:
    for number, each in enumerate(done):
        yield {
            "repeat": number,
            "rate_hz": each.probe.rate_hz,
            "purpose": each.probe.purpose,
            "outcome": each.outcome,
            "summary": each.summary.to_json(),
        }


def _samples(done: Sequence[Measured]) -> Iterator[dict[str, Any]]:
    for number, each in enumerate(done):
        for process, result in enumerate(each.run.results):
            yield from window_samples(number, process, result.report)
