"""The figures of a codec benchmark, in the order in which they are looked for (no I/O)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from capnp_rig.loadtest.report.line_styles import CODECS
from capnp_rig.loadtest.report.units import size_text
from capnp_rig.loadtest.stats.contracts import Contract
from capnp_rig.loadtest.stats.figure import Figure, FigureKind
from capnp_rig.loadtest.stats.messages import AGAIN, RECORD_BYTES, Message

# What is shown as Cap'n Proto: our codec, or the reference's where ours was not timed.
OWN, REFERENCE = "wire", "pycapnp"
CAPNP = (OWN, REFERENCE, "pycapnp packed", "pycapnp keywords", "pycapnp view")
# The rivals that ratios are taken against, the headline's first.
BASELINES = ("orjson", "json", "pickle 5 out of band", "Arrow IPC")
MEMCPY, EMPTY_CALL = "memcpy", "empty call"
FLOOR = "floor"
COLUMNS = (
    Contract.READ_COLUMN,
    Contract.READ_COLUMNS,
    Contract.WRITE_COLUMN,
    Contract.WRITE_COLUMNS,
)
HEADLINES = (
    Contract.READ_ONE,
    Contract.READ_ALL,
    *COLUMNS[:2],
    Contract.OPEN,
    Contract.BUILD_ENCODE,
    *COLUMNS[2:],
)
_CONTRACTS = frozenset(Contract)
_CROSSED = {FigureKind.CROSSOVER: "contract", FigureKind.BREAK_EVEN: "size_bytes"}


@dataclass(frozen=True)
class CodecView:
    """What a benchmark of codecs found."""

    figures: Sequence[Figure]

    @cached_property
    def _by_kind(self) -> Mapping[FigureKind, list[Figure]]:
        # There are thousands, and each chart asks anew.
        by_kind: dict[FigureKind, list[Figure]] = {}
        for figure in self.figures:
            by_kind.setdefault(figure.kind, []).append(figure)
        return by_kind

    def of_kind(self, kind: FigureKind, **labels: object) -> list[Figure]:
        """Return the figures of a kind that have all of these labels."""
        return matching(self._by_kind.get(kind, []), **labels)

    def times(self, **labels: object) -> list[Figure]:
        """Return the times that compare: without second timings, and those with GC on."""
        return [
            figure
            for figure in self.of_kind(FigureKind.TIME, **labels)
            if not figure.labels.get("gc")
            and not str(figure.labels.get("subject", "")).endswith(AGAIN)
        ]

    def places(self) -> list[tuple[str, str]]:
        """Return each message with each contract that was timed, the floors left out."""
        return [
            (message, contract)
            for message, contract in grouped(self.times(), "message", "contract")
            if contract != FLOOR
        ]

    def curves(self, codec: str, baseline: str) -> list[list[Figure]]:
        """Return the ratios of a codec to a baseline, a list per message and contract, by size."""
        ratios = by_size(self.of_kind(FigureKind.RATIO, codec=codec, baseline=baseline))
        return list(grouped(ratios, "message", "contract").values())

    def crossing(self, kind: FigureKind, labels: Mapping[str, object]) -> Figure | None:
        """Return where the ratio that has some labels crosses 1, None if nobody looked.

        A crossover lies between sizes, a break-even between shares of the fields at one size.
        """
        names = ("codec", "baseline", "message", _CROSSED[kind])
        return next(iter(self.of_kind(kind, **{name: labels[name] for name in names})), None)

    @cached_property
    def own_codec(self) -> str:
        """What stands for Cap'n Proto here, empty where it was not timed."""
        timed = {figure.labels.get("codec") for figure in self.times()}
        return next((codec for codec in (OWN, REFERENCE) if codec in timed), "")

    @cached_property
    def baselines(self) -> list[str]:
        """The baselines that there are ratios to, the headline's first."""
        names = {str(figure.labels.get("baseline")) for figure in self.of_kind(FigureKind.RATIO)}
        return [name for name in BASELINES if name in names] + sorted(names - {*BASELINES})

    @property
    def rival(self) -> str:
        """The headline's baseline, empty where there are no ratios."""
        return next(iter(self.baselines), "")


def matching(figures: Iterable[Figure], **labels: object) -> list[Figure]:
    """Return those figures that have all of these labels."""
    return [figure for figure in figures if labels.items() <= figure.labels.items()]


def grouped(figures: Iterable[Figure], *names: str) -> dict[tuple[Any, ...], list[Figure]]:
    """Return figures by what some of their labels say, in the order in which they come."""
    groups: dict[tuple[Any, ...], list[Figure]] = {}
    for figure in figures:
        groups.setdefault(tuple(figure.labels.get(name) for name in names), []).append(figure)
    return groups


def by_size(figures: Iterable[Figure]) -> list[Figure]:
    """Return those figures that have a value and a size above 0, the smallest first."""
    known = [
        figure for figure in figures if figure.value is not None and figure.labels.get("size_bytes")
    ]
    return sorted(known, key=lambda figure: figure.labels["size_bytes"])


def by_codec(figures: Iterable[Figure]) -> dict[str, list[Figure]]:
    """Return figures by the codec they are of, the codecs that are drawn first in front."""
    groups = {str(codec): some for (codec,), some in grouped(figures, "codec").items()}
    order = [*CODECS, *groups]
    return dict(sorted(groups.items(), key=lambda item: order.index(item[0])))


def floor_of(contract: str) -> str:
    """Return the floor below which no codec can fall that copies, or sends, a message."""
    stage = Contract(contract).stage if contract in _CONTRACTS else None
    return MEMCPY if stage is None else f"echo over {stage}"


def action(contract: str) -> str:
    """Return what a contract does, in words; an unknown one has its name."""
    return Contract(contract).action if contract in _CONTRACTS else contract


def thing(message: str) -> str:
    """Return a message in words."""
    words = {"text": "a text", "record": "a record", "records": "1,000 records"}
    return words.get(message, f"a {message}" if message else "a message")


def amount(message: str, size_bytes: float) -> str:
    """Return how large a message is; a table by its records."""
    if message == Message.TABLE:
        return f"{size_bytes / RECORD_BYTES:,.0f} records"
    return size_text(size_bytes)
