"""What a figure is of: its labels, and for results without them what its name says (no I/O).

Every kind writes labels; results that were made before figures had any say it in their names
alone, and nothing else of the page reads a name. Each figure gets:

    bench                 kind, codec, message, contract, size_bytes, k, baseline, floor, method
    bench-server, -locust kind, load, subject, what, baseline, floor, case
    sweep                 kind, load, what, connections, in_flight, calls_in_flight
    bench-stacks          as it was written
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loadtest.results import Figure
from loadtest.stats.pair_statistics import Interval, noise_floor

_OLD_BENCH = re.compile(
    r"(?P<contract>[^,]+), (?P<size>[0-9]+) B, (?P<subject>[^,]+?)"
    r"(?P<gc>, GC on)?(?:, against (?P<baseline>.+))?"
)
_OVER = re.compile(r"(?P<load>[^:]+): (?P<subject>\S+) over (?P<baseline>\S+), (?P<what>.+)")
_SAME = re.compile(r"(?P<load>[^:]+): A/A, (?P<what>.+)")
_OF_LOAD = re.compile(r"(?P<load>[0-9]+ x [0-9]+): (?P<subject>\S+) (?P<what>.+)")
_IDLE = re.compile(r"(?P<subject>\S+): memory of (?P<count>[0-9,]+) idle connections")
_NUMBERS = (
    *("size_bytes", "k", "floor", "compress_ns", "payload_bytes", "connections", "in_flight"),
    "calls_in_flight",
)
_TEXTS = (
    *("codec", "subject", "message", "contract", "baseline", "method"),
    *("stack", "payload_kind", "loop", "figure", "load", "what", "case"),
)
_AGAIN = " again"
# Of the tutorial's message, the only one that older benchmarks timed.
_OLD_MESSAGE = "text"


def labelled(kind: str, document: Mapping[str, Any], figures: Sequence[Figure]) -> list[Figure]:
    """Return the figures of a document with their labels."""
    stored = [_checked(plain.get("labels") or {}) for plain in document["figures"]]
    found = [
        replace(figure, labels={**_from_name(kind, figure), **labels})
        for figure, labels in zip(figures, stored, strict=True)
    ]
    return list(_with_floors(found))


def _checked(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return labels as they were written.

    Raises:
        ValueError: One that is a number, 0 or more, is none here; or one that is a text.
    """
    for name in (*_NUMBERS, *_TEXTS):
        value = labels.get(name)
        if value is not None and not (_is_number(value) if name in _NUMBERS else _is_text(value)):
            raise ValueError(f"the label {name} is {value!r}")
    return dict(labels)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < math.inf


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _from_name(kind: str, figure: Figure) -> dict[str, Any]:
    if kind == "bench":
        return _of_bench(figure)
    if kind in {"bench-server", "bench-locust"}:
        return _of_pair(figure)
    return {}


def _of_bench(figure: Figure) -> dict[str, Any]:
    kind, _, rest = figure.name.partition(": ")
    found: dict[str, Any] = {"kind": kind}
    old = _OLD_BENCH.fullmatch(rest)
    if old is not None:
        subject = old["subject"]
        share = re.fullmatch(r"open\+read ([0-9]+)%", old["contract"])
        found |= {
            "codec": subject.removesuffix(_AGAIN),
            "subject": subject,
            "message": "" if old["contract"] == "floor" else _OLD_MESSAGE,
            "contract": old["contract"],
            "size_bytes": int(old["size"]),
            "k": int(share[1]) if share else 0 if old["contract"] == "open" else None,
            "gc": old["gc"] is not None,
        }
        if kind == "A/A":
            found["baseline"] = subject
        elif old["baseline"]:
            found["baseline"] = old["baseline"]
    return found


def _of_pair(figure: Figure) -> dict[str, Any]:
    for kind, pattern in (("ratio", _OVER), ("A/A", _SAME), ("value", _OF_LOAD)):
        found = pattern.fullmatch(figure.name)
        if found is not None:
            return {"kind": kind, **found.groupdict()}
    idle = _IDLE.fullmatch(figure.name)
    if idle is not None:
        return {"kind": "idle", **idle.groupdict()}
    if figure.name.startswith("in memory: "):
        return {"kind": "in memory", "case": figure.name.removeprefix("in memory: ")}
    return {}


def _with_floors(figures: Sequence[Figure]) -> Iterator[Figure]:
    """Yield the figures, each ratio with the floor of the A/A ratio beside it."""
    floors: dict[tuple[object, ...], float | None] = {}
    for figure in figures:
        if figure.labels.get("kind") == "A/A" and figure.value is not None:
            same = Interval(figure.value, figure.low, figure.high, figure.n)
            floors[_place(figure)] = noise_floor(same)
    for figure in figures:
        if figure.labels.get("kind") == "ratio" and figure.labels.get("floor") is None:
            labels = {**figure.labels, "floor": floors.get(_place(figure))}
            yield replace(figure, labels=labels)
        else:
            yield figure


def _place(figure: Figure) -> tuple[object, ...]:
    """Return what a ratio and its A/A ratio have in common."""
    names = ("message", "contract", "size_bytes", "load", "what")
    baseline = figure.labels.get("baseline") if figure.labels.get("contract") else None
    return (*(figure.labels.get(name) for name in names), baseline)
