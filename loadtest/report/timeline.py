"""Latency over time, second by second, with what the processes used (no I/O)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from capnp_rig.loadtest.report.chart import (
    Axis,
    Heat,
    Line,
    LineChart,
    Mark,
    Panel,
    Point,
    log_panel,
)
from capnp_rig.loadtest.report.document import Part
from capnp_rig.loadtest.report.line_styles import PERCENTILES, look_of
from capnp_rig.loadtest.report.scrape_views import scrape_panels
from capnp_rig.loadtest.report.sources import Source
from capnp_rig.loadtest.report.spectrum import loop_text
from capnp_rig.loadtest.report.units import count_text, digits, plural, sentence, time_text
from capnp_rig.loadtest.results.load_samples import LoadRun
from capnp_rig.loadtest.results.load_series import Second, seconds_of, steal_share, usage_intervals
from capnp_rig.loadtest.stats.histogram import LOWEST_NS, Histogram, bucket_range_ns
from capnp_rig.loadtest.stats.run_summary import LIMITS
from capnp_rig.loadtest.stats.tally import Window
from capnp_rig.rigcli.gc_page import GcUse

_HEAT_PER_DECADE = 10
_RATE = "answered, in calls/s"
_ENDPOINT_RATE = "answered by each endpoint, in calls/s"


def time_parts(source: Source) -> Iterator[Part]:
    """Yield latency of a load run over time with what its processes used, repeat after repeat."""
    load = source.load
    assert load is not None
    offsets, offset_s = {}, 0.0
    for repeat, each in load.repeats.items():
        offsets[repeat] = offset_s
        offset_s += math.ceil(each.seconds)
    seconds = [
        (offsets[repeat], second)
        for repeat in load.repeats
        for second in seconds_of(load, repeat)
        if second.length_s
    ]
    if not any(second.window.answered for _, second in seconds):
        return
    clock = "response" if load.is_open_loop else "service"
    if len(load.repeats) > 1:
        yield _overlay(source, clock)
    marks = [Mark("x", offset, f"repeat {repeat}") for repeat, offset in offsets.items() if repeat]
    panels = [_latency_panel(seconds, clock, marks), _rate_panel(seconds)]
    outages = list(_outages(load, offsets))
    panels += _endpoint_panels(seconds, [mark for mark, _ in outages])
    panels += _usage_panels(load, offsets)
    panels += scrape_panels(load, offsets)
    yield LineChart(
        key=f"time-{source.slug}",
        title=loop_text(source, load.summary()),
        finding=_time_finding(seconds, clock)
        + "".join(f" {text}" for _, text in outages)
        + _gc_finding(load),
        x=Axis("seconds since the measurement began", low=0, high=offset_s),
        panels=panels,
    )


def _overlay(source: Source, clock: str) -> LineChart:
    """Return the repeats of a load run one over the other, a line each."""
    load = source.load
    assert load is not None
    panels: dict[str, list[Line]] = {}
    for number, repeat in enumerate(load.repeats):
        name = f"repeat {repeat}"
        points: dict[str, list[Point]] = {}
        for second in seconds_of(load, repeat):
            for title, value, text in _overlaid(second, clock):
                said = f"{name}, second {second.second}: {text}"
                point = Point(second.second + second.length_s / 2, value, text=said)
                points.setdefault(title, []).append(point)
        for title, those in points.items():
            line = Line(name, those, replace(look_of(name, {}, number), marker=""))
            panels.setdefault(title, []).append(line)
    return LineChart(
        key=f"repeats-{source.slug}",
        title=f"{len(load.repeats)} repeats, one over the other",
        finding=_overlay_finding(load),
        x=Axis("seconds since the repeat began", low=0),
        panels=[
            Panel(Axis(title, low=0), lines, weight=0.8)
            if title == _RATE
            else log_panel(title, lines, time_text)
            for title, lines in panels.items()
        ],
    )


def _overlaid(second: Second, clock: str) -> Iterator[tuple[str, float, str]]:
    """Yield what the overlay shows of a second: title, value and words."""
    if not second.length_s:
        return
    for name in ("p99", "p50"):
        value_ns = _times(second, clock).percentile_ns(float(name[1:]))
        if value_ns is not None and value_ns >= LOWEST_NS:
            yield f"{clock} time {name}", value_ns, f"{name} {time_text(value_ns)}"
    rate = second.calls_per_s or 0.0
    yield _RATE, rate, f"{count_text(rate)} calls/s"


def _overlay_finding(load: LoadRun) -> str:
    rates = [load.summary([repeat]).calls_per_s for repeat in load.repeats]
    said = f"the repeats answered {count_text(min(rates))} to {count_text(max(rates))} calls/s"
    return sentence(said)


def _times(second: Second, clock: str) -> Histogram:
    times: Histogram = getattr(second.clocks, clock)
    return times


def _latency_panel(
    seconds: Sequence[tuple[float, Second]], clock: str, marks: Sequence[Mark]
) -> Panel:
    lines = []
    for name in ("p50", "p99"):
        points = []
        for offset, second in seconds:
            value_ns = _times(second, clock).percentile_ns(float(name[1:]))
            if value_ns is not None and value_ns >= LOWEST_NS:
                at = offset + second.second + second.length_s / 2
                said = f"second {second.second}: {name} {time_text(value_ns)}"
                points.append(Point(at, value_ns, text=said))
        lines.append(Line(f"{clock} {name}", points, PERCENTILES[name]))
    heat = _heat(seconds, clock)
    return log_panel(f"{clock} time", lines, time_text, marks, heat=heat, weight=1.6)


def _rate_panel(seconds: Sequence[tuple[float, Second]]) -> Panel:
    points = [
        Point(
            offset + second.second + second.length_s / 2,
            second.calls_per_s or 0.0,
            text=f"second {second.second}: {count_text(second.calls_per_s)} calls/s",
        )
        for offset, second in seconds
    ]
    lines = _plain_lines({"answered": points})
    return Panel(Axis(_RATE, low=0), lines, weight=0.6)


def _endpoint_panels(
    seconds: Sequence[tuple[float, Second]], outages: Sequence[Mark]
) -> Iterator[Panel]:
    """Yield the rate and the connections of each of several endpoints, a line each."""
    names = dict.fromkeys(name for _, second in seconds for name in second.window.endpoints)
    rates: dict[str, list[Point]] = {name: [] for name in names}
    standing: dict[str, list[Point]] = {name: [] for name in names}
    for offset, second in seconds:
        at, middle_s = offset + second.second, second.length_s / 2
        for name in names:
            window = second.window.endpoints.get(name, Window())
            rate = window.answered / second.length_s
            text = f"{name}, second {second.second}: {count_text(rate)} calls/s"
            rates[name].append(Point(at + middle_s, rate, text=text))
            count = second.connections.get(name, 0)
            text = f"{name}, end of second {second.second}: {plural(count, 'connection')}"
            standing[name].append(Point(at + second.length_s, count, text=text))
    if names:
        yield Panel(Axis(_ENDPOINT_RATE, low=0), _plain_lines(rates), outages, weight=0.9)
        axis = Axis("connections of each endpoint", low=0)
        shades = [replace(mark, text="") for mark in outages]
        yield Panel(axis, _plain_lines(standing), shades, weight=0.5)


def _outages(load: LoadRun, offsets: Mapping[int, float]) -> Iterator[tuple[Mark, str]]:
    """Yield when endpoints were lost: where to shade, and a sentence."""
    for repeat, offset in offsets.items():
        length_s = load.repeats[repeat].seconds
        where = f" of repeat {repeat}" if len(offsets) > 1 else ""
        for each in load.summary([repeat]).endpoints:
            for outage in each.outages:
                until_s = length_s if outage.until_s is None else outage.until_s
                low, high = offset + outage.from_s, offset + until_s
                said = f"There was no connection to {each.endpoint} from second "
                said += f"{outage.from_s:.1f} to {until_s:.1f}{where}."
                yield Mark("x", low, f"{each.endpoint} lost", low, high), said


def _heat(seconds: Sequence[tuple[float, Second]], clock: str) -> Heat | None:
    """Return how the calls of each second are spread over times, as shares of them."""
    columns = [
        (offset + second.second, offset + second.second + second.length_s, _times(second, clock))
        for offset, second in seconds
    ]
    lows = [times.min_ns for _, _, times in columns if times.min_ns is not None]
    highs = [times.max_ns for _, _, times in columns if times.max_ns is not None]
    if not lows:
        return None
    first = math.floor(math.log10(max(min(lows), LOWEST_NS)) * _HEAT_PER_DECADE)
    last = math.ceil(math.log10(max(*highs, LOWEST_NS + 1)) * _HEAT_PER_DECADE)
    edges = [10 ** (step / _HEAT_PER_DECADE) for step in range(first, max(last, first + 1) + 1)]
    spread = [_spread(times, edges) for _, _, times in columns]
    return Heat(
        x_edges=[columns[0][0], *(end for _, end, _ in columns)],
        y_edges=edges,
        shares=[list(row) for row in zip(*spread, strict=True)],
    )


def _spread(times: Histogram, edges: Sequence[float]) -> list[float]:
    """Return the share of the values between each two edges, what lies outside in the last ones."""
    shares = [0.0] * (len(edges) - 1)
    if not times.count:
        return shares
    for bucket, count in times.counts.items():
        low, high = bucket_range_ns(bucket)
        at = math.log10((low + high) / 2 / edges[0]) * _HEAT_PER_DECADE
        shares[min(max(math.floor(at), 0), len(shares) - 1)] += count / times.count
    shares[0] += times.below / times.count
    shares[-1] += times.above / times.count
    return shares


def _usage_panels(load: LoadRun, offsets: Mapping[int, float]) -> list[Panel]:
    cores: dict[str, list[Point]] = {}
    memory: dict[str, list[Point]] = {}
    pauses: dict[str, list[Point]] = {}
    stolen: list[Point] = []
    for repeat, offset in offsets.items():
        for (role, name, _), intervals in usage_intervals(load, repeat).items():
            title = name if role in name else f"{role}: {name}"
            for each in intervals:
                if each.until_s < 0:
                    continue
                at = offset + max(each.until_s, 0.0)
                used, held = each.cores, each.usage.rss_bytes / 1e6
                said = f"{title}, {digits(used)} cores, {count_text(held)} MB"
                cores.setdefault(title, []).append(Point(at, used, text=said))
                memory.setdefault(title, []).append(Point(at, held, text=said))
                if each.gc is not None:
                    pause = _pause_point(at, title, each.gc)
                    pauses.setdefault(title, []).append(pause)
        stolen += [
            Point(offset + at_s, 100 * share, text=f"{digits(100 * share)} % stolen")
            for at_s, share in steal_share(load, repeat)
            if at_s >= 0
        ]
    panels = []
    for title, points in (("CPU, in cores", cores), ("resident memory, in MB", memory)):
        if points:
            panels.append(Panel(Axis(title, low=0), _plain_lines(points), weight=0.7))
    # A process that never collected would only add a line at 0.
    collecting = {title for title, those in pauses.items() if any(each.y for each in those)}
    if collecting:
        axis = Axis("garbage collection, in ms of pause per sample", low=0)
        # Each process has the colour that it has above.
        lines = [
            line
            for line in _plain_lines({title: pauses.get(title, []) for title in cores})
            if line.name in collecting
        ]
        panels.append(Panel(axis, lines, weight=0.6))
    if any(point.y > LIMITS["steal"] * 100 for point in stolen):
        lines = _plain_lines({"stolen by other machines": stolen})
        panels.append(Panel(Axis("stolen CPU time, in %", low=0), lines, weight=0.5))
    return panels


def _pause_point(at: float, title: str, gc: GcUse) -> Point:
    said = f"{title}: {plural(gc.count, 'collection')}, {time_text(gc.pause_ns)} in all"
    if gc.longest_ns:
        said += f", the longest so far {time_text(gc.longest_ns)}"
    return Point(at, gc.pause_ns / 1e6, text=said)


def _gc_finding(load: LoadRun) -> str:
    """Return what the collections took of each role, nothing where no process tells of them."""
    by_role: dict[str, list[GcUse]] = {}
    for repeat in load.repeats:
        for (role, _, _), intervals in usage_intervals(load, repeat).items():
            known = [item.gc for item in intervals if item.gc is not None and item.until_s > 0]
            if known:
                by_role.setdefault(role, []).extend(known)
    return "".join(f" {_gc_sentence(role, each)}" for role, each in by_role.items())


def _gc_sentence(role: str, uses: Sequence[GcUse]) -> str:
    count = sum(each.count for each in uses)
    if not count:
        return f"The {role} collected no garbage."
    pause = time_text(sum(each.pause_ns for each in uses))
    return f"The {role} collected garbage {count:,} times, and stood still for {pause}."


def _plain_lines(points: Mapping[str, Sequence[Point]]) -> list[Line]:
    lines = []
    for number, (name, those) in enumerate(points.items()):
        # The first two colours are those of the percentiles above.
        look = look_of(name, {}, number + 2)
        # With a dot for each sample nothing would be seen of the line.
        lines.append(Line(name, those, replace(look, marker="")))
    return lines


def _time_finding(seconds: Sequence[tuple[float, Second]], clock: str) -> str:
    tails = [
        (value_ns, second.second)
        for _, second in seconds
        if (value_ns := _times(second, clock).percentile_ns(99)) is not None
    ]
    best, worst = min(tails), max(tails)
    said = (
        f"the p99 of a second was between {time_text(best[0])} and {time_text(worst[0])}, "
        f"that in second {worst[1]}"
    )
    return sentence(said) + " The darker, the more of the second's calls took that long."
