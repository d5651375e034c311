"""What is inside the clock of a timed codec, and what carries a message (no I/O)."""

from enum import StrEnum


class Stage(StrEnum):
    """What carries a message from one process to another, the least first."""

    SOCKET_PAIR = "a socket pair"
    TCP = "TCP"
    RPC = "RPC"


class Contract(StrEnum):
    """What is timed of a codec; `loadtest.codecs.codec` says what each covers."""

    BUILD = "build"
    ENCODE = "encode"
    BUILD_ENCODE = "build+encode"
    SEGMENTS = "build+encode to segments"
    OPEN = "open"
    READ_ONE = "open+read one field"
    READ_1 = "open+read 1%"
    READ_10 = "open+read 10%"
    READ_50 = "open+read 50%"
    READ_ALL = "open+read 100%"
    COLD = "open+read 100% cold"
    TO_NATIVE = "to native"
    IN_MEMORY = "round trip in memory"
    OVER_SOCKET_PAIR = "round trip over a socket pair"
    OVER_TCP = "round trip over TCP"
    OVER_RPC = "round trip over RPC"

    @property
    def stage(self) -> Stage | None:
        """What carries the message; None if nothing does."""
        return _STAGES.get(self)

    @property
    def percent(self) -> int | None:
        """How many of 100 fields are read, 0 of a message that is only opened; else None."""
        return _PERCENTS.get(self)

    @property
    def action(self) -> str:
        """What is done to a message, in words."""
        return _ACTIONS[self]


_STAGES = {
    Contract.OVER_SOCKET_PAIR: Stage.SOCKET_PAIR,
    Contract.OVER_TCP: Stage.TCP,
    Contract.OVER_RPC: Stage.RPC,
}
_PERCENTS = {
    Contract.OPEN: 0,
    Contract.READ_1: 1,
    Contract.READ_10: 10,
    Contract.READ_50: 50,
    Contract.READ_ALL: 100,
    Contract.COLD: 100,
}
_ACTIONS = {
    Contract.BUILD: "building",
    Contract.ENCODE: "encoding what was built",
    Contract.BUILD_ENCODE: "writing",
    Contract.SEGMENTS: "writing, in segments,",
    Contract.OPEN: "opening",
    Contract.READ_ONE: "opening and reading one field of",
    Contract.READ_1: "opening and reading 1 % of",
    Contract.READ_10: "opening and reading 10 % of",
    Contract.READ_50: "opening and reading 50 % of",
    Contract.READ_ALL: "opening and reading all of",
    Contract.COLD: "opening and reading all of, out of no cache,",
    Contract.TO_NATIVE: "turning into Python values",
    Contract.IN_MEMORY: "writing and reading back",
    **{
        contract: f"writing, sending over {stage} and back, and reading"
        for contract, stage in _STAGES.items()
    },
}
