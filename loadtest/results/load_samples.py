"""What a load run wrote, read back: its windows, and what server and machine used.

``run.json`` has an entry per generator process under ``generators``, ``samples.jsonl.gz`` four
kinds of lines: a ``window`` (one second of one process), a ``usage`` (one process of server or
generator at an instant), a ``machine`` (its CPU times at an instant) and a ``scrape`` (what a
Prometheus endpoint said at an instant). Seconds count from the
opening of the measured window of their repeat; second -1 is the warm-up, and what was
answered after the end comes in the seconds that follow it.

Files may be damaged, so everything that is read is checked. A value of the wrong type or range
raises a `ResultError` that names the file.
"""

import lzma
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from capnp_rig.loadtest.results import (
    SAMPLES_FILE,
    ResultError,
    read_run,
    read_samples,
    run_file,
)
from capnp_rig.loadtest.results.digests import samples_digest
from capnp_rig.loadtest.scrape.series import Scraped
from capnp_rig.loadtest.stats.disturbance import OtherProcess, ProcessWindow, Surroundings
from capnp_rig.loadtest.stats.figure import Figure, FigureKind
from capnp_rig.loadtest.stats.histogram import HIGHEST_NS, LOWEST_NS, Histogram, bucket_of
from capnp_rig.loadtest.stats.pair_statistics import Interval, Verdict, judge
from capnp_rig.loadtest.stats.process_use import KernelCounts, MachineTime, ProcessUse, Usage
from capnp_rig.loadtest.stats.reasons import OF_VERDICTS, Reason, reasons_of_text
from capnp_rig.loadtest.stats.run_summary import MeasuredRepeat, Summary, summarize
from capnp_rig.loadtest.stats.run_units import CpuSample, Units, units_of
from capnp_rig.loadtest.stats.tally import (
    WARMUP,
    Report,
    Window,
    add_windows,
    lists_from_json,
    lists_to_json,
)
from capnp_rig.loadtest.stats.thresholds import parse_threshold, within_limits
from capnp_rig.rigcli.gc_page import GcUse

# Kinds of results that are load runs, with windows in their samples.
LOAD_KINDS = ("run", "locust")
SAMPLES = SAMPLES_FILE
_DOCUMENT_PARTS = {"kind": str, "config": dict, "environment": dict, "figures": list}
_DAMAGED = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    RecursionError,
    EOFError,
    ZeroDivisionError,
    zlib.error,
    lzma.LZMAError,
)
_GENERATOR = (
    *("scheduled", "held", "unsent", "unfinished", "cpu_ns", "first_ns", "last_ns", "final"),
    "paused_ns",
)
_BUCKETS = range(bucket_of(LOWEST_NS), bucket_of(HIGHEST_NS) + 1)
_NUMBER_LABELS = (
    "size_bytes",
    "k",
    "floor",
    "compress_ns",
    "payload_bytes",
    "connections",
    "in_flight",
    "calls_in_flight",
)
_KINDS = frozenset(FigureKind)
_TEXT_LABELS = (
    "kind",
    "codec",
    "subject",
    "message",
    "contract",
    "baseline",
    "method",
    "stack",
    "payload_kind",
    "loop",
    "figure",
    "load",
    "what",
    "case",
)
# More seconds than a run can have: a damaged number shall not fill the memory.
_MOST_SECONDS = 1_000_000


@dataclass(frozen=True)
class Result:
    """What a result's files hold; `samples` is None where it has none, as a demo's."""

    document: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]] | None

    @property
    def kind(self) -> str:
        """What made it: ``run``, ``locust``, ``bench``, ``bench-server`` or ``demo``."""
        return str(self.document["kind"])

    @property
    def is_load(self) -> bool:
        """Whether it has the windows of a load run."""
        return self.kind in LOAD_KINDS

    @property
    def figures(self) -> list[Figure]:
        """The figures that were stored."""
        return read_figures(self.document)

    @cached_property
    def load(self) -> "LoadRun":
        """The load run in its samples.

        Raises:
            ResultError: The result is no load run, or damaged.
        """
        if not self.is_load or self.samples is None:
            raise ResultError(f"a {self.kind} is no load run")
        return read_load(self.document, self.samples)


@dataclass(frozen=True, slots=True)
class UsageSample:
    """What a process had used `t_s` after the window of its repeat opened.

    `role` is ``server`` or ``generator``; `cpu_s` counts from the start of the process, as does
    `gc`, which is None where the process told nothing of its garbage collections.
    """

    repeat: int
    t_s: float
    role: str
    name: str
    pid: int
    cpu_s: float
    rss_bytes: int
    gc: GcUse | None = None
    kernel: KernelCounts = field(default_factory=KernelCounts)


