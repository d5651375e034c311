"""The figures of a codec benchmark, in the order in which they are looked for (no I/O)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.pair_statistics import LEAST_MARGIN, Verdict

# What is shown as Cap'n Proto: our codec, or the reference's where ours was not timed.
OWN, REFERENCE = "wire", "pycapnp"
CAPNP = (OWN, REFERENCE, "pycapnp packed", "pycapnp keywords", "pycapnp view")
# The rivals that ratios are taken against, the headline's first.
BASELINES = ("orjson", "json", "pickle 5 out of band")
BUILD_ENCODE, OPEN = "build+encode", "open"
READ_ONE, READ_ALL = "open+read one field", "open+read 100%"
IN_MEMORY = "round trip in memory"
# What carries a message on the other round trips, the least first.
TRANSPORTS = ("a socket pair", "TCP", "RPC")
_TRIP, _ECHO = "round trip over ", "echo over "
MEMCPY, EMPTY_CALL = "memcpy", "empty call"
FLOOR = "floor"
# As `loadtest compare` has it: beyond this floor everything would pass as the same.
NOISY = 0.25
_AGAIN = " again"


@dataclass(frozen=True, slots=True)
class Ratio:
    """A candidate against a baseline at one size; above 1 the candidate is faster."""

    size_bytes: float
    value: float
    low: float | None
    high: float | None
    n: int
    verdict: str
    reason: str
    floor: float | None

    @property
    def margin(self) -> float:
        """How far from 1 still counts as the same, as a share."""
        return max(LEAST_MARGIN, self.floor or 0.0)

    @property
    def standing(self) -> str:
        """``faster``, ``slower``, ``same``, ``inconclusive`` or ``void``.

        What is the same only because the floor is so wide cannot be told.
        """
        if self.verdict == Verdict.SAME and self.margin > NOISY:
            return str(Verdict.INCONCLUSIVE)
        return self.verdict


@dataclass(frozen=True, slots=True)
class Curve:
    """The ratios of one codec to a baseline, smallest size first, and where they cross 1."""

    codec: str
    baseline: str
    message: str
    contract: str
    ratios: Sequence[Ratio]
    crossover: Figure | None = None


@dataclass(frozen=True, slots=True)
class CodecView:
    """What a benchmark of codecs found."""

    figures: Sequence[Figure]

    def of_kind(self, *kinds: str) -> list[Figure]:
        """Return the figures of some kinds: time, ratio, crossover, memory, size, ..."""
        return [one for one in self.figures if one.labels.get("kind") in kinds]

    def times(self) -> list[Figure]:
        """Return the times that compare: without second timings, and those with GC on."""
        return [
            one
            for one in self.of_kind("time")
            if not one.labels.get("gc") and not str(one.labels.get("subject", "")).endswith(_AGAIN)
        ]

    def floors(self) -> list[Figure]:
        """Return the times of what no codec is in."""
        return [one for one in self.times() if one.labels.get("contract") == FLOOR]

    def floor_times(self, subject: str) -> list[Figure]:
        """Return the times of memcpy or another floor, by size."""
        return by_size(one for one in self.floors() if one.labels.get("codec") == subject)

    def places(self) -> list[tuple[str, str]]:
        """Return each message with each contract that was timed, the floors left out."""
        found = dict.fromkeys(
            (str(one.labels.get("message")), one.contract)
            for one in self.times()
            if one.contract != FLOOR
        )
        return list(found)

    def curves(self, codec: str, baseline: str) -> list[Curve]:
        """Return the ratios of a codec to a baseline, a curve per message and contract."""
        grouped: dict[tuple[str, str], list[Ratio]] = {}
        for one in self.of_kind("ratio"):
            labels = one.labels
            size = labels.get("size_bytes")
            if (labels.get("codec"), labels.get("baseline")) != (codec, baseline) or size is None:
                continue
            if one.value is not None:
                ratio = _ratio(one, size)
                grouped.setdefault((str(labels.get("message")), one.contract), []).append(ratio)
        return [
            Curve(
                *(codec, baseline, message, contract),
                sorted(ratios, key=lambda ratio: ratio.size_bytes),
                self.crossing("crossover", codec, baseline, message, contract=contract),
            )
            for (message, contract), ratios in grouped.items()
        ]

    def crossing(
        self, kind: str, codec: str, baseline: str, message: str, **more: object
    ) -> Figure | None:
        """Return the figure that says where a curve crosses 1: a crossover, or a break-even."""
        wanted = {"codec": codec, "baseline": baseline, "message": message, **more}
        return next(
            (
                one
                for one in self.of_kind(kind)
                if all(one.labels.get(name) == value for name, value in wanted.items())
            ),
            None,
        )

    def own_codec(self) -> str | None:
        """Return what stands for Cap'n Proto here, None where it was not timed."""
        timed = {one.labels.get("codec") for one in self.times()}
        return next((codec for codec in (OWN, REFERENCE) if codec in timed), None)

    def baselines(self) -> list[str]:
        """Return the baselines that there are ratios to, the headline's first."""
        found = {str(one.labels.get("baseline")) for one in self.of_kind("ratio")}
        return [name for name in BASELINES if name in found] + sorted(found - {*BASELINES})


def _ratio(figure: Figure, size: float) -> Ratio:
    assert figure.value is not None
    return Ratio(
        *(size, figure.value, figure.low, figure.high, figure.n),
        *(figure.verdict, figure.reason, figure.labels.get("floor")),
    )


def by_size(figures: Iterable[Figure]) -> list[Figure]:
    """Return those figures that have a value and a size above 0, the smallest first."""
    found = [one for one in figures if one.value is not None and one.labels.get("size_bytes")]
    return sorted(found, key=lambda one: one.labels["size_bytes"])


def by_codec(figures: Iterable[Figure]) -> Mapping[str, list[Figure]]:
    """Return figures by the codec they are of."""
    found: dict[str, list[Figure]] = {}
    for one in figures:
        found.setdefault(str(one.labels.get("codec")), []).append(one)
    return found


def over(transport: str) -> str:
    """Return the contract of a round trip over a transport."""
    return f"{_TRIP}{transport}"


def transport_of(contract: str) -> str:
    """Return what a round trip goes over, empty for other contracts, and in memory."""
    return contract.removeprefix(_TRIP) if contract.startswith(_TRIP) else ""


def floor_of(contract: str) -> str:
    """Return the floor below which no codec can fall that copies, or sends, a message."""
    transport = transport_of(contract)
    return f"{_ECHO}{transport}" if transport else MEMCPY


def action(contract: str) -> str:
    """Return what a contract does, in words."""
    words = {
        "build": "building",
        "encode": "encoding what was built",
        BUILD_ENCODE: "writing",
        "build+encode to segments": "writing, in segments,",
        OPEN: "opening",
        READ_ONE: "opening and reading one field of",
        READ_ALL: "opening and reading all of",
        f"{READ_ALL} cold": "opening and reading all of, out of no cache,",
        "to native": "turning into Python values",
        IN_MEMORY: "writing and reading back",
    }
    found = words.get(contract)
    if transport_of(contract):
        found = f"writing, sending over {transport_of(contract)} and back, and reading"
    if found is None and contract.startswith("open+read "):
        return f"opening and reading {contract.removeprefix('open+read ').replace('%', ' %')} of"
    return found or contract


def thing(message: str) -> str:
    """Return a message in words."""
    words = {"text": "a text", "record": "a record", "records": "1,000 records"}
    return words.get(message, f"a {message}" if message else "a message")
