"""What a figure is of: its labels, checked (no I/O).

Nothing else of the page reads a figure's name. Each has:

    bench                 kind, codec, message, contract, size_bytes, k, baseline, floor, method
    bench-server, -locust kind, load, subject, what, baseline, floor, case
    sweep                 kind, load, what, connections, in_flight, calls_in_flight
    bench-stacks          stack, payload_kind, payload_bytes, loop, figure, ...
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from capnp_rig.loadtest.results import Figure

_NUMBERS = (
    *("size_bytes", "k", "floor", "compress_ns", "payload_bytes", "connections", "in_flight"),
    "calls_in_flight",
)
_TEXTS = (
    *("codec", "subject", "message", "contract", "baseline", "method"),
    *("stack", "payload_kind", "loop", "figure", "load", "what", "case"),
)


def labelled(kind: str, document: Mapping[str, Any], figures: Sequence[Figure]) -> list[Figure]:
    """Return the figures of a document with their labels.

    Raises:
        ValueError: A label is of another type than it has to be.
    """
    stored = [_checked(plain.get("labels") or {}) for plain in document["figures"]]
    return [
        replace(figure, labels={**_kind(kind, figure), **labels})
        for figure, labels in zip(figures, stored, strict=True)
    ]


def _kind(kind: str, figure: Figure) -> dict[str, str]:
    # A bench says it in front of the name.
    return {"kind": figure.name.partition(": ")[0]} if kind == "bench" else {}


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
