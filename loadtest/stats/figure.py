"""A figure of a result: a number with its meaning, its verdict and the reasons of that (no I/O)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import Reason, text_of


class FigureKind(StrEnum):
    """What sort of number a figure is: its label ``kind``."""

    VALUE = "value"
    RATIO = "ratio"
    FLOOR = "A/A"
    TIME = "time"
    CROSSOVER = "crossover"
    BREAK_EVEN = "break-even"
    MEMORY = "memory"
    ALLOCATED = "allocated"
    SIZE = "size"
    IN_MEMORY = "in memory"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a result, with what it means and whether to trust it.

    `low` and `high` bound its 95 % interval, None without one. `n` is the number of
    processes, or of calls, behind it. `reasons` explain what is not plain. `labels` say in plain
    values what it is a figure of; older results have none.
    """

    name: str
    value: float | None
    unit: str
    contract: str
    n: int
    low: float | None = None
    high: float | None = None
    verdict: Verdict = Verdict.OK
    reasons: tuple[Reason, ...] = ()
    labels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> FigureKind:
        """What sort of number it is: a value where its labels do not say.

        Raises:
            ValueError: Its labels name an unknown kind.
        """
        return FigureKind(self.labels.get("kind", FigureKind.VALUE))

    @property
    def is_void(self) -> bool:
        """Whether nobody should trust it."""
        return self.verdict is Verdict.VOID

    @property
    def reason(self) -> str:
        """The reasons in words, empty where there are none."""
        return text_of(self.reasons)

    @property
    def void_text(self) -> str:
        """Why it is void, in words; empty where it is not."""
        return (self.reason or "no reason given") if self.is_void else ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values: ``reason`` in words, ``reason_codes`` for programs."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        del plain["reasons"], plain["labels"]
        return {
            **plain,
            "verdict": str(self.verdict),
            "reason": self.reason,
            "labels": dict(self.labels),
            "reason_codes": [reason.to_json() for reason in self.reasons],
        }
