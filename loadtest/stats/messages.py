"""Which messages the codecs are timed with, how large they are, and what a second turn is called.

`loadtest.codecs.messages` has their values. Reports need none, nor the libraries of the codecs.
"""

from enum import StrEnum

# A second timing of a baseline, to be held against its first, has its name and this.
AGAIN = " again"
RECORD_COUNT = 1000
# How many bytes a value takes in a struct of C; texts, key and readings as long as they are.
NAME_LENGTH, NOTE_LENGTH, KEY_LENGTH, READINGS = 12, 37, 16, 4
RECORD_BYTES = 8 + 8 + 2 + 1 + 4 + 4 + 8 + 4 + NAME_LENGTH + NOTE_LENGTH + KEY_LENGTH + 32
SIZES_BYTES = tuple(4**power for power in range(3, 13))


class Message(StrEnum):
    """What is sent."""

    TEXT = "text"
    RECORD = "record"
    RECORDS = "records"
    TENSOR = "tensor"
    TABLE = "table"


# The size of those that have one only.
FIXED_BYTES = {Message.RECORD: RECORD_BYTES, Message.RECORDS: RECORD_BYTES * RECORD_COUNT}
