"""What is on the page, in which order, of the results that there are (no I/O).

Each section takes what it needs from the kinds of results that have it. Where there is none, the
section is absent, and a line at the end says which command makes it.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from capnp_rig.loadtest.report.ab_blocks import ab_parts
from capnp_rig.loadtest.report.answers import answers
from capnp_rig.loadtest.report.call_cpu import cpu_parts
from capnp_rig.loadtest.report.cells import flat, plain_text, row
from capnp_rig.loadtest.report.chart import Chart
from capnp_rig.loadtest.report.client_parts import client_parts, course_parts
from capnp_rig.loadtest.report.codec_ratios import loss_parts
from capnp_rig.loadtest.report.codec_sweeps import share_parts, size_parts
from capnp_rig.loadtest.report.codec_view import CodecView
from capnp_rig.loadtest.report.codec_weights import copy_parts, encoded_parts
from capnp_rig.loadtest.report.distribution import distribution_parts
from capnp_rig.loadtest.report.document import (
    Commands,
    Document,
    Links,
    Notes,
    Paragraph,
    Part,
    Section,
    Table,
)
from capnp_rig.loadtest.report.end_to_end import end_to_end_parts
from capnp_rig.loadtest.report.figures import figure_table, voids_alike
from capnp_rig.loadtest.report.flight_curve import flight_parts
from capnp_rig.loadtest.report.rate_curve import search_parts
from capnp_rig.loadtest.report.sources import Source, SourceSet
from capnp_rig.loadtest.report.spectrum import spectrum_parts
from capnp_rig.loadtest.report.stack_ladder import ladder_parts
from capnp_rig.loadtest.report.subject_tables import peer_parts, server_parts
from capnp_rig.loadtest.report.timeline import time_parts
from capnp_rig.loadtest.report.units import size_text
from capnp_rig.loadtest.results import ResultError, run_file, sample_files
from capnp_rig.loadtest.results.load_samples import damage
from capnp_rig.loadtest.stats.figure import Figure

TITLE = "capnp-rig: what was measured"
# The newest of each kind comes in this order, in tables and commands.
KINDS: Mapping[str, str] = {
    "bench": "loadtest bench",
    "bench-server": "loadtest bench-server",
    "bench-peers": "loadtest bench-peers",
    "bench-servers": "loadtest bench-servers NAME='COMMAND with {addr}' ...",
    "bench-clients": "loadtest bench-clients",
    "bench-stacks": "loadtest bench-stacks",
    "bench-locust": "loadtest bench-locust",
    "search": "loadtest search ADDR --slo 'p99<2ms'",
    "sweep": "loadtest sweep ADDR",
    "ab": "loadtest compare --a COMMAND --b COMMAND",
    "run": "loadtest run ADDR --rate 20000",
    "locust": "locust -f loadtest/capnp_user.py -H ADDR --headless -t 30s --results results",
    "demo": "loadtest demo",
}
_LOADS = ("run", "locust")
# What is left of zero-copy from memory to RPC: the picture that the page opens with.
_PICTURE = "trip-gain"
# So many reasons why figures are void are named.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class _Plan:
    """A section: what makes its parts of one source, and of which kinds of sources."""

    key: str
    title: str
    kinds: Sequence[str]
    parts: Callable[[Source], Iterator[Part]]
    intro: str = ""


def _codecs(
    parts: Callable[[CodecView], Iterator[Part]],
) -> Callable[[Source], Iterator[Part]]:
    return lambda source: parts(CodecView(source.figures))


def _tables(source: Source, parts: Callable[[Sequence[Figure]], Iterator[Part]]) -> Iterator[Part]:
    """Yield some tables of a benchmark, and all its figures."""
    yield from parts(source.figures)
    caption = f"All figures of {source.kind}"
    yield figure_table(f"figures-{source.kind}", caption, source.figures, folded=True)


_PLANS = (
    _Plan(
        "size",
        "Time by the size of the message",
        ("bench",),
        _codecs(size_parts),
        "Each line is a codec; press its name to show or hide it. Both axes are logarithmic: a "
        "codec that copies rises with the size, one that does not stays level. memcpy is the "
        "time to copy as many bytes, below which no copying codec can fall. orjson asks for a "
        "multiple of the message's length at once: from about 2 MiB on that is fresh memory of the "
        "kernel in each call, and its times jump.",
    ),
    _Plan(
        "share",
        "Time by how much of the message is read",
        ("bench",),
        _codecs(share_parts),
        "A copying codec decodes all of a message, however little of it is wanted.",
    ),
    _Plan(
        "copies",
        "Copies and memory",
        ("bench",),
        lambda source: copy_parts(CodecView(source.figures), source.document),
    ),
    _Plan(
        "spectrum",
        "Latency by percentile",
        _LOADS,
        spectrum_parts,
        "The further right, the rarer: each tick has ten times fewer calls beyond it.",
    ),
    _Plan("distribution", "Distribution of times", _LOADS, distribution_parts),
    _Plan("rate", "Latency against the rate", ("search",), search_parts),
    _Plan("flight", "Rate against calls in flight", ("sweep",), flight_parts),
    _Plan("time", "Latency, CPU and memory over time", _LOADS, time_parts),
    _Plan(
        "ab",
        "Two servers by turns",
        ("ab",),
        ab_parts,
        "In each block, fresh processes of both took turns under one generator.",
    ),
    _Plan("cpu", "CPU per call", ("bench-server", "bench-locust", "run"), cpu_parts),
    _Plan(
        "peers",
        "By the layout of the peer",
        ("bench-peers",),
        lambda source: _tables(source, peer_parts),
        "What other implementations send, in memory, to the server, and as replies to the "
        "generator. `canned answers` is a server that decodes nothing.",
    ),
    _Plan(
        "servers",
        "Servers of one schema",
        ("bench-servers",),
        lambda source: _tables(source, server_parts),
        "In each round, fresh processes of all servers took turns under one generator.",
    ),
    _Plan(
        "clients",
        "Clients of servers that fail",
        ("bench-clients",),
        lambda source: chain(course_parts(source), _tables(source, client_parts)),
        "Three servers under an open loop: one gets slow, one resets its connections at random, "
        "one is killed and comes back.",
    ),
    _Plan(
        "ladder",
        "The ladder of stacks",
        ("bench-stacks",),
        lambda source: ladder_parts(source.figures, source.document),
        "The same service over each layer, from a bare socket up to RPC frameworks, on one CPU; "
        "an echo, which reverses nothing, is the floor.",
    ),
    _Plan(
        "end-to-end",
        "What the codec leaves of a call",
        ("bench", "bench-server"),
        end_to_end_parts,
    ),
    _Plan("encoded", "Encoded sizes", ("bench",), _codecs(encoded_parts)),
    _Plan("losses", "Where copying wins", ("bench",), _codecs(loss_parts)),
)


def document_of(results: SourceSet, path_to: Callable[[Source], str]) -> Document:
    """Return the document of some results; `path_to` tells where a result lies from the page."""
    kinds = [*KINDS, *sorted({source.kind for source in results.sources} - KINDS.keys())]
    sources = [source for kind in kinds for source in results.all_of(kind)]
    sections, absent = [], []
    for plan in _PLANS:
        parts = [
            part
            for kind in plan.kinds
            for each in results.all_of(kind)
            for part in plan.parts(each)
        ]
        if not parts:
            absent.append(plan)
            continue
        intro = [Paragraph(plan.intro)] if plan.intro else []
        sections.append(Section(plan.key, plan.title, [*intro, *parts]))
    opening = _opening(sources, sections)
    sections += _surroundings(sources, path_to)
    if absent:
        sections.append(_absent(absent))
    flags = [*_void_flags(sources), *_unlike(sources)]
    notes = [
        Notes("Void, or to be read with care", flags, "flags"),
        Notes("Measured on", _machines(sources), "machine"),
    ]
    nothing = Paragraph("Nothing was measured that could be judged.", quiet=True)
    verdict = [*(opening or [nothing]), *(note for note in notes if note.texts)]
    return Document(TITLE, sections, verdict)


def usable(results: SourceSet) -> SourceSet:
    """Return those results of which all can be shown, the others named.

    A file may be well-formed, and yet lack what a section needs.
    """
    sources, skipped = [], list(results.skipped)
    for source in results.sources:
        try:
            with damage(str(source.folder / "run.json")):
                document_of(SourceSet([source]), lambda each: each.name)
        except ResultError as error:
            skipped.append(f"{source.folder} is skipped: {error}")
        else:
            sources.append(source)
    return SourceSet(sources, skipped)


def _opening(sources: Sequence[Source], sections: list[Section]) -> list[Part]:
    """Return the answers and one picture, which is taken out of its section."""
    lines = answers(sources)
    opening: list[Part] = [] if lines is None else [lines]
    charts = [part for each in sections for part in each.parts if isinstance(part, Chart)]
    picture = next((item for item in charts if item.key == _PICTURE), next(iter(charts), None))
    if picture is not None:
        opening.append(picture)
        for at, each in enumerate(sections):
            rest = [part for part in each.parts if part is not picture]
            sections[at] = replace(each, parts=rest)
    return opening


def _absent(plans: Sequence[_Plan]) -> Section:
    lines = [
        Paragraph(f"{plan.title}: {' or '.join(KINDS[kind] for kind in plan.kinds)}", quiet=True)
        for plan in plans
    ]
    return Section("absent", "Not measured here", [Paragraph("These commands do:"), *lines])


# --- where it was measured -------------------------------------------------------------------


def _machines(sources: Sequence[Source]) -> list[str]:
    """Return the machines, each with the results that come from it."""
    by_machine: dict[str, list[str]] = {}
    for source in sources:
        by_machine.setdefault(_machine(source.environment), []).append(_dated(source))
    if len(by_machine) == 1:
        return list(by_machine)
    return [f"{machine}: {', '.join(names)}" for machine, names in by_machine.items()]


def _dated(source: Source) -> str:
    return f"{source.kind} of {source.started[:10] or 'unknown date'}"


def _machine(environment: Mapping[str, Any]) -> str:
    machine = environment.get("machine")
    machine = machine if isinstance(machine, dict) else {}
    memory = machine.get("memory_bytes")
    parts = [
        str(machine.get("cpu_model", "unknown CPU")),
        f"{machine.get('cpus', '?')} CPUs",
        size_text(memory) if isinstance(memory, int) else "",
        str(environment.get("platform", "")),
        f"{environment.get('implementation', 'Python')} {environment.get('python', '')}",
    ]
    commit = str(environment.get("commit", "unknown"))
    dirty = " with uncommitted changes" if environment.get("dirty") is True else ""
    return f"{', '.join(filter(None, parts))}; commit {commit}{dirty}"


def _void_flags(sources: Sequence[Source]) -> Iterator[str]:
    """Yield how many figures of each source are void, with the most common reasons."""
    for source in sources:
        common = voids_alike(source.figures)
        told = "; ".join(f"{texts[0]} ({len(texts):,})" for texts in common[:_NAMED])
        more = f"; and {len(common) - _NAMED} more reasons" if len(common) > _NAMED else ""
        if common:
            count = sum(figure.is_void for figure in source.figures)
            share = f"{count:,} of {len(source.figures):,} figures are void"
            yield f"{source.kind}: {share}: {told}{more}"


def _unlike(sources: Sequence[Source]) -> list[str]:
    machines = {_machine(source.environment) for source in sources}
    if len(machines) < 2:
        return []
    text = (
        f"These results come from {len(machines)} machines or commits. Every ratio is taken within "
        "one result; times of different results are not to be compared."
    )
    return [text]


def _surroundings(sources: Sequence[Source], path_to: Callable[[Source], str]) -> list[Section]:
    commands = [
        (_command(source), f"{source.kind}, {source.started[:19].replace('T', ' ')} UTC")
        for source in sources
    ]
    page = ("loadtest report", "This page, from the newest result of each kind")
    links = [f"{path_to(source)}/{name}" for source in sources for name in _files(source)]
    return [
        Section("environment", "Environment", [_environment_table(sources)]),
        Section("reproduce", "Reproduce", [Commands([*commands, page])]),
        Section("data", "Raw data", [Paragraph("All of the above is made of:"), Links(links)]),
    ]


def _command(source: Source) -> str:
    command = source.environment.get("command")
    if isinstance(command, list) and command:
        return shlex.join(str(word) for word in command)
    return KINDS.get(source.kind, source.kind)


def _files(source: Source) -> list[str]:
    folder = source.folder
    made_of = [run_file(folder), *sample_files(folder), folder / "report.html"]
    return [file.name for file in made_of if file.name in source.files]


def _environment_table(sources: Sequence[Source]) -> Table:
    """Return each fact once per value, with the results that it holds for."""
    facts: dict[str, dict[str, list[str]]] = {}
    for source in sources:
        for name, value in flat(source.environment):
            if name != "command":
                holders = facts.setdefault(name, {}).setdefault(plain_text(value), [])
                holders.append(source.kind)
    rows = [
        row(
            name,
            value,
            "all" if len(holders) == len(sources) else ", ".join(dict.fromkeys(holders)),
        )
        for name, values in facts.items()
        for value, holders in values.items()
    ]
    return Table("environment-table", "Where and with what", ["fact", "value", "of"], rows)
