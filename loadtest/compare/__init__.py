"""One result against another: what got faster, what slower, and what nobody can tell (no I/O).

The two were not measured as pairs, so they count as independent samples: each has units of its own,
a value each (`stats.metric`) or what each adds to a figure (`stats.unit_intervals`). The A/A floor
of a row is how far another result of the same may be, of both results the farther. A row is void
where its figure is, where a run is void as a whole, or where the two were not made alike; `force`
lifts the last two. Above 1 the candidate is better.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from capnp_rig.loadtest.compare.load_metrics import metrics_by_repeat, metrics_by_second
from capnp_rig.loadtest.compare.round_metrics import (
    bench_metrics,
    bench_server_metrics,
    locust_metrics,
    peers_metrics,
    search_metrics,
    stack_metrics,
    sweep_metrics,
)
from capnp_rig.loadtest.results import ResultError
from capnp_rig.loadtest.results.load_samples import Result, stored_verdict
from capnp_rig.loadtest.stats.exit_status import ExitStatus
from capnp_rig.loadtest.stats.metric import Metric, Range, Values
from capnp_rig.loadtest.stats.pair_statistics import MARGIN, Interval, Judgement, Verdict, judge
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode, text_of
from capnp_rig.loadtest.stats.unit_intervals import Added

# The first of these that a row has is the verdict of all; one that no row has is void.
_EXIT = {
    Verdict.SLOWER: ExitStatus.SLOWER,
    Verdict.CANNOT_TELL: ExitStatus.CANNOT_TELL,
    Verdict.FASTER: ExitStatus.GOOD,
    Verdict.SAME: ExitStatus.GOOD,
    Verdict.VOID: ExitStatus.VOID,
}
# What is measured may differ: it is what a comparison is for.
_OWN_PACKAGE = "capnp-rig"
# What of a config makes another load; where, how long and how often may differ.
_ENGINE = {"connections", "in_flight", "rate", "rate_hz", "arrivals", "pin", "processes"}
_CALLS = {"workload", "checks_content", "payload_bytes", "text", "corpus", "schema"}
_METHOD = {"interface", "method", "params", "expect"}
_LOCUST = {"num_users", "users", "spawn_rate", "user_classes", "shape_class"}
_CHOSEN = {"tags", "exclude_tags", "expect_workers"}
# `processes` of a bench only says how often.
_BENCH = {"case_s", "min_rounds", "cpus", "open_share", "slo"}
_LOAD_OPTIONS = _ENGINE | _CALLS | _METHOD | _LOCUST | _CHOSEN | _BENCH
# Where what differs makes metrics of other names, or says only how often.
_MAY_DIFFER = {"bench": {"processes"}, "sweep": {"in_flight"}}


# The units of the kinds of results that are no load runs, and what makes their metrics.
_KINDS: Mapping[str, tuple[str, Callable[..., list[Metric]]]] = {
    "bench": ("process", bench_metrics),
    "bench-server": ("round", bench_server_metrics),
    "bench-peers": ("round", peers_metrics),
    "bench-stacks": ("round", stack_metrics),
    "bench-locust": ("round", locust_metrics),
    "sweep": ("round", sweep_metrics),
    "search": ("probe", search_metrics),
}
# Of a workload: by what its texts are made, and what its messages may have at most.
_NO_LOAD = {"seed", "max_message_bytes"}
_SHOWN_CHARS = 40
_NAMED = 12
_NOTES = {
    "second": (
        "One run each: an interval covers what happened within these two runs, second by second, "
        "and not how fresh servers differ from each other; six or more --repeats give the "
        "stronger one."
    ),
    "probe": (
        "The highest rate may lie anywhere between the verified and the failing one of its search; "
        "rates without six probes on both sides are not judged."
    ),
    "repeat": (
        "An interval covers how the repeats of a run differ; servers that were not started anew "
        "between them may still differ by more."
    ),
}


class CompareError(ValueError):
    """Two results cannot be compared at all; the message says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """A metric of both results, and the verdict on it.

    `ratio` above 1 means that the candidate is better, `low` and `high` bound its 95 % interval,
    `floor` is the A/A floor as a share; each None where it cannot be had. `n` is the number of
    units of the result that has fewer.
    """

    metric: str
    unit: str
    baseline: float | None
    candidate: float | None
    ratio: float | None
    low: float | None
    high: float | None
    floor: float | None
    n: int
    verdict: Verdict
    reasons: tuple[Reason, ...]

    @property
    def reason(self) -> str:
        """The reasons in words, empty where there are none."""
        return text_of(self.reasons)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a candidate is against a baseline.

    `unit` is what the intervals rest on; `margin` is what still counts as the same, as a share;
    `objections` say why all rows are void, or would be without force; `doubt` is that in short, as
    the rows have it, empty where they are judged; `notes` say how the intervals are meant.
    """

    kind: str
    unit: str
    margin: float
    rows: tuple[Row, ...]
    verdict: Verdict
    objections: tuple[str, ...]
    doubt: str
    notes: tuple[str, ...]
    forced: bool

    @property
    def exit_status(self) -> int:
        """0 faster or same, 3 slower, 4 cannot tell, 5 void: no row could be judged."""
        return _EXIT[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {
            "rows": [self._row_json(row) for row in self.rows],
            "exit_status": self.exit_status,
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        values = asdict(row)
        del values["reasons"]
        codes = [reason.to_json() for reason in row.reasons]
        return values | {"reason": self.reason_of(row, self.doubt), "reason_codes": codes}

    def reason_of(self, row: Row, doubt: str) -> str:
        """Return the reason of a row with `doubt`, which is the same in all rows that have it."""
        return "; ".join(filter(None, (row.reason, doubt if self.doubt else "")))


def compare(
    baseline: Result,
    candidate: Result,
    *,
    force: bool,
    metrics: Sequence[str] = (),
    margin: float = MARGIN,
) -> Comparison:
    """Hold a candidate against a baseline, by those of its `metrics` that are named, or all.

    A name may be a pattern with ``*``, and ``p99`` is ``response.p99``. With `force`, void runs and
    unlike environments are judged as if they were none. `margin`, over 0, is the share that still
    counts as the same.

    Raises:
        CompareError: They are of different kinds or of one that has no samples, or there is no
            such metric.
        ResultError: A result is damaged.
    """
    if baseline.kind != candidate.kind:
        raise CompareError(f"a {baseline.kind} and a {candidate.kind} have nothing in common")
    unit, sides = _metrics(baseline, candidate)
    old = {metric.name: metric for metric in sides[0]}
    new = {metric.name: metric for metric in sides[1]}
    names = chosen_names([name for name in old if name in new], metrics)
    unlike = differences(baseline.document, candidate.document)
    voids = {
        f"the {side} is void": void_reasons(result.document)
        for side, result in (("baseline", baseline), ("candidate", candidate))
    }
    doubt = "" if force else "; ".join(_doubts(unlike, voids))
    rows = tuple(
        _row(old[name], new[name], doubt, margin=margin, unit=f"{unit}s") for name in names
    )
    notes = [_NOTES[unit]] if unit in _NOTES else []
    alone = sorted(old.keys() ^ new.keys())
    if alone:
        notes.append(f"Only one of the two has: {', '.join(alone)}.")
    objections = [f"unlike {text}" for text in unlike]
    objections += [f"{side}: {reason}" for side, reasons in voids.items() for reason in reasons]
    return Comparison(
        kind=baseline.kind,
        unit=unit,
        margin=margin,
        rows=rows,
        verdict=_overall(rows),
        objections=tuple(objections),
        doubt=doubt,
        notes=tuple(notes),
        forced=force,
    )


def _metrics(baseline: Result, candidate: Result) -> tuple[str, list[list[Metric]]]:
    sides = (("baseline", baseline), ("candidate", candidate))
    if baseline.is_load:
        return _load_metrics(sides)
    unit, metrics = _KINDS.get(baseline.kind, ("", None))
    judged = []
    for name, result in sides:
        if result.samples is None or metrics is None:
            raise CompareError(f"a {result.kind} has no samples that compare")
        with _named(name):
            judged.append(metrics(result.document, result.samples))
    return unit, judged


def _load_metrics(sides: Sequence[tuple[str, Result]]) -> tuple[str, list[list[Metric]]]:
    loads = []
    for name, result in sides:
        with _named(name):
            loads.append(result.load)
    if all(len(load.repeats) == 1 for load in loads):
        return "second", [list(metrics_by_second(load)) for load in loads]
    return "repeat", [list(metrics_by_repeat(load)) for load in loads]


@contextmanager
def _named(side: str) -> Iterator[None]:
    try:
        yield
    except ResultError as error:
        raise ResultError(f"the {side}: {error}") from error


def chosen_names(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Return the names that one of the patterns means, all without a pattern.

    Raises:
        CompareError: A pattern means none.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        # As in a condition, a percentile alone is of the response time; in a closed loop that
        # is the service time.
        meant = [pattern, f"response.{pattern}", f"service.{pattern}"]
        named = [[name for name in names if fnmatchcase(name, pattern)] for pattern in meant]
        first = next((some for some in named if some), None)
        if first is None:
            known = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
            raise CompareError(f"no metric {pattern!r}: there is {known or 'none'}")
        chosen.update(first)
    return [name for name in names if name in chosen or not patterns]


def _doubts(unlike: Sequence[str], voids: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield what makes every row void, in short: the objections have it in full."""
    if unlike:
        yield f"unlike {', '.join(text.partition(':')[0] for text in unlike)}"
    for side, reasons in voids.items():
        if reasons:
            more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
            yield f"{side}: {reasons[0]}{more}"


