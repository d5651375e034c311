"""The results in a folder, as a table and as plain values (no I/O)."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from capnp_rig.loadtest.report.cells import row
from capnp_rig.loadtest.report.document import Table, Tone
from capnp_rig.loadtest.report.units import NOTHING, count_text, us_text
from capnp_rig.loadtest.results.catalog import Entry

# What a reader of a benchmark wants to know; most figures are plain values.
_TOLD = frozenset({"faster", "slower", "same", "cannot tell", "void"})
_TONES = {
    "valid": Tone.GOOD,
    "ok": Tone.GOOD,
    "verified": Tone.GOOD,
    "failed": Tone.BAD,
    "void": Tone.QUIET,
}


def list_table(entries: Sequence[Entry]) -> Table:
    """Return a row per result."""
    headings = ["folder", "name", "kind", "started (UTC)", "commit", "figures", "verdict"]
    rows = [
        row(entry.folder.name, *[NOTHING] * 5, f"damaged: {entry.problem}", tone=Tone.BAD)
        if entry.problem
        else row(
            entry.folder.name,
            entry.name or NOTHING,
            entry.kind,
            entry.started[:19].replace("T", " "),
            entry.commit,
            _headline(entry),
            entry.verdict or NOTHING,
            tone=_TONES.get(entry.verdict, Tone.PLAIN),
        )
        for entry in entries
    ]
    return Table("results", "", headings, rows)


def _headline(entry: Entry) -> str:
    plain = dict(entry.headline)
    if "calls_per_s" in plain:
        errors = f", {count_text(plain['errors'])} failed" if plain["errors"] else ""
        times = ", ".join(f"{name} {us_text(plain[f'{name}_us'])}" for name in ("p50", "p99"))
        return f"{count_text(plain['calls_per_s'])} calls/s, {times}{errors}"
    if "highest_calls_per_s" in plain:
        return f"up to {count_text(plain['highest_calls_per_s'])} calls/s"
    if "rate_hz" in plain:
        return (
            f"{entry.objective}: {_rate(plain['rate_hz'])}, fails at {_rate(plain['failing_hz'])}"
        )
    told = {verdict: count for verdict, count in plain.items() if verdict in _TOLD} or plain
    return ", ".join(f"{count:,g} {verdict}" for verdict, count in told.items() if count)


def _rate(rate_hz: float | None) -> str:
    return NOTHING if rate_hz is None else f"{rate_hz:,g}/s"


def list_json(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return plain values, an object per result."""
    return [asdict(entry) | {"folder": str(entry.folder)} for entry in entries]
