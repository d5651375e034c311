"""The figures of a comparison of stacks, in the order in which they are looked for (no I/O)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from capnp_rig.loadtest.report.units import size_text
from capnp_rig.loadtest.results import Figure

CALLS, CPU = "calls_per_s", "cpu_us_per_call"
RATIO_CALLS, RATIO_CPU = "ratio_calls_per_s", "ratio_cpu"
PERCENTILES = ("p50", "p99", "p99.9")
CLOSED, OPEN = "closed", "open"
# It reverses nothing: a floor, and no rival.
FLOOR_STACK = "echo"


@dataclass(frozen=True, slots=True, order=True)
class Payload:
    """What is sent: a kind, empty where it is not known, and a size."""

    kind: str
    size_bytes: float

    @property
    def text(self) -> str:
        """Its size and kind in words."""
        return f"{size_text(self.size_bytes)} {self.kind}".strip()


def payload_of(figure: Figure) -> Payload:
    """Return the payload of a figure."""
    labels = figure.labels
    return Payload(str(labels.get("payload_kind") or ""), labels.get("payload_bytes") or 0)


def payloads_of(figures: Iterable[Figure]) -> list[Payload]:
    """Return each payload once: texts first, the smallest first."""
    grouped = {payload_of(figure) for figure in figures}
    return sorted(grouped, key=lambda figure: (figure.kind != "text", figure))


def stack_of(figure: Figure) -> str:
    """Return the stack of a figure."""
    return str(figure.labels.get("stack", ""))


def row_text(stack: str) -> str:
    """Return a stack as a row names it."""
    return f"{stack} (floor)" if stack == FLOOR_STACK else stack


def select(figures: Iterable[Figure], figure: str, loop: str = CLOSED) -> Sequence[Figure]:
    """Return one sort of figures in one loop, those with a value that a log axis can show."""
    return [
        each
        for each in figures
        if each.labels.get("figure") == figure
        and each.labels.get("stack")
        and each.labels.get("loop", CLOSED) == loop
        and each.value is not None
        and each.value > 0
    ]