def _row(old: Metric, new: Metric, doubt: str, *, margin: float, unit: str) -> Row:
    n = min(old.n, new.n)
    # Times: the ratio of the old one to the new one is above 1 where the new one is better.
    ratio = _ratio(new, old) if old.is_higher_better else _ratio(old, new)
    floors = [None if each.measured is None else each.measured.floor for each in (old, new)]
    floor = None if None in floors else max(each for each in floors if each is not None)
    if ratio is not None:
        ratio = replace(ratio, n=n)
    more = None if isinstance(old.measured, Range) else unit
    judged = _judged(old, new, ratio, floor, margin=margin, unit=more)
    return Row(
        metric=old.name,
        unit=old.unit,
        baseline=old.value,
        candidate=new.value,
        ratio=None if ratio is None else ratio.value,
        low=None if ratio is None else ratio.low,
        high=None if ratio is None else ratio.high,
        floor=floor,
        n=n,
        verdict=Verdict.VOID if doubt else judged.verdict,
        reasons=judged.reasons,
    )


def _ratio(top: Metric, bottom: Metric) -> Interval | None:
    match top.measured, bottom.measured:
        case (Values() as above, Values() as below):
            return above.over(below)
        case (Added() as above, Added() as below):
            return above.over(below)
        case (Range() as above, Range() as below):
            return above.over(below)
    return None


