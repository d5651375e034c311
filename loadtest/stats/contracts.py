"""What is inside the clock of a timed codec, and what carries a message (no I/O)."""

from enum import StrEnum
from typing import Self


class Stage(StrEnum):
    """What carries a message from one process to another, the least first."""

    SOCKET_PAIR = "a socket pair"
    TCP = "TCP"
    RPC = "RPC"


_OVER = "writing, sending over {} and back, and reading"


class Contract(StrEnum):
    """What is timed of a codec; `loadtest.codecs.codec` says what each covers.

    `action` is what is done to a message, in words. `percent` is how many of 100 fields are read,
    0 of a message that is only opened; `stage` is what carries the message. None where that does
    not apply.
    """

    action: str
    percent: int | None
    stage: Stage | None

    def __new__(
        cls, name: str, action: str = "", percent: int | None = None, stage: Stage | None = None
    ) -> Self:
        """Make the member whose value is `name`."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.action, member.percent, member.stage = action, percent, stage
        return member

    BUILD = ("build", "building")
    ENCODE = ("encode", "encoding what was built")
    BUILD_ENCODE = ("build+encode", "writing")
    SEGMENTS = ("build+encode to segments", "writing, in segments,")
    OPEN = ("open", "opening", 0)
    READ_ONE = ("open+read one field", "opening and reading one field of")
    READ_1 = ("open+read 1%", "opening and reading 1 % of", 1)
    READ_10 = ("open+read 10%", "opening and reading 10 % of", 10)
    READ_50 = ("open+read 50%", "opening and reading 50 % of", 50)
    READ_ALL = ("open+read 100%", "opening and reading all of", 100)
    COLD = ("open+read 100% cold", "opening and reading all of, out of no cache,", 100)
    READ_COLUMN = ("open+read one column", "opening and reading one column of")
    READ_COLUMNS = ("open+read numeric columns", "opening and reading the numeric columns of")
    WRITE_COLUMN = ("build+encode one column", "writing one column of")
    WRITE_COLUMNS = ("build+encode numeric columns", "writing the numeric columns of")
    TO_NATIVE = ("to native", "turning into Python values")
    IN_MEMORY = ("round trip in memory", "writing and reading back")
    OVER_SOCKET_PAIR = (
        "round trip over a socket pair",
        _OVER.format(Stage.SOCKET_PAIR),
        None,
        Stage.SOCKET_PAIR,
    )
    OVER_TCP = ("round trip over TCP", _OVER.format(Stage.TCP), None, Stage.TCP)
    OVER_RPC = ("round trip over RPC", _OVER.format(Stage.RPC), None, Stage.RPC)
