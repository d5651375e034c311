"""``report.html``: one result as a document (no I/O).

What a load run shows is computed anew from its samples; of ``run.json`` come only what was asked
for, where it ran, what was observed from outside, and how it was judged. Where that file
says other numbers than the samples, the page says so.
"""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from capnp_rig.loadtest.report.ab_blocks import ab_parts
from capnp_rig.loadtest.report.cells import flat, plain_table, row
from capnp_rig.loadtest.report.client_parts import client_parts, course_parts
from capnp_rig.loadtest.report.distribution import distribution_parts
from capnp_rig.loadtest.report.document import (
    Cell,
    Commands,
    Document,
    Links,
    Notes,
    Paragraph,
    Part,
    Row,
    Section,
    Table,
    Tone,
)
from capnp_rig.loadtest.report.figures import figure_table
from capnp_rig.loadtest.report.run_tables import (
    beside_verdict,
    endpoint_parts,
    example_parts,
    percentile_cell,
    spread_parts,
    times_table,
    walk_notes,
)
from capnp_rig.loadtest.report.scrape_views import scrape_parts
from capnp_rig.loadtest.report.sources import Source
from capnp_rig.loadtest.report.subject_tables import peer_parts, server_parts
from capnp_rig.loadtest.report.timeline import time_parts
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.results.load_samples import LoadRun
from capnp_rig.loadtest.results.load_series import (
    Second,
    SecondUsage,
    seconds_of,
    steal_share,
    usage_by_second,
    usage_intervals,
)
from capnp_rig.loadtest.results.times_table import times_rows
from capnp_rig.loadtest.stats.disturbance import Surroundings
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.run_summary import LIMITS, Summary, figures
from capnp_rig.loadtest.stats.tally import WARMUP, Window

PAGE = "report.html"
_SECOND_PERCENTILES = (50.0, 99.0, 99.9)
_NEAR = 1e-9
_SIDE_BY_SIDE = {
    "bench-peers": peer_parts,
    "bench-servers": server_parts,
    "bench-clients": client_parts,
}


def result_document(source: Source) -> Document:
    """Return the page of a result.

    Raises:
        ResultError: The result is damaged.
    """
    called = source.document.get("name")
    title = f"loadtest {source.kind}, {f'{called}, ' if called else ''}{source.name}"
    if source.load is None:
        counts = Counter(figure.verdict for figure in source.figures)
        text = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        verdict: list[Part] = [
            Paragraph(f"{len(source.figures)} figures: {text or 'none'}"),
            *walk_notes(source.document),
        ]
        is_void, sections = bool(counts[Verdict.VOID]), [_figures(source.figures)]
        if source.kind == "ab":
            sections.append(Section("blocks", "Blocks", list(ab_parts(source))))
        elif source.kind in _SIDE_BY_SIDE:
            parts = list(_SIDE_BY_SIDE[source.kind](source.figures))
            sections.insert(0, Section("side-by-side", "Side by side", parts))
        if source.kind == "bench-clients":
            sections.insert(0, Section("over-time", "Over time", list(course_parts(source))))
    else:
        summary = source.load.summary()
        computed = figures(summary)
        different = disagreements(source.document, source.figures, summary, computed)
        verdict = list(_verdict(source, summary, different))
        is_void = bool(different) or source.judged(summary)[0] is not Verdict.VALID
        sections = [
            _figures(_as_judged(computed, source.figures)),
            Section("repeats", "Intervals and repeats", list(spread_parts(summary))),
            *_load_sections(source, source.load, summary),
        ]
    sections += [*_origin(source), _files(source.files)]
    return Document(title, verdict=verdict, sections=sections, is_void=is_void)


def _figures(figures: Sequence[Figure]) -> Section:
    return Section("figures", "Figures", [figure_table("figure-table", "All figures", figures)])


# --- load runs -------------------------------------------------------------------------------


def _verdict(source: Source, summary: Summary, different: Sequence[str]) -> Iterator[Part]:
    verdict, reasons = source.judged(summary)
    loop = "open loop: times count from when calls were due"
    if not summary.is_open_loop:
        loop = "closed loop: users wait for replies, so times are service times"
    yield Paragraph(f"{beside_verdict(verdict, summary.unchecked)} ({loop})")
    if reasons:
        yield Notes("", [reason.text for reason in reasons])
    violations = source.document.get("violations")
    if isinstance(violations, list) and violations:
        yield Notes("", [f"failed: {text}" for text in violations])
    if different:
        yield Notes("run.json does not agree with the samples, which this page shows", different)


