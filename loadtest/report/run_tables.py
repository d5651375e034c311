"""What a load run or a search says on the terminal (no I/O)."""

from collections.abc import Iterator, Sequence

from capnp_rig.loadtest.report.cells import number_cell, row
from capnp_rig.loadtest.report.document import Paragraph, Part, Table, Tone
from capnp_rig.loadtest.stats.process_use import ProcessUse, workers_of
from capnp_rig.loadtest.stats.run_summary import PERCENTILES, Summary
from capnp_rig.loadtest.stats.slo import VERIFICATIONS, Answer, Slo


def summary_parts(summary: Summary, server: Sequence[ProcessUse]) -> Iterator[Part]:
    """Yield the times of a run, in µs, its counts, and its server's workers if there are two."""
    plain = summary.to_json()
    times = {name: plain[f"{name}_us"].values() for name in ("response", "service", "lateness")}
    yield Table(
        "times",
        "Times in µs",
        ["time", *(f"p{percent:g}" for percent in PERCENTILES), "max"],
        [
            row(name, *map(number_cell, values))
            for name, values in times.items()
            if any(value is not None for value in values)
        ],
    )
    failures = summary.failures.items()
    rows = [
        row("calls", summary.calls),
        row("calls/s", number_cell(summary.calls_per_s)),
        *(row(f"failed: {kind}", count, tone=Tone.BAD) for kind, count in failures),
        row("server CPU µs per call", number_cell(summary.server_cpu_us_per_call, 1)),
        row("verdict", summary.verdict),
    ]
    yield Table("counts", "", ["", ""], rows)
    workers = workers_of(server)
    if len(workers) > 1:
        yield _worker_table(workers)


def _worker_table(workers: Sequence[ProcessUse]) -> Table:
    total = sum(each.calls or 0 for each in workers)
    rows = [
        row(
            each.name,
            each.calls,
            None if each.calls is None or not total else f"{each.calls / total:.0%}",
            number_cell(each.cpu_s, 2),
            number_cell(each.cpu_us_per_call, 1),
            None if each.gc is None else f"{each.gc.count:,}, {each.gc.pause_ns / 1e6:.1f} ms",
        )
        for each in workers
    ]
    headings = ["worker", "calls", "share", "CPU s", "CPU µs per call", "GC pauses"]
    return Table("workers", "Workers", headings, rows)


def answer_notes(slo: Slo, answer: Answer) -> Iterator[Paragraph]:
    """Yield the answer of a search in words."""
    if answer.rate_hz is None:
        yield Paragraph(f"No rate was verified to keep {slo.text}.")
    else:
        kept = f"{answer.verified} of {VERIFICATIONS} verifications"
        yield Paragraph(f"{slo.text} holds up to {answer.rate_hz:,g} calls/s ({kept}).")
    if answer.failing_hz is None:
        yield Paragraph("That is the highest rate allowed: --highest.")
    else:
        said = f"It fails at {answer.failing_hz:,g} calls/s; the limit was the {answer.limit}."
        yield Paragraph(said)
