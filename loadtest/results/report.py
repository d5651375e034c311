"""``report.html``: a result as one plain page that needs nothing but itself.

What a load run shows is computed anew from its samples; of ``run.json`` come only what was asked
for, where it ran, what was observed from outside, and how it was judged. Where that file
says other numbers than the samples, the page says so.
"""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from capnp_rig.loadtest.results import Figure, ResultError
from capnp_rig.loadtest.results.html_page import (
    Cells,
    Html,
    element,
    joined,
    line_chart,
    page,
    table,
)
from capnp_rig.loadtest.results.load_samples import (
    LoadRun,
    Result,
    read_figures,
    read_result,
    stored_verdict,
)
from capnp_rig.loadtest.results.load_series import (
    Second,
    seconds_of,
    steal_share,
    usage_by_second,
    usage_intervals,
)
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.run_summary import LIMITS, Summary, figures
from capnp_rig.loadtest.stats.tally import WARMUP, Clocks

PAGE = "report.html"
PERCENTS = (50.0, 90.0, 99.0, 99.9, 99.99)
_NEAR = 1e-9


def write_report(folder: Path, result: Result | None = None) -> Path:
    """Write ``report.html`` into a result's folder, and return its path.

    Without `result` the folder is read.

    Raises:
        OSError: A file cannot be read or written.
        ResultError: The folder holds no result, or a damaged one.
    """
    text = render(folder, result)
    file = folder / PAGE
    file.write_text(text, encoding="utf-8")
    return file


def render(folder: Path, result: Result | None = None) -> str:
    """Return the page of a result that lies in a folder; without `result` the folder is read.

    Raises:
        OSError: A file cannot be read.
        ResultError: The folder holds no result, or a damaged one.
    """
    result = result or read_result(folder)
    files = sorted(each.name for each in folder.iterdir() if each.name != PAGE)
    title = f"loadtest {result.kind}, {folder.resolve().name}"
    try:
        return page(title, _sections(result, files))
    except ResultError as error:
        raise ResultError(f"{folder}: {error}") from error


def _sections(result: Result, files: Sequence[str]) -> Iterator[Html]:
    document = result.document
    yield from _asked(document)
    if result.is_load:
        yield from _load_sections(document, result.load)
    else:
        found = read_figures(document)
        yield _bench_verdict(found)
        yield _figures(found)
    yield from _surroundings(document)
    yield from _files(files)


def _asked(document: Mapping[str, Any]) -> Iterator[Html]:
    yield element("p", f"Started {document.get('started', 'at an unknown time')}.")
    command = document["environment"].get("command")
    if isinstance(command, list):
        yield element("p", element("code", shlex.join(str(word) for word in command)))


# --- load runs -------------------------------------------------------------------------------


def _load_sections(document: Mapping[str, Any], load: LoadRun) -> Iterator[Html]:
    summary = load.summary()
    found, stored = figures(summary), read_figures(document)
    yield _verdict(document, summary, disagreements(document, stored, summary, found))
    yield _figures(_as_judged(found, stored))
    yield _percentile_table(summary)
    yield from _counts(summary)
    for repeat in load.repeats:
        yield from _repeat(load, repeat)
    yield _generators(load)


def _as_judged(found: Sequence[Figure], stored: Sequence[Figure]) -> list[Figure]:
    """Return the figures that were found, with the verdicts of those that were stored.

    The numbers are those of the samples; what to think of them is for whoever ran it to say.
    """
    judged = {figure.name: figure for figure in stored}
    return [
        replace(
            figure,
            verdict=judged.get(figure.name, figure).verdict,
            reasons=judged.get(figure.name, figure).reasons,
        )
        for figure in found
    ]


def disagreements(
    document: Mapping[str, Any], stored: Sequence[Figure], summary: Summary, found: Sequence[Figure]
) -> list[str]:
    """Return which numbers of ``run.json`` are not what its samples say.

    `stored` are the figures of the document, `summary` and `found` those that the samples make.
    """
    # Under Locust, reasons come from what only Locust knows, too.
    skipped = {"verdict", "reasons", "reason_codes"} if document["kind"] == "locust" else set()
    old = {**_flat(document.get("summary", {})), **_numbers(stored)}
    new = {**_flat(summary.to_json()), **_numbers(found)}
    return [
        f"{name}: run.json says {_plain(value)}, the samples {_plain(new[name])}"
        for name, value in old.items()
        if name in new and name not in skipped and not _alike(value, new[name])
    ]


def _numbers(found: Sequence[Figure]) -> dict[str, Any]:
    return {
        f"{figure.name}, {name}": getattr(figure, name)
        for figure in found
        for name in ("value", "low", "high", "n")
    }