def _as_judged(computed: Sequence[Figure], stored: Sequence[Figure]) -> list[Figure]:
    """Return the figures that were computed, with the verdicts of those that were stored.

    The numbers are those of the samples; what to think of them is for whoever ran it to say.
    """
    by_name = {figure.name: figure for figure in stored}
    judges = [(figure, by_name.get(figure.name, figure)) for figure in computed]
    return [
        replace(figure, verdict=judge.verdict, reasons=judge.reasons) for figure, judge in judges
    ]


def disagreements(
    document: Mapping[str, Any],
    stored: Sequence[Figure],
    summary: Summary,
    computed: Sequence[Figure],
) -> list[str]:
    """Return which numbers of ``run.json`` are not what its samples say.

    `stored` are the figures of the document, `summary` and `computed` those that the samples make.
    """
    # Under Locust, reasons come from what only Locust knows, too; other limits judge otherwise.
    is_judged_alike = document["kind"] != "locust" and document.get("limits") == dict(LIMITS)
    skipped = set() if is_judged_alike else {"verdict", "reasons", "reason_codes"}
    old = {**dict(flat(document.get("summary", {}))), **_numbers(stored)}
    new = {**dict(flat(summary.to_json())), **_numbers(computed)}
    return [
        f"{name}: run.json says {value}, the samples {new[name]}"
        for name, value in old.items()
        if name in new and name not in skipped and not _alike(value, new[name])
    ]


def _numbers(figures: Sequence[Figure]) -> dict[str, Any]:
    return {
        f"{figure.name}, {name}": getattr(figure, name)
        for figure in figures
        # Intervals without a unit are of earlier versions, which took calls as independent.
        for name in ("value", "n", *(("low", "high") if "interval_unit" in figure.labels else ()))
    }


def _alike(old: object, new: object) -> bool:
    if isinstance(old, int | float) and isinstance(new, int | float):
        return abs(old - new) <= _NEAR * max(abs(old), abs(new))
    return old == new


def _load_sections(source: Source, load: LoadRun, summary: Summary) -> Iterator[Section]:
    total = Window(summary.labels, summary.connects, summary.reconnects, walks=summary.walks)
    seconds = sum(repeat.seconds for repeat in load.repeats.values())
    yield Section("times", "Times", [times_table(times_rows(total, seconds))])
    if summary.endpoints:
        yield Section("endpoints", "Endpoints", list(endpoint_parts(summary)))
    failed = [_failures(summary), *example_parts(summary.examples)]
    yield Section("failures", "Failures", failed)
    yield Section("distribution", "Distribution", list(distribution_parts(source)))
    yield Section("over-time", "Over time", list(time_parts(source)))
    for repeat in load.repeats:
        title = "Every second" if len(load.repeats) == 1 else f"Every second of repeat {repeat}"
        parts = [
            _second_table(load, repeat),
            *_usage_parts(load, repeat),
            *_wait_tables(load.repeats[repeat].surroundings, repeat),
            *scrape_parts(load, repeat),
        ]
        yield Section(f"seconds-{repeat}", title, parts)
    yield Section("generators", "Generators", list(_generators(load)))


def _failures(summary: Summary) -> Part:
    if not summary.failures:
        return Paragraph("No call failed.")
    headings = ["kind", "calls", *(each.endpoint for each in summary.endpoints)]
    rows = [
        row(kind, count, *(each.window.failures.get(kind, 0) for each in summary.endpoints))
        for kind, count in sorted(summary.failures.items())
    ]
    return Table("failure-table", "Failed calls by kind", headings, rows)


def _second_table(load: LoadRun, repeat: int) -> Table:
    clocks = ("response", "service") if load.is_open_loop else ("service",)
    headings = ["second", "answered", "calls/s", "failed"]
    headings += [f"{clock} p{percent:g}" for clock in clocks for percent in _SECOND_PERCENTILES]
    rows = [_second_row(second, clocks) for second in seconds_of(load, repeat)]
    caption = "Calls of every second; times in µs"
    return Table(f"second-table-{repeat}", caption, headings, rows, folded=True)


def _second_row(second: Second, clocks: Sequence[str]) -> Row:
    void = ""
    name = "warm-up" if second.second == WARMUP else f"{second.second}"
    if not second.length_s:
        void = "outside the measured window"
        name += "" if second.second == WARMUP else ", after the end"
    window = second.window
    percentiles = [
        percentile_cell(getattr(second.clocks, clock), percent)
        for clock in clocks
        for percent in _SECOND_PERCENTILES
    ]
    counts = (window.answered, second.calls_per_s, window.failed)
    return row(Cell(name, second.second), *counts, *percentiles, void=void)


