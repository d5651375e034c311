"""Which benchmarks a process runs, and in which order (no I/O).

The cases of one group share message, contract and size, and run side by side: every codec, and
each baseline a second time for A/A. Even processes run them one way, odd ones the other, so half
the pairs go AB and half BA; groups are shuffled per pair of processes.

Not every codec meets every contract at every size; that would take hours. A plan has sizes for
the headlines (`build+encode`, `open+read`), a few where all contracts are timed, and a few where
round trips are: by every codec in memory, by the strongest over each transport.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from capnp_rig.loadtest.codecs import CODECS
from capnp_rig.loadtest.codecs.codec import (
    BUILD,
    BUILD_ENCODE,
    COLD,
    COLUMN_CONTRACTS,
    CONTRACTS,
    ENCODE,
    OPEN,
    READ_ALL,
    READ_ONE,
    ROUND_TRIP,
    RPC,
    SEGMENTS,
    TO_NATIVE,
    TRANSPORTED,
    TRANSPORTS,
    percent_of,
    reading,
)
from capnp_rig.loadtest.stats.messages import AGAIN, FIXED_BYTES, RECORD_BYTES, SIZES_BYTES, Message

# What ratios are taken against: the fastest common copying codec, and what does not copy
# a tensor either; where columns are read, also what lays them out for that.
ORJSON, OUT_OF_BAND, ARROW = "orjson", "pickle 5 out of band", "Arrow IPC"
BASELINES = (ORJSON, OUT_OF_BAND, ARROW)
CAPNP = ("wire", "pycapnp", "pycapnp packed", "pycapnp keywords", "pycapnp view")
MEMCPY, EMPTY_CALL, IN_PLACE = "memcpy", "empty call", "read in place"
FLOOR = "floor"
# Of as many bytes as `size_bytes` says, to the same peer and back as round trips go.
ECHOES = {f"echo over {transport}": transport for transport in TRANSPORTS}
EMPTY_RPC = "empty RPC"
# The best of each family, and what most people have.
TRAVELLERS = (
    "wire",
    "pycapnp",
    "json",
    ORJSON,
    "msgspec MessagePack",
    "protobuf",
    OUT_OF_BAND,
    "flatbuffers",
)
# Others take seconds per call for 100,000 records.
_TABLE_CODECS = (
    "wire",
    ORJSON,
    "msgspec JSON",
    "msgspec MessagePack",
    "protobuf",
    OUT_OF_BAND,
    ARROW,
)
_MANY_RECORDS_BYTES = 10_000 * RECORD_BYTES
_COLD_SIZE_BYTES = 1 << 20
# A frame of 4 MiB is over the limit of an RPC connection; base64 adds a third.
_MOST_ECHOED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One benchmark: a codec, or a floor, with a message under a contract.

    `message` is empty for a floor that has none, `size_bytes` what the message's values take.
    """

    subject: str
    message: str
    contract: str
    size_bytes: int
    gc: bool = False

    @property
    def name(self) -> str:
        """A name that no other case has."""
        return f"{self.place}, {self.subject}{', GC on' * self.gc}"

    @property
    def place(self) -> str:
        """What all cases of the group have in common."""
        parts = [self.message, self.contract, f"{self.size_bytes} B"]
        return ", ".join(filter(None, parts))

    @property
    def codec(self) -> str:
        """The name of the codec behind the subject."""
        return self.subject.removesuffix(AGAIN)

    @property
    def percent(self) -> int | None:
        """How many of 100 fields are read, None where that does not say what is done."""
        return percent_of(self.contract)

    @property
    def transport(self) -> str:
        """What carries the frame, of `TRANSPORTS`; empty where nothing does."""
        by_subject: dict[str, str] = {**ECHOES, EMPTY_RPC: RPC}
        return TRANSPORTED.get(self.contract) or by_subject.get(self.subject, "")

    def labels(self) -> dict[str, Any]:
        """Return what a figure is of, as plain values."""
        return {
            "codec": self.codec,
            "message": self.message,
            "contract": self.contract,
            "size_bytes": self.size_bytes,
            "k": self.percent,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What is timed and weighed, and for how long.

    `text_sizes`, `tensor_sizes` and `table_sizes` are for the headlines, in bytes; `more` has
    contracts beyond them, and the sizes for these. `round_trips` has the sizes of round trips, in
    memory and over each transport, `echoed` those of the transports' floors. A case gets `case_s`
    seconds in each process, at least `min_rounds` rounds. `memory` and `encoded` say at which size
    each message is weighed, `memory_codecs` by which codecs (None for all) and `memory_processes`
    how often.
    """

    name: str
    processes: int
    case_s: float
    min_rounds: int
    text_sizes: Sequence[int]
    tensor_sizes: Sequence[int]
    table_sizes: Sequence[int]
    more: Mapping[Message, tuple[Sequence[str], Sequence[int]]]
    round_trips: Mapping[Message, Sequence[int]]
    echoed: Sequence[int]
    memory: Mapping[Message, int]
    memory_processes: int
    encoded: Mapping[Message, int]
    memory_codecs: Sequence[str] | None = None
    has_gc_rows: bool = True


_PARTS = tuple(reading(percent) for percent in (1, 10, 50))
_FEW_PARTS = _PARTS[:2]
_ONCE = (OPEN, TO_NATIVE)
_TRIPS = (ROUND_TRIP, *TRANSPORTED)
_OF_SOME_MESSAGES = {SEGMENTS, COLD, *_TRIPS, *COLUMN_CONTRACTS}
_EVERYTHING = tuple(contract for contract in CONTRACTS if contract not in _OF_SOME_MESSAGES)
_RECORDS_BYTES = FIXED_BYTES[Message.RECORDS]
_TABLE_SIZES = tuple(count * RECORD_BYTES for count in (100, 1_000, 100_000))
_HEADLINES = {
    Message.TEXT: (BUILD_ENCODE, READ_ALL),
    Message.TENSOR: (BUILD_ENCODE, READ_ONE, READ_ALL),
    Message.TABLE: COLUMN_CONTRACTS,
}

PLANS = {
    plan.name: plan
    for plan in (
        Plan(
            name="full",
            processes=12,
            case_s=0.02,
            min_rounds=5,
            text_sizes=SIZES_BYTES,
            tensor_sizes=SIZES_BYTES,
            table_sizes=_TABLE_SIZES,
            more={
                Message.TEXT: ((BUILD, ENCODE, *_ONCE), (64, 1 << 14, 1 << 22)),
                Message.RECORD: (_EVERYTHING, (RECORD_BYTES,)),
                Message.RECORDS: (_EVERYTHING, (_RECORDS_BYTES,)),
                Message.TENSOR: (
                    (BUILD, ENCODE, SEGMENTS, *_PARTS, *_ONCE),
                    (1 << 10, 1 << 16, 1 << 22),
                ),
            },
            round_trips={
                Message.TEXT: (64, 1 << 14, _MOST_ECHOED_BYTES),
                Message.RECORD: (RECORD_BYTES,),
                Message.RECORDS: (_RECORDS_BYTES,),
                Message.TENSOR: (1 << 10, 1 << 16, _MOST_ECHOED_BYTES),
            },
            echoed=(64, 1 << 10, 1 << 14, 1 << 16, 1 << 18, _MOST_ECHOED_BYTES),
            memory={
                Message.RECORDS: _RECORDS_BYTES,
                Message.TEXT: 1 << 24,
                Message.TENSOR: 1 << 24,
            },
            memory_processes=3,
            encoded={**FIXED_BYTES, Message.TEXT: 1 << 20, Message.TENSOR: 1 << 20},
        ),
        Plan(
            name="quick",
            processes=6,
            case_s=0.004,
            min_rounds=3,
            text_sizes=(1 << 6, 1 << 12, 1 << 18, 1 << 22),
            tensor_sizes=SIZES_BYTES[::2],
            # The longest takes half a minute per process.
            table_sizes=_TABLE_SIZES[:2],
            more={
                Message.RECORD: (
                    (BUILD_ENCODE, OPEN, READ_ONE, *_FEW_PARTS, READ_ALL),
                    (RECORD_BYTES,),
                ),
                Message.RECORDS: (
                    (BUILD_ENCODE, READ_ONE, *_FEW_PARTS, READ_ALL),
                    (_RECORDS_BYTES,),
                ),
                Message.TENSOR: (_FEW_PARTS, (1 << 18,)),
            },
            round_trips={Message.TENSOR: (1 << 16,)},
            echoed=(1 << 16,),
            has_gc_rows=False,
            memory={Message.TENSOR: 1 << 24},
            memory_processes=1,
            encoded={**FIXED_BYTES, Message.TEXT: 1 << 16, Message.TENSOR: 1 << 16},
        ),
        # For tests: every kind of row, no more.
        Plan(
            name="tiny",
            processes=2,
            case_s=0.001,
            min_rounds=3,
            text_sizes=(64,),
            tensor_sizes=(64, 256, 1024),
            table_sizes=_TABLE_SIZES[:1],
            more={Message.TENSOR: ((SEGMENTS, OPEN, *_PARTS), (64,))},
            round_trips={Message.TENSOR: (64,)},
            echoed=(64,),
            memory={Message.TENSOR: 1 << 20},
            memory_processes=1,
            encoded={Message.RECORD: RECORD_BYTES},
            memory_codecs=("wire", ORJSON),
        ),
    )
}


def groups(plan: Plan) -> list[list[Case]]:
    """Return the cases; those of a group are compared with each other."""
    sizes = {
        Message.TEXT: plan.text_sizes,
        Message.TENSOR: plan.tensor_sizes,
        Message.TABLE: plan.table_sizes,
    }
    listed = [
        _group(message, contract, size)
        for message, contracts in _HEADLINES.items()
        for size in sizes[message]
        for contract in contracts
    ]
    for message, (contracts, some_sizes) in plan.more.items():
        listed += [_group(message, contract, size) for size in some_sizes for contract in contracts]
    for message, some_sizes in plan.round_trips.items():
        listed += [_group(message, contract, size) for size in some_sizes for contract in _TRIPS]
    if _COLD_SIZE_BYTES in plan.tensor_sizes:
        listed.append(_group(Message.TENSOR, COLD, _COLD_SIZE_BYTES))
    if plan.has_gc_rows:
        listed.append(_gc_rows(plan))
    floors = [
        [Case(MEMCPY, "", FLOOR, size), Case(IN_PLACE, Message.TENSOR, FLOOR, size)]
        for size in plan.tensor_sizes
    ]
    floors += [[Case(echo, "", FLOOR, size) for echo in ECHOES] for size in plan.echoed]
    return [*listed, *floors, [Case(EMPTY_CALL, "", FLOOR, 0)], [Case(EMPTY_RPC, "", FLOOR, 0)]]


def _group(message: Message, contract: str, size: int) -> list[Case]:
    names = [
        name
        for name, codec in CODECS.items()
        if codec.supports(message, contract)
        and (contract not in TRANSPORTED or name in TRAVELLERS)
        and (message is not Message.TABLE or size < _MANY_RECORDS_BYTES or name in _TABLE_CODECS)
    ]
    again = [name + AGAIN for name in BASELINES if name in names]
    return [Case(subject, message, contract, size) for subject in [*names, *again]]


def _gc_rows(plan: Plan) -> list[Case]:
    # Collections are due to what is allocated: where there is most of it, if the plan has it.
    many = Message.RECORDS in plan.more
    message, size = (
        (Message.RECORDS, _RECORDS_BYTES) if many else (Message.TEXT, plan.text_sizes[0])
    )
    return [
        Case(name, message, READ_ALL, size, gc=True)
        for name, codec in CODECS.items()
        if codec.supports(message, READ_ALL)
    ]


def memory_cases(plan: Plan) -> list[Case]:
    """Return what is weighed, each in processes of its own: reading one field, and a round trip."""
    cases = []
    for message, size in plan.memory.items():
        reading_it = READ_ALL if message is Message.TEXT else READ_ONE
        for contract in (reading_it, ROUND_TRIP):
            cases += [
                Case(name, message, contract, size)
                for name, codec in CODECS.items()
                if codec.supports(message, contract)
                and (plan.memory_codecs is None or name in plan.memory_codecs)
            ]
    return cases


def order(plan: Plan, process: int) -> list[Case]:
    """Return the cases in the order in which a process runs them."""
    rng = random.Random(process // 2)
    shuffled = groups(plan)
    # Both processes of a pair get the same shuffle, and the reverse of each other.
    rng.shuffle(shuffled)
    for group in shuffled:
        rng.shuffle(group)
    cases = [case for group in shuffled for case in group]
    return cases if process % 2 == 0 else cases[::-1]


def ratios_of(group: Iterable[Case]) -> list[tuple[Case, Case, list[Case]]]:
    """Return baseline, its second timing and the candidates of each comparison in a group."""
    by_subject = {case.subject: case for case in group if not case.gc}
    comparisons = []
    for baseline in BASELINES:
        old, again = by_subject.get(baseline), by_subject.get(baseline + AGAIN)
        if old is None or again is None:
            continue
        # Against what copies no tensor Cap'n Proto alone; against orjson everybody.
        candidates = [
            case
            for name, case in by_subject.items()
            if name in CAPNP or (baseline == ORJSON and name != ORJSON and not name.endswith(AGAIN))
        ]
        comparisons.append((old, again, candidates))
    return comparisons
