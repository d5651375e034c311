"""What a codec is to the benchmarks: its functions for each message, and the contracts.

A contract is what is inside the clock:

    build               native values → the object that the format encodes
    encode              that object → bytes ready to send
    build+encode        both: the writers' headline
    build+encode to segments
                        native values → buffers to be sent one after the other, uncopied
    open                bytes → something readable; for a copying codec that is the whole decode
    open+read one field / k%
                        opened, and that share of the fields fed to a checksum (`reading`): the
                        readers' headline
    open+read 100% cold the same, of frames that are no longer in any cache
    open+read one column / numeric columns
                        a table of records opened, and the prices, or all numeric fields, summed as
                        numpy arrays
    build+encode one column / numeric columns
                        numpy arrays → bytes of records that have these fields alone
    to native           bytes → Python values, or a numpy array, that no longer touch them
    round trip in memory
                        build+encode, then open+read 100 %, without a transport
    round trip over a socket pair / TCP / RPC
                        the same, and in between the frame goes to another process, which sends
                        the same bytes back (`loadtest.benchmarks.transports`)

The object is what the format's own `encode` takes: for JSON, MessagePack and `wire` that is
a dict, so building it is inside `build`; a builder of Cap'n Proto or FlatBuffers is
serialised already, and its `encode` only hands out the bytes.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from capnp_rig.loadtest.codecs.messages import Record, Table
from capnp_rig.loadtest.codecs.reading import (
    COLUMNS,
    NUMERIC_COLUMNS,
    ONE_COLUMN,
    ONE_FIELD,
    PERCENTS,
    Read,
    Share,
    checksum,
    same,
    total,
)
from capnp_rig.loadtest.stats.contracts import Contract, Stage
from capnp_rig.loadtest.stats.messages import Message

# Types of the formats' own: values as `messages.native` returns them or equal ones, what a
# format encodes, what it opened, and a frame: bytes or a buffer of them.
Native: TypeAlias = Any
Built: TypeAlias = Any
Opened: TypeAlias = Any
Frame: TypeAlias = Any

BUILD, ENCODE, BUILD_ENCODE = Contract.BUILD, Contract.ENCODE, Contract.BUILD_ENCODE
SEGMENTS, OPEN, TO_NATIVE = Contract.SEGMENTS, Contract.OPEN, Contract.TO_NATIVE
READ_ONE, READ_ALL, COLD = Contract.READ_ONE, Contract.READ_ALL, Contract.COLD
ROUND_TRIP = Contract.IN_MEMORY


def reading(share: Share) -> Contract:
    """Return the contract that opens and reads a share of the fields."""
    return Contract(f"open+read {share}" if isinstance(share, str) else f"open+read {share}%")


OPEN_READS: Mapping[str, Share] = {
    reading(share): share for share in (ONE_FIELD, *PERCENTS, *COLUMNS)
}
COLUMN_WRITES: Mapping[str, Share] = {
    Contract.WRITE_COLUMN: ONE_COLUMN,
    Contract.WRITE_COLUMNS: NUMERIC_COLUMNS,
}
# Of a table; nothing else is.
COLUMN_CONTRACTS = (*map(reading, COLUMNS), Contract.WRITE_COLUMN, Contract.WRITE_COLUMNS)
WRITING = (BUILD, ENCODE, BUILD_ENCODE)
SOCKET_PAIR, TCP, RPC = Stage
TRANSPORTS = tuple(Stage)
# The contracts with a transport in them, and which it is.
TRANSPORTED: Mapping[str, Stage] = {each: each.stage for each in Contract if each.stage is not None}
CONTRACTS: tuple[Contract, ...] = tuple(Contract)
# More than the last-level caches of common servers.
_COLD_BYTES = 128 << 20


def percent_of(contract: str) -> int | None:
    """Return the k of a contract that reads k % of the fields, 0 for `open`, else None."""
    return Contract(contract).percent if contract in CONTRACTS else None


class CodecMismatch(Exception):
    """A codec does not give back what it was given: its times mean nothing."""


@dataclass(frozen=True, slots=True)
class MessageCodec:
    """How a format carries one message.

    `reads` has a reader of what `open` returns for each share of the fields; a text has the
    whole only. Of `build_encode` and `open_reads` those are given that have a better way than
    one call after the other. `column_writes` has what writes columns of a table. `note` says what
    is not as the format's name promises.
    """

    build: Callable[[Native], Built]
    encode: Callable[[Built], Frame]
    open: Callable[[Frame], Opened]
    reads: Mapping[Share, Read]
    to_native: Callable[[Frame], Native]
    build_encode: Callable[[Native], Frame] | None = None
    open_reads: Mapping[Share, Callable[[Frame], float]] = field(default_factory=dict)
    segments: Callable[[Native], Sequence[Frame]] | None = None
    column_writes: Mapping[Share, Callable[[Native], Frame]] = field(default_factory=dict)
    note: str = ""

    def writer(self) -> Callable[[Native], Frame]:
        """Return `build+encode`."""
        if self.build_encode is not None:
            return self.build_encode
        build, encode = self.build, self.encode
        return lambda values: encode(build(values))

    def reader(self, share: Share) -> Callable[[Frame], float]:
        """Return `open+read` of a share of the fields."""
        if share in self.open_reads:
            return self.open_reads[share]
        opener, read = self.open, self.reads[share]
        return lambda frame: read(opener(frame))


@dataclass(frozen=True, slots=True)
class Codec:
    """A format, in one idiom: `writes` and `reads` say which half of it differs from others."""

    name: str
    messages: Mapping[Message, MessageCodec]
    writes: bool = True
    reads: bool = True

    def supports(self, message: Message, contract: str) -> bool:
        """Tell whether it is timed under a contract with a message."""
        paths = self.messages.get(message)
        if paths is None or (message is Message.TABLE) != (contract in COLUMN_CONTRACTS):
            return False
        if contract in WRITING:
            return self.writes
        if contract == SEGMENTS:
            return self.writes and paths.segments is not None
        if contract == ROUND_TRIP or contract in TRANSPORTED:
            return self.writes and self.reads
        if contract in COLUMN_WRITES:
            return self.writes and COLUMN_WRITES[contract] in paths.column_writes
        share = OPEN_READS.get(contract.removesuffix(" cold"))
        return self.reads and (share is None or share in paths.reads)


def table_codec(
    write_records: Callable[[Sequence[Record]], Frame],
    read: Callable[[Frame, Sequence[str]], Iterable[Any]],
    write: Callable[[Table, Sequence[str]], Frame],
    note: str = "",
) -> MessageCodec:
    """Return how a format carries a table.

    `write_records` writes whole records. `read` returns the columns that have some names, from the
    bytes of any records, and `write` writes these alone.
    """

    def reader(names: Sequence[str]) -> Read:
        return lambda frame: total(read(frame, names))

    def writer(names: Sequence[str]) -> Callable[[Table], Frame]:
        return lambda table: write(table, names)

    return MessageCodec(
        build=lambda table: table.records,
        encode=write_records,
        open=lambda frame: frame,
        reads={share: reader(names) for share, names in COLUMNS.items()},
        to_native=lambda frame: list(read(frame, COLUMNS[NUMERIC_COLUMNS])),
        column_writes={share: writer(names) for share, names in COLUMNS.items()},
        note=note,
    )


def _verify_table(codec: MessageCodec, values: Native) -> Frame:
    frame = codec.writer()(values)
    for share in COLUMNS:
        expected = checksum(Message.TABLE, values, share)
        read = codec.reader(share)
        sums = {read(frame), read(codec.column_writes[share](values))}
        if sums != {expected}:
            raise CodecMismatch(f"{share} of a table gives {sums}, not {expected}")
    return frame


def verify(codec: MessageCodec, message: Message, values: Native) -> Frame:
    """Return the encoded message, after checking that every way gives back what went in.

    Raises:
        CodecMismatch: One does not.
    """
    if message is Message.TABLE:
        return _verify_table(codec, values)
    frame = codec.writer()(values)
    frames = {"build+encode": frame, "encode": codec.encode(codec.build(values))}
    if codec.segments is not None:
        frames["segments"] = b"".join(codec.segments(values))
    for way, written in frames.items():
        if not same(message, codec.to_native(written), values):
            raise CodecMismatch(f"{way} of {message} gives back other values")
    for share in codec.reads:
        expected = checksum(message, values, share)
        sums = {codec.reads[share](codec.open(frame)), codec.reader(share)(frame)}
        if sums != {expected}:
            raise CodecMismatch(f"{reading(share)} of {message} gives {sums}, not {expected}")
    return frame


def timed_call(
    codec: MessageCodec, contract: str, values: Native, frame: Frame
) -> Callable[[], Any]:
    """Return what to time; `frame` holds the `values`."""
    if contract == BUILD:
        build = codec.build
        return lambda: build(values)
    if contract == ENCODE:
        encode, built = codec.encode, codec.build(values)
        return lambda: encode(built)
    if contract in {BUILD_ENCODE, SEGMENTS}:
        write = codec.writer() if contract == BUILD_ENCODE else codec.segments
        assert write is not None, "asked only of codecs that support the contract"
        return lambda: write(values)
    if contract in COLUMN_WRITES:
        write_columns = codec.column_writes[COLUMN_WRITES[contract]]
        return lambda: write_columns(values)
    if contract == ROUND_TRIP:
        writer, reader = codec.writer(), codec.reader(100)
        return lambda: reader(writer(values))
    return _reading_call(codec, contract, frame)


def transported_call(
    codec: MessageCodec, values: Native, frame: Frame, exchange: Callable[[Frame], Frame]
) -> Callable[[], float]:
    """Return a round trip to time, on which `exchange` carries the frame.

    Raises:
        CodecMismatch: What comes back is not what was sent, here tried with `frame`.
    """
    back = exchange(frame)
    if bytes(back) != bytes(frame):
        raise CodecMismatch("the transport gives back other bytes")
    writer, reader = codec.writer(), codec.reader(100)
    try:
        reader(back)
    except TypeError:
        # The standard library's JSON takes no view, which is what an answer's Data is.
        return lambda: reader(bytes(exchange(writer(values))))
    return lambda: reader(exchange(writer(values)))


def _reading_call(codec: MessageCodec, contract: str, frame: Frame) -> Callable[[], Any]:
    if contract == COLD:
        read = codec.reader(100)
        # By way of a bytearray: bytes of bytes are the same object.
        copies = [bytes(bytearray(frame)) for _ in range(_COLD_BYTES // len(frame) + 1)]
        next_frame = itertools.cycle(copies).__next__
        return lambda: read(next_frame())
    if contract in {OPEN, TO_NATIVE}:
        call = codec.open if contract == OPEN else codec.to_native
    else:
        call = codec.reader(OPEN_READS[contract])
    return lambda: call(frame)


def check_outcome(
    codec: MessageCodec, message: Message, contract: str, values: Native, outcome: object
) -> None:
    """Check what the timed call returned in the end.

    Raises:
        CodecMismatch: It is not what it has to be.
    """
    if contract in {BUILD, ENCODE, BUILD_ENCODE, SEGMENTS, TO_NATIVE}:
        frame: Frame = outcome
        if contract == BUILD:
            frame = codec.encode(outcome)
        elif contract == SEGMENTS:
            frame = b"".join(frame)
        back = outcome if contract == TO_NATIVE else codec.to_native(frame)
        is_right = same(message, back, values)
    elif contract in COLUMN_WRITES:
        share = COLUMN_WRITES[contract]
        is_right = codec.reader(share)(outcome) == checksum(message, values, share)
    elif contract == OPEN:
        is_right = codec.reads[100](outcome) == checksum(message, values, 100)
    else:
        share = OPEN_READS.get(contract, 100)
        is_right = outcome == checksum(message, values, share)
    if not is_right:
        raise CodecMismatch(f"{contract} of {message} gave something else while it was timed")