@dataclass(frozen=True, slots=True)
class MachineSample:
    """CPU seconds of the whole machine since it started: those stolen by others, and all.

    `pressure_s` and `mhz` are those of `MachineTime`.
    """

    repeat: int
    t_s: float
    steal_s: float
    total_s: float
    pressure_s: float | None = None
    mhz: float | None = None


@dataclass(frozen=True, slots=True)
class Repeat:
    """What is known of one repeat beside its windows.

    `seconds` is the length of the measured window, `busy` the largest share of it that a
    generator process worked. `server_cpu_s` is what the server used in it, `steal` the share of
    CPU time that other machines took, each None where it is not known. `server` has what each of
    its processes used, none where that is not known; `surroundings` is what the machine did to all
    of the run's, nothing in older results. `lost` says which generator processes ended without a
    report, and why. `endpoint_cpu_s` is what each of several endpoints used, as far as it is known.
    `scrapes` is what Prometheus endpoints said meanwhile.
    """

    seconds: float
    busy: float
    server_cpu_s: float | None = None
    steal: float | None = None
    server: tuple[ProcessUse, ...] = ()
    surroundings: Surroundings = field(default_factory=Surroundings)
    lost: tuple[str, ...] = ()
    endpoint_cpu_s: Mapping[str, float] = field(default_factory=dict)
    scrapes: tuple[Scraped, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadRun:
    """A load run: a report per (repeat, process), its repeats by number, and what was used.

    `fail_if` has the conditions under which it has failed.
    """

    reports: Mapping[tuple[int, int], Report]
    repeats: Mapping[int, Repeat]
    interrupted: bool = False
    usage: tuple[UsageSample, ...] = ()
    machine: tuple[MachineSample, ...] = ()
    fail_if: tuple[str, ...] = ()

    @property
    def is_open_loop(self) -> bool:
        """Whether calls were due on a schedule."""
        return any(report.scheduled is not None for report in self.reports.values())

    def reports_of(self, repeat: int) -> list[Report]:
        """Return the reports of a repeat's processes."""
        return [report for (number, _), report in self.reports.items() if number == repeat]

    def windows(self, repeat: int) -> dict[int, Window]:
        """Return the windows of all processes of a repeat together, by second."""
        reports = self.reports_of(repeat)
        return {
            second: add_windows(
                report.windows[second] for report in reports if second in report.windows
            )
            for second in sorted({second for report in reports for second in report.windows})
        }

    def summary(self, repeats: Iterable[int] | None = None) -> Summary:
        """Add up the run, or some of its repeats, and judge it anew."""
        chosen = self.repeats if repeats is None else repeats
        summary = summarize(self._parts(chosen), interrupted=self.interrupted)
        return within_limits(summary, self.fail_if)

    @property
    def units(self) -> Units:
        """What its intervals rest on: its repeats, or blocks of the seconds of a single one."""
        return units_of(self._parts(self.repeats))

    def _parts(self, chosen: Iterable[int]) -> list[MeasuredRepeat]:
        return [
            MeasuredRepeat(
                self.reports_of(number),
                self.repeats[number].seconds,
                self.repeats[number].busy,
                self.repeats[number].server_cpu_s,
                self.repeats[number].steal,
                self.repeats[number].surroundings,
                self.repeats[number].lost,
                [
                    CpuSample(usage.t_s, usage.pid, usage.cpu_s)
                    for usage in self.usage
                    if usage.repeat == number and usage.role == "server"
                ],
                self.repeats[number].endpoint_cpu_s,
            )
            for number in chosen
        ]


_Kind = TypeVar(
    "_Kind",
    Figure,
    GcUse,
    KernelCounts,
    MachineSample,
    OtherProcess,
    ProcessUse,
    ProcessWindow,
    Report,
    UsageSample,
)


def window_samples(repeat: int, process: int, report: Report) -> Iterator[dict[str, Any]]:
    """Yield the sample of each second of a process."""
    for second, window in sorted(report.windows.items()):
        where = {"repeat": repeat, "process": process, "second": second}
        yield {"sample": "window", **where, **window.to_json()}


def usage_sample(repeat: int, t_s: float, role: str, usage: Usage) -> dict[str, Any]:
    """Return the sample of what a process had used."""
    return {"sample": "usage", "repeat": repeat, "t_s": t_s, "role": role, **asdict(usage)}


def machine_sample(repeat: int, t_s: float, machine: MachineTime) -> dict[str, Any]:
    """Return the sample of what the machine had used."""
    return {"sample": "machine", "repeat": repeat, "t_s": t_s, **asdict(machine)}


def scrape_entry(scraped: Scraped) -> dict[str, Any]:
    """Return the entry of a Prometheus endpoint under ``scrapes``: all but its readings."""
    plain = {name: getattr(scraped, name) for name in ("url", "left_out", "failed", "error")}
    return plain | {"counters": sorted(scraped.counters)}


def scrape_samples(repeat: int, scraped: Scraped) -> Iterator[dict[str, Any]]:
    """Yield the sample of each reading of a Prometheus endpoint."""
    for t_s, values in scraped.readings:
        where = {"repeat": repeat, "t_s": t_s, "url": scraped.url}
        yield {"sample": "scrape", **where, "values": dict(values)}


def generator_entry(
    repeat: int, process: int, report: Report, *, busy: float, seconds: float
) -> dict[str, Any]:
    """Return the entry of a process under ``generators``: its report without the windows."""
    plain = {name: getattr(report, name) for name in _GENERATOR}
    checks = lists_to_json(report)
    return {
        "repeat": repeat,
        "process": process,
        **plain,
        "busy": busy,
        "seconds": seconds,
        **checks,
    }


def read_document(folder: Path) -> dict[str, Any]:
    """Read a result's ``run.json``, and check that it has what every result has.

    Raises:
        OSError: It cannot be read; `FileNotFoundError` where there is none.
        ResultError: It is damaged, or of another major version.
    """
    with damage(str(run_file(folder))):
        document = read_run(folder)
        for part, kind in _DOCUMENT_PARTS.items():
            if not isinstance(document.get(part), kind):
                raise TypeError(f"{part} is missing, or no {kind.__name__}")
    return document


def read_result(folder: str | Path) -> Result:
    """Read a result's ``run.json`` and samples.

    Raises:
        OSError: A file cannot be read; `FileNotFoundError` where there is no ``run.json``.
        ResultError: A file is damaged, or of another major version.
    """
    folder = Path(folder)
    document = read_document(folder)
    try:
        read_figures(document)
        stored_verdict(document)
    except ResultError as error:
        raise ResultError(f"{folder}: {error}") from error
    try:
        with damage(str(folder / SAMPLES)):
            samples = read_samples(folder, document)
            if not all(isinstance(sample, dict) for sample in samples):
                raise TypeError("a line is not a JSON object")
    except FileNotFoundError as error:
        if document["kind"] in LOAD_KINDS or samples_digest(document) is not None:
            raise ResultError(f"{folder / SAMPLES} is missing") from error
        return Result(document, None)
    return Result(document, samples)


def read_figures(document: Mapping[str, Any]) -> list[Figure]:
    """Return the figures of a document.

    Raises:
        ResultError: One is not as it was written.
    """
    with damage("run.json"):
        is_bench = document.get("kind") == "bench"
        return [
            _by_todays_rule(
                _read(
                    Figure,
                    plain,
                    reasons=_figure_reasons(plain),
                    labels=_labels(plain, is_bench=is_bench),
                )
            )
            for plain in document["figures"]
        ]


def _by_todays_rule(figure: Figure) -> Figure:
    """Return a ratio with the verdict of today's rule: earlier results have that of their time."""
    floor = figure.labels.get("floor")
    if figure.is_void or figure.value is None or floor is None:
        return figure
    judged = judge(Interval(figure.value, figure.low, figure.high, figure.n), floor)
    bounds = tuple(each for each in figure.reasons if each.code not in OF_VERDICTS)
    return replace(figure, verdict=judged.verdict, reasons=bounds + judged.reasons)


def _labels(plain: Mapping[str, Any], *, is_bench: bool) -> dict[str, Any]:
    labels = dict(plain.get("labels") or {})
    for name in (*_NUMBER_LABELS, *_TEXT_LABELS):
        value = labels.get(name)
        is_good = _is_number(value) if name in _NUMBER_LABELS else isinstance(value, str)
        if value is not None and not is_good:
            raise ValueError(f"the label {name} is {value!r}")
    # Earlier benches have the kind in front of the name only.
    prefix = str(plain["name"]).partition(": ")[0]
    if is_bench and "kind" not in labels and prefix in _KINDS:
        labels["kind"] = prefix
    FigureKind(labels.get("kind", FigureKind.VALUE))
    return labels


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < math.inf


def _figure_reasons(plain: Mapping[str, Any]) -> tuple[Reason, ...]:
    codes = plain.get("reason_codes")
    # Older results have the words only.
    return reasons_of_text(str(plain["reason"])) if codes is None else _reasons(codes)


def _reasons(codes: Iterable[Mapping[str, Any]]) -> tuple[Reason, ...]:
    return tuple(Reason.from_json(each) for each in codes)


def stored_verdict(document: Mapping[str, Any]) -> tuple[Verdict, tuple[Reason, ...]] | None:
    """Return how a run was judged, and why; None for what has no verdict as a whole.

    Raises:
        ResultError: It is not as it was written.
    """
    if "summary" not in document:
        return None
    with damage("run.json"):
        summary = document["summary"]
        texts, codes = summary["reasons"], summary.get("reason_codes")
        if not isinstance(texts, list):
            raise TypeError("the summary's reasons are no list")
        if codes is not None:
            return Verdict(summary["verdict"]), _reasons(codes)
        reasons = [reason for text in texts for reason in reasons_of_text(str(text))]
        return Verdict(summary["verdict"]), tuple(reasons)


@contextmanager
def damage(file: str, line: int | None = None) -> Iterator[None]:
    """Turn what a damaged file makes of the code within into a `ResultError` that names it."""
    try:
        yield
    except ResultError:
        raise
    except (*_DAMAGED, OSError) as error:
        # A file that cannot be opened has a number, one that is no gzip file has none.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        where = file if line is None else f"{file}, line {line}"
        raise ResultError(f"{where} is damaged: {_what(error)}") from error


def _what(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error) or type(error).__name__


def read_load(document: Mapping[str, Any], samples: Iterable[Mapping[str, Any]]) -> LoadRun:
    """Return the load run that a document and its samples hold.

    Raises:
        ResultError: Something is missing, or not as it was written.
    """
    windows: dict[tuple[int, int], dict[int, Window]] = {}
    with damage("run.json"):
        for entry in document["generators"]:
            windows[_count(entry["repeat"]), _count(entry["process"])] = {}
        if len(windows) != len(document["generators"]) or not windows:
            raise ValueError("generators is empty, or names a process twice")
        repeats = _repeats(document)
    usage, machine = [], []
    readings: dict[tuple[int, str], list[tuple[float, dict[str, float]]]] = {}
    for line, sample in enumerate(samples, start=1):
        with damage(SAMPLES, line):
            if sample["sample"] == "window":
                _add_window(windows, sample)
            elif sample["sample"] == "usage":
                # Older samples tell nothing of garbage collections, nor of the kernel's counts.
                usage.append(_read(UsageSample, {"gc": None, "kernel": None, **sample}))
            elif sample["sample"] == "machine":
                older = {"pressure_s": None, "mhz": None}
                machine.append(_read(MachineSample, {**older, **sample}))
            elif sample["sample"] == "scrape":
                values = {str(name): _number(value) for name, value in sample["values"].items()}
                place = _count(sample["repeat"]), str(sample["url"])
                readings.setdefault(place, []).append((_seconds(sample["t_s"]), values))
    with damage("run.json"):
        reports = {
            # Older results count what was never sent as unfinished.
            key: _read(
                Report,
                {"unsent": 0, "paused_ns": 0, **entry},
                windows=windows[key],
                firsts={},
                **lists_from_json(entry),
            )
            for key, entry in zip(windows, document["generators"], strict=True)
        }
    interrupted = bool(document.get("interrupted"))
    with damage("run.json"):
        # Older results do not say.
        fail_if = tuple(str(text) for text in document.get("config", {}).get("fail_if") or ())
        list(map(parse_threshold, fail_if))
        repeats = {
            number: replace(each, scrapes=_with_readings(number, each.scrapes, readings))
            for number, each in repeats.items()
        }
    return LoadRun(reports, repeats, interrupted, tuple(usage), tuple(machine), fail_if)


def _with_readings(
    repeat: int,
    scrapes: Iterable[Scraped],
    readings: Mapping[tuple[int, str], Sequence[tuple[float, Mapping[str, float]]]],
) -> tuple[Scraped, ...]:
    return tuple(
        replace(each, readings=tuple(readings.get((repeat, each.url), ()))) for each in scrapes
    )


def _scraped(plain: Mapping[str, Any]) -> Scraped:
    return Scraped(
        str(plain["url"]),
        counters=frozenset(map(str, plain["counters"])),
        left_out=_count(plain["left_out"]),
        failed=_count(plain["failed"]),
        error=str(plain["error"]),
    )


def _repeats(document: Mapping[str, Any]) -> dict[int, Repeat]:
    observed = document["observed"]
    # What was observed goes by repeat; a single repeat may have it without a list.
    by_repeat = observed if isinstance(observed, list) else [observed]
    repeats: dict[int, Repeat] = {}
    for entry in document["generators"]:
        number = entry["repeat"]
        seconds, busy = _number(entry["seconds"]), _number(entry["busy"])
        if not 0 <= seconds <= _MOST_SECONDS:
            raise ValueError(f"{seconds} seconds")
        known = repeats.get(number, Repeat(0.0, 0.0))
        seen = by_repeat[number]
        repeats[number] = Repeat(
            max(seconds, known.seconds),
            max(busy, known.busy),
            server_cpu_s=_number_or_none(seen["server_cpu_s"]),
            steal=_number_or_none(seen["steal"]),
            # Older results, and those of Locust, have none.
            server=tuple(_read(ProcessUse, plain) for plain in seen.get("server", ())),
            surroundings=_surroundings(seen.get("surroundings")),
            lost=tuple(map(str, seen.get("lost", ()))),
            endpoint_cpu_s={
                str(name): _number(cpu_s) for name, cpu_s in seen.get("endpoint_cpu_s", {}).items()
            },
            scrapes=tuple(map(_scraped, seen.get("scrapes", ()))),
        )
    return dict(sorted(repeats.items()))


def _surroundings(plain: Mapping[str, Any] | None) -> Surroundings:
    # Older results have none.
    if plain is None:
        return Surroundings()
    return Surroundings(
        tuple(_read(ProcessWindow, each) for each in plain["processes"]),
        tuple(_read(OtherProcess, each) for each in plain["others"]),
        _number_or_none(plain["pressure"]),
        None if plain["in_flight"] is None else _count(plain["in_flight"]),
        _number_or_none(plain.get("paused")) or 0.0,
    )


def _add_window(
    windows: Mapping[tuple[int, int], dict[int, Window]], sample: Mapping[str, Any]
) -> None:
    second = sample["second"]
    if not isinstance(second, int) or not WARMUP <= second <= _MOST_SECONDS:
        raise ValueError(f"{second!r} is not a second of the run")
    seconds = windows[sample["repeat"], sample["process"]]
    if second in seconds:
        raise ValueError(f"second {second} comes twice")
    window = Window.from_json(sample)
    for part in (window, *window.endpoints.values()):
        _check_window(part)
    seconds[second] = window


def _check_window(window: Window) -> None:
    for times in window.calls.values():
        for part in (times.service, times.response, times.lateness, times.failed):
            check_histogram(part)
    check_histogram(window.connects)
    check_histogram(window.reconnects)
    check_histogram(window.walks)
    for count in (*window.failures.values(), window.ended):
        _count(count)


def check_histogram(times: Histogram) -> None:
    """Check that a histogram that was read is one.

    Raises:
        ValueError: A bucket does not exist, or the counts do not add up.
    """
    counts = times.counts
    if not all(isinstance(bucket, int) and bucket in _BUCKETS for bucket in counts):
        raise ValueError("a bucket does not exist")
    parts = [*counts.values(), times.below, times.above]
    if not all(isinstance(part, int) and part >= 0 for part in parts):
        raise ValueError("a count is not a non-negative integer")
    if sum(parts) != times.count:
        raise ValueError(f"the counts make {sum(parts)}, not {times.count}")
    edges = (times.min_ns, times.max_ns)
    if not all(isinstance(edge, int) for edge in edges) if times.count else edges != (None, None):
        raise ValueError("minimum or maximum is not what the count allows")


# --- plain values as dataclasses -------------------------------------------------------------


def _read(kind: type[_Kind], plain: Mapping[str, Any], **known: Any) -> _Kind:
    """Return a dataclass of plain values by its fields' names, each checked as its type demands.

    Fields that are `known` are taken as they are.
    """
    unknown = (each for each in fields(kind) if each.name not in known)
    values = {each.name: _CHECKS[each.type](plain[each.name]) for each in unknown}
    _seconds(values.get("t_s", 0.0))
    return kind(**values, **known)


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _seconds(value: object) -> float:
    if abs(seconds := _number(value)) > _MOST_SECONDS:
        raise ValueError(f"{seconds:g} s is far from the run")
    return seconds


def _number_or_none(value: object) -> float | None:
    return None if value is None else _number(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a non-negative integer")
    return value


_CHECKS: Mapping[Any, Callable[[Any], Any]] = {
    int: _count,
    int | None: lambda value: None if value is None else _count(value),
    float: _number,
    float | None: _number_or_none,
    str: str,
    bool: bool,
    Verdict: Verdict,
    GcUse | None: lambda value: None if value is None else _read(GcUse, value),
    KernelCounts: lambda value: KernelCounts() if value is None else _read(KernelCounts, value),
}