def _flat(plain: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in plain.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = value
    return found


def _alike(old: object, new: object) -> bool:
    if isinstance(old, int | float) and isinstance(new, int | float):
        return abs(old - new) <= _NEAR * max(abs(old), abs(new))
    return old == new


def _verdict(document: Mapping[str, Any], summary: Summary, apart: Sequence[str]) -> Html:
    verdict, reasons = stored_verdict(document) or (summary.verdict, summary.reasons)
    violations = document.get("violations")
    loop = "open loop: times count from when calls were due"
    if not summary.is_open_loop:
        loop = "closed loop: users wait for replies, so times are service times"
    lines = [
        element("p", element("strong", verdict), f" ({loop})"),
        _list([reason.text for reason in reasons]),
        _list([f"failed: {text}" for text in violations] if isinstance(violations, list) else []),
    ]
    if apart:
        said = "run.json does not agree with the samples, of which this page is made:"
        lines += [element("p", element("strong", said)), _list(apart)]
    bad = verdict != "valid" or bool(apart)
    return element("section", *lines, class_="box bad" if bad else "box", id="verdict")


def _list(texts: Sequence[str]) -> Html:
    return element("ul", *(element("li", text) for text in texts)) if texts else Html("")


def _percentile_table(summary: Summary) -> Html:
    clocks = {"service": summary.service}
    if summary.is_open_loop:
        clocks = {name: getattr(summary, name) for name in ("response", "service", "lateness")}
    rows = [_percentile_cells(name, "all", times) for name, times in clocks.items()]
    for label, times in sorted(summary.labels.items()):
        of_label = Clocks.of(times, is_open_loop=summary.is_open_loop)
        rows += [_percentile_cells(name, label, getattr(of_label, name)) for name in clocks]
        if times.failed.count:
            rows.append(_percentile_cells("failed", label, times.failed))
    named = [f"p{percent:g}" for percent in PERCENTS]
    least = f"{LIMITS['least_beyond']:g}"
    return _section(
        "Times",
        table(
            ["clock", "label", "calls", "mean", *named, "max"],
            rows,
            caption=f"µs; a percentile with under {least} calls beyond it is grey",
        ),
    )


def _percentile_cells(clock: str, label: str, times: Histogram) -> Cells:
    found = [us_shown(times.percentile_ns(percent)) for percent in PERCENTS]
    first = 4
    doubted = [
        first + at
        for at, percent in enumerate(PERCENTS)
        if times.beyond(percent) < LIMITS["least_beyond"]
    ]
    mean_ns = times.mean_ns
    return Cells(
        [clock, label, f"{times.count:,}", us_shown(mean_ns), *found, us_shown(times.max_ns)],
        doubted=frozenset(doubted),
    )


def us_shown(value_ns: float | None) -> str:
    """Return a time in µs as the page shows it, ``-`` for None."""
    return shown(None if value_ns is None else value_ns / 1000)


def shown(value: float | None) -> str:
    """Return a number as the page shows it: whole from 1,000 on, else with four digits or less."""
    if value is None:
        return "-"
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}"


def _counts(summary: Summary) -> Iterator[Html]:
    rows = [Cells([kind, f"{count:,}"]) for kind, count in sorted(summary.failures.items())]
    if rows:
        yield _section("Failures", table(["kind", "calls"], rows))
    else:
        yield _section("Failures", element("p", "No call failed."))
    rows = [
        Cells(
            [name, f"{times.count:,}", *(us_shown(times.percentile_ns(at)) for at in (50, 99, 100))]
        )
        for name, times in (("first", summary.connects), ("after a loss", summary.reconnects))
    ]
    headings = ["connections", "made", "p50", "p99", "max"]
    yield _section("Connections", table(headings, rows, caption="Time to connect, in µs"))


def _repeat(load: LoadRun, repeat: int) -> Iterator[Html]:
    seconds = seconds_of(load, repeat)
    title = "Over time" if len(load.repeats) == 1 else f"Repeat {repeat} over time"
    inside = [second for second in seconds if second.length_s]
    rates = [(float(second.second), second.calls_per_s or 0.0) for second in inside]
    content = [line_chart("Throughput", "calls/s", [("answered", rates)])]
    content.append(
        line_chart(
            "Response times" if load.is_open_loop else "Service times",
            "µs",
            [(f"p{percent:g}", _line(inside, percent)) for percent in (50.0, 99.0)],
        )
    )
    content.append(_second_table(load, seconds))
    content += _usage(load, repeat)
    yield _section(title, *content)


def _line(seconds: Sequence[Second], percent: float) -> list[tuple[float, float]]:
    found = [(second.second, second.clocks.response.percentile_ns(percent)) for second in seconds]
    return [(float(second), value_ns / 1000) for second, value_ns in found if value_ns is not None]


def _second_table(load: LoadRun, seconds: Sequence[Second]) -> Html:
    clocks = ("response", "service") if load.is_open_loop else ("service",)
    percents = (50.0, 99.0, 99.9)
    headings = ["second", "answered", "calls/s", "failed"]
    headings += [f"{clock} p{percent:g}" for clock in clocks for percent in percents]
    rows = []
    for second in seconds:
        name = "warm-up" if second.second == WARMUP else f"{second.second}"
        if not second.length_s and second.second != WARMUP:
            name += ", after the end"
        window = second.window
        cells = [name, f"{window.answered:,}", shown(second.calls_per_s), f"{window.failed:,}"]
        cells += [
            us_shown(getattr(second.clocks, clock).percentile_ns(percent))
            for clock in clocks
            for percent in percents
        ]
        rows.append(Cells(cells, is_void=not second.length_s))
    return _folded("Every second", table(headings, rows, caption="Times in µs"))


