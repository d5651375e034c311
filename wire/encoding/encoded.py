"""An encoded struct, as the writers return it and the messages take it, and its padding."""

from typing import NamedTuple

from capnp_rig.wire.encoding.pointers import Buffer


class EncodedStruct(NamedTuple):
    """A struct in words: section sizes, and the bytes that follow any pointer to it.

    `sizes` is the upper half of the struct pointer: data words, and pointers << 16.
    `parts` are the struct itself and all that it points to, `words` long together.
    """

    sizes: int
    parts: list[Buffer]
    words: int


# An `EncodedStruct` without its names: a plain tuple is made in a fifth of the time.
EncodedTuple = tuple[int, list[Buffer], int]
EMPTY_STRUCT = EncodedStruct(0, [], 0)

# A pointer to a list of bytes; add the offset << 2 and the count << 35.
BYTES_WORD = 1 | 2 << 32
# The zeros that fill up a word, by their number.
ZEROS = tuple(bytes(count) for count in range(9))


def padded(data: Buffer) -> list[Buffer]:
    """Return `data` and the zeros that fill its last word."""
    rest = -len(data) & 7
    return [data, ZEROS[rest]] if rest else [data]
