"""One number of a result, and whether to trust it (no I/O)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a result, with what it means and whether to trust it.

    `low` and `high` bound its 95 % interval, None without one. `n` is the number of
    processes, or of calls, behind it. `verdict` is ``ok``, ``void``, ``at least`` or, for a
    ratio, what it says; `reason` explains what is not plain. `labels` say in plain values what
    it is a figure of; older results have none.
    """

    name: str
    value: float | None
    unit: str
    contract: str
    n: int
    low: float | None = None
    high: float | None = None
    verdict: str = "ok"
    reason: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)