def _usage_parts(load: LoadRun, repeat: int) -> Iterator[Part]:
    by_process = usage_by_second(load, repeat)
    if not by_process:
        yield Paragraph("What the processes used was not sampled.", quiet=True)
        return
    yield _usage_table(load, repeat)
    stolen = {int(at_s): 100 * share for at_s, share in steal_share(load, repeat)}
    headings = ["second"]
    for role, name, pid in by_process:
        headings += [f"{role} {name} ({pid}), cores", "MB"]
    rows = []
    for second in sorted({second for used in by_process.values() for second in used}):
        used = [each.get(second, SecondUsage(None, None)) for each in by_process.values()]
        values = [value for each in used for value in (each.cores, _mb(each.rss_bytes))]
        rows.append(row(second, *values, stolen.get(second)))
    caption = "CPU and memory of every second; stolen CPU time went to other machines"
    headings.append("stolen %")
    yield Table(f"usage-seconds-{repeat}", caption, headings, rows, folded=True)


def _wait_tables(seen: Surroundings, repeat: int) -> Iterator[Table]:
    """Yield what kept each process from a CPU, and who else was busy; nothing of older results."""
    if seen.processes:
        rows = [
            row(
                *(each.role, each.name, Cell(f"{each.pid}", each.pid), 100 * each.busy),
                None if each.wait_share is None else 100 * each.wait_share,
                *(each.kernel.involuntary, each.kernel.migrations),
                *(each.kernel.throttles, each.kernel.throttled_s),
                tone=Tone.BAD if each.has_waited or each.kernel.throttles else Tone.PLAIN,
            )
            for each in seen.processes
        ]
        headings = [
            "role",
            "process",
            "pid",
            "busy %",
            "waited %",
            "lost the CPU",
            "changed the CPU",
        ]
        headings += ["throttled", "throttled s"]
        caption = "What kept each process from a CPU, in the measured window"
        yield Table(f"waits-{repeat}", caption, headings, rows)
    if seen.others:
        rows = [row(each.name, Cell(f"{each.pid}", each.pid), each.cores) for each in seen.others]
        caption = "The busiest processes that are not of the run"
        yield Table(f"others-{repeat}", caption, ["process", "pid", "cores"], rows)


def _usage_table(load: LoadRun, repeat: int) -> Table:
    rows = []
    for (role, name, pid), intervals in usage_intervals(load, repeat).items():
        if not intervals:
            continue
        watched_s = intervals[-1].until_s - intervals[0].from_s
        cpu_s = sum(interval.cores * (interval.until_s - interval.from_s) for interval in intervals)
        memory = [interval.usage.rss_bytes for interval in intervals]
        process = (role, name, Cell(f"{pid}", pid))
        rows.append(row(*process, cpu_s, cpu_s / watched_s, _mb(min(memory)), _mb(max(memory))))
    headings = ["role", "process", "pid", "CPU s", "cores", "least MB", "most MB"]
    caption = "CPU and resident memory, from first to last sample"
    return Table(f"usage-{repeat}", caption, headings, rows)


def _mb(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / 1e6


def _generators(load: LoadRun) -> Iterator[Table]:
    headings = ["repeat", "process", "answered", "due", "held back", "unfinished", "CPU s"]
    rows = []
    for (repeat, process), report in load.reports.items():
        counts = (report.calls, report.scheduled, report.held, report.unfinished)
        last = "came" if report.final else "is missing"
        void = "" if report.final else "the last report is missing"
        rows.append(row(repeat, process, *counts, report.cpu_ns / 1e9, last, void=void))
    yield Table("generator-table", "Calls of each process", [*headings, "last report"], rows)
    rows = []
    for number, each in load.repeats.items():
        stolen = "not readable" if each.steal is None else 100 * each.steal
        rows.append(row(number, each.seconds, 100 * each.busy, stolen))
    headings = ["repeat", "seconds", "busiest process, %", "stolen, %"]
    yield Table("repeat-table", "How busy the generator was", headings, rows)


# --- all kinds -------------------------------------------------------------------------------


def _origin(source: Source) -> Iterator[Section]:
    parts: list[Part] = [Paragraph(f"Started {source.started or 'at an unknown time'}.")]
    command = source.environment.get("command")
    if isinstance(command, list):
        parts.append(Commands([(shlex.join(str(word) for word in command), "")]))
    for title in ("config", "limits", "environment"):
        plain = source.document.get(title)
        if isinstance(plain, dict):
            table = plain_table(f"{title}-table", title.capitalize(), plain)
            # Locust's has all of its hundred options.
            is_long = title == "config" and source.kind == "locust"
            parts.append(replace(table, folded=is_long))
    yield Section("origin", "How and where it was measured", parts)


def _files(names: frozenset[str]) -> Section:
    links = [f"./{name}" for name in sorted(names - {PAGE})]
    return Section("files", "Files", [Links(links)])
