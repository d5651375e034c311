"""Nested plain values, as a configuration or an environment, in a flat table (no I/O)."""

from collections.abc import Iterator, Mapping
from typing import Any

from capnp_rig.loadtest.report.cells import row
from capnp_rig.loadtest.report.document import Table
from capnp_rig.loadtest.report.units import number_text


def plain_table(key: str, caption: str, plain: Mapping[str, Any]) -> Table:
    """Return a row per value."""
    rows = [row(name, plain_text(value)) for name, value in flat(plain)]
    return Table(key, caption, ["name", "value"], rows)


def flat(plain: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values that lie in no further mapping, by their names joined with dots."""
    for name, value in plain.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def plain_text(value: object) -> str:
    """Return a value as text; a list has commas, and nothing is "none"."""
    if isinstance(value, list):
        return ", ".join(map(plain_text, value)) or "none"
    if isinstance(value, float):
        return number_text(value)
    return "none" if value is None else str(value)