def _usage(load: LoadRun, repeat: int) -> Iterator[Html]:
    by_process = usage_by_second(load, repeat)
    if not by_process:
        yield element("p", "What the processes used was not sampled.")
        return
    yield _usage_table(load, repeat)
    stolen = {int(at_s): share for at_s, share in steal_share(load, repeat)}
    headings = ["second"]
    for role, name, pid in by_process:
        headings += [f"{role} {name} ({pid}), cores", "MB"]
    rows = []
    for second in sorted({second for used in by_process.values() for second in used}):
        cells = [f"{second}"]
        for each in by_process.values():
            used = each.get(second)
            cells.append(shown(None if used is None else used.cores))
            cells.append(_mb(None if used is None else used.rss_bytes))
        share = stolen.get(second)
        rows.append(Cells([*cells, shown(None if share is None else 100 * share)]))
    caption = "CPU in cores, resident memory in MB, CPU time stolen by other machines in %"
    yield _folded(
        "Use of CPU and memory, every second",
        table([*headings, "stolen %"], rows, caption=caption),
    )


def _usage_table(load: LoadRun, repeat: int) -> Html:
    rows = []
    for (role, name, pid), intervals in usage_intervals(load, repeat).items():
        if not intervals:
            continue
        watched_s = intervals[-1].until_s - intervals[0].from_s
        cpu_s = sum(one.cores * (one.until_s - one.from_s) for one in intervals)
        memory = [one.usage.rss_bytes for one in intervals]
        used = [shown(cpu_s), shown(cpu_s / watched_s), _mb(min(memory)), _mb(max(memory))]
        rows.append(Cells([role, name, f"{pid}", *used]))
    headings = ["role", "process", "pid", "CPU s", "cores", "least MB", "most MB"]
    return table(headings, rows, caption="CPU and resident memory, from first to last sample")


def _mb(size_bytes: int | None) -> str:
    return shown(None if size_bytes is None else size_bytes / 1e6)


def _generators(load: LoadRun) -> Html:
    rows = []
    for (repeat, process), report in load.reports.items():
        due = "-" if report.scheduled is None else f"{report.scheduled:,}"
        counts = [f"{report.calls:,}", due, f"{report.held:,}", f"{report.unfinished:,}"]
        last = "came" if report.final else "is missing"
        cells = [f"{repeat}", f"{process}", *counts, shown(report.cpu_ns / 1e9), last]
        rows.append(Cells(cells, is_void=not report.final))
    headings = ["repeat", "process", "answered", "due", "held back", "unfinished", "CPU s"]
    busy = [
        Cells([f"{number}", shown(each.seconds), shown(100 * each.busy), *_observed(each.steal)])
        for number, each in load.repeats.items()
    ]
    return _section(
        "Generators",
        table([*headings, "last report"], rows),
        table(["repeat", "seconds", "busiest process, %", "stolen, %"], busy),
    )


def _observed(steal: float | None) -> list[str]:
    return ["not readable" if steal is None else shown(100 * steal)]


# --- all kinds -------------------------------------------------------------------------------


def _bench_verdict(found: Sequence[Figure]) -> Html:
    counts = Counter(figure.verdict for figure in found)
    text = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    said = f"{len(found)} figures: {text}" if found else "No figures."
    kind = "box bad" if counts[Verdict.VOID] else "box"
    return element("section", element("p", said), class_=kind, id="verdict")


def _figures(found: Sequence[Figure]) -> Html:
    rows = []
    for figure in found:
        interval = ""
        if figure.low is not None and figure.high is not None:
            interval = f"{shown(figure.low)} to {shown(figure.high)}"
        value, n = shown(figure.value), f"{figure.n:,}"
        cells = [figure.name, value, figure.unit, figure.contract, interval, n]
        rows.append(Cells([*cells, figure.verdict, figure.reason], figure.verdict == "void"))
    headings = ["figure", "value", "unit", "contract", "95 % interval", "n", "verdict", "reason"]
    return _section("Figures", table(headings, rows))


def _surroundings(document: Mapping[str, Any]) -> Iterator[Html]:
    for title in ("config", "limits", "environment"):
        plain = document.get(title)
        if isinstance(plain, dict):
            rows = [Cells([name, _plain(value)]) for name, value in _flat(plain).items()]
            yield _section(title.capitalize(), table(["name", "value"], rows))


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(each) for each in value) or "none"
    return "none" if value is None else str(value)


def _files(names: Sequence[str]) -> Iterator[Html]:
    links = [element("li", element("a", name, href=f"./{quote(name)}")) for name in names]
    yield _section("Files", element("ul", *links))


def _section(title: str, *content: str) -> Html:
    return element("section", element("h2", title), joined(content))


def _folded(title: str, content: Html) -> Html:
    return element("details", element("summary", title), content)
