"""The figures of a codec benchmark, in the order in which they are looked for (no I/O)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from capnp_rig.loadtest.stats.contracts import Contract
from capnp_rig.loadtest.stats.figure import Figure, FigureKind

# What is shown as Cap'n Proto: our codec, or the reference's where ours was not timed.
OWN, REFERENCE = "wire", "pycapnp"
CAPNP = (OWN, REFERENCE, "pycapnp packed", "pycapnp keywords", "pycapnp view")
# The rivals that ratios are taken against, the headline's first.
BASELINES = ("orjson", "json", "pickle 5 out of band")
MEMCPY, EMPTY_CALL = "memcpy", "empty call"
FLOOR = "floor"
HEADLINES = (Contract.READ_ONE, Contract.READ_ALL, Contract.OPEN, Contract.BUILD_ENCODE)
_CONTRACTS = frozenset(Contract)
_AGAIN = " again"


@dataclass(frozen=True, slots=True)
class Curve:
    """The ratios of one codec to a baseline, smallest size first, and where they cross 1."""

    codec: str
    baseline: str
    message: str
    contract: str
    ratios: Sequence[Figure]
    crossover: Figure | None = None


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

    def of_kind(self, kind: FigureKind) -> list[Figure]:
        """Return the figures of a kind."""
        return self._by_kind.get(kind, [])

    def times(self) -> list[Figure]:
        """Return the times that compare: without second timings, and those with GC on."""
        return [
            figure
            for figure in self.of_kind(FigureKind.TIME)
            if not figure.labels.get("gc")
            and not str(figure.labels.get("subject", "")).endswith(_AGAIN)
        ]

    def floors(self) -> list[Figure]:
        """Return the times of what no codec is in."""
        return [figure for figure in self.times() if figure.labels.get("contract") == FLOOR]

    def floor_times(self, subject: str) -> list[Figure]:
        """Return the times of memcpy or another floor, by size."""
        return by_size(figure for figure in self.floors() if figure.labels.get("codec") == subject)

    def places(self) -> list[tuple[str, str]]:
        """Return each message with each contract that was timed, the floors left out."""
        grouped = dict.fromkeys(
            (str(figure.labels.get("message")), figure.contract)
            for figure in self.times()
            if figure.contract != FLOOR
        )
        return list(grouped)

    def curves(self, codec: str, baseline: str) -> list[Curve]:
        """Return the ratios of a codec to a baseline, a curve per message and contract."""
        grouped: dict[tuple[str, str], list[Figure]] = {}
        for figure in by_size(self.of_kind(FigureKind.RATIO)):
            if (figure.labels.get("codec"), figure.labels.get("baseline")) == (codec, baseline):
                place = (str(figure.labels.get("message")), figure.contract)
                grouped.setdefault(place, []).append(figure)
        return [
            Curve(
                *(codec, baseline, message, contract, ratios),
                self._crossing(FigureKind.CROSSOVER, codec, baseline, message, contract=contract),
            )
            for (message, contract), ratios in grouped.items()
        ]

    def break_even(self, curve: Curve) -> Figure | None:
        """Return up to which share of the fields the codec of a curve of one size is ahead."""
        size = curve.ratios[0].labels["size_bytes"]
        return self.break_even_at(curve.codec, curve.baseline, curve.message, size)

    def break_even_at(
        self, codec: str, baseline: str, message: str, size_bytes: float | None
    ) -> Figure | None:
        """Return up to which share of the fields of a message a codec is ahead."""
        kind = FigureKind.BREAK_EVEN
        return self._crossing(kind, codec, baseline, message, size_bytes=size_bytes)

    def _crossing(
        self, kind: FigureKind, codec: str, baseline: str, message: str, **more: object
    ) -> Figure | None:
        wanted = {"codec": codec, "baseline": baseline, "message": message, **more}
        return next(
            (
                figure
                for figure in self.of_kind(kind)
                if all(figure.labels.get(name) == value for name, value in wanted.items())
            ),
            None,
        )

    def own_codec(self) -> str | None:
        """Return what stands for Cap'n Proto here, None where it was not timed."""
        timed = {figure.labels.get("codec") for figure in self.times()}
        return next((codec for codec in (OWN, REFERENCE) if codec in timed), None)

    def baselines(self) -> list[str]:
        """Return the baselines that there are ratios to, the headline's first."""
        names = {str(figure.labels.get("baseline")) for figure in self.of_kind(FigureKind.RATIO)}
        return [name for name in BASELINES if name in names] + sorted(names - {*BASELINES})


def by_size(figures: Iterable[Figure]) -> list[Figure]:
    """Return those figures that have a value and a size above 0, the smallest first."""
    grouped = [
        figure for figure in figures if figure.value is not None and figure.labels.get("size_bytes")
    ]
    return sorted(grouped, key=lambda figure: figure.labels["size_bytes"])


def by_codec(figures: Iterable[Figure]) -> Mapping[str, list[Figure]]:
    """Return figures by the codec they are of."""
    grouped: dict[str, list[Figure]] = {}
    for figure in figures:
        grouped.setdefault(str(figure.labels.get("codec")), []).append(figure)
    return grouped


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