def _judged(
    old: Metric, new: Metric, ratio: Interval | None, floor: float | None, **rule: Any
) -> Judgement:
    problems = tuple(dict.fromkeys(old.problems + new.problems))
    if problems:
        return Judgement(Verdict.VOID, problems)
    if ratio is None:
        return Judgement(Verdict.VOID, (Reason.of(ReasonCode.VALUE_OF_ZERO),))
    return judge(ratio, floor, **rule)


def _overall(rows: Iterable[Row]) -> Verdict:
    verdicts = {row.verdict for row in rows}
    return next((verdict for verdict in _EXIT if verdict in verdicts), Verdict.VOID)


def void_reasons(document: Mapping[str, Any]) -> list[str]:
    """Return why a load run is void or failed as a whole; empty where it is neither."""
    verdict, reasons = stored_verdict(document) or (Verdict.VALID, ())
    if verdict is Verdict.VALID:
        return []
    return [reason.text for reason in reasons] or ["no reason given"]


def differences(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    """Return what forbids to compare two documents, each as ``name: this against that``."""
    old, new = _environment(baseline["environment"]), _environment(candidate["environment"])
    # A fact that only one of the two recorded says nothing.
    names = [name for name in old if name in new]
    unlike = [_difference(name, old, new) for name in names if old[name] != new[name]]
    kind = baseline["kind"]
    old, new = _load(baseline["config"], kind), _load(candidate["config"], kind)
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return unlike + [_difference(name, old, new) for name in names]


def _difference(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    return f"{name}: {_shown(old.get(name))} against {_shown(new.get(name))}"


def _environment(environment: Mapping[str, Any]) -> dict[str, Any]:
    machine, packages = environment.get("machine"), environment.get("packages")
    machine = machine if isinstance(machine, dict) else {}
    packages = packages if isinstance(packages, dict) else {}
    return {
        "CPU model": machine.get("cpu_model"),
        "CPUs": machine.get("cpus"),
        "Python": environment.get("python"),
        "implementation": environment.get("implementation"),
        "platform": environment.get("platform"),
        "libcapnp": environment.get("libcapnp"),
        **{name: packages[name] for name in sorted(packages) if name != _OWN_PACKAGE},
    }


def _load(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return what of a config is the load, flat."""
    chosen = _LOAD_OPTIONS - _MAY_DIFFER.get(kind, set())
    flat: dict[str, Any] = {}
    load = config.get("load")
    # A search and a sweep have the options of their load by themselves.
    config = {**load, **config} if isinstance(load, dict) else config
    for name, value in config.items():
        if name not in chosen:
            continue
        if isinstance(value, dict):
            flat |= {f"{name}.{part}": each for part, each in value.items() if part not in _NO_LOAD}
        else:
            flat[name] = value
    return flat


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
