"""What all stacks accept, and how they name what they do not."""

MAX_TEXT_BYTES = 16_777_216
# Of a JSON value, an HTTP body or a protobuf message: room for what stands around the text. A
# text whose JSON has escapes counts as its escaped form.
MAX_MESSAGE_BYTES = MAX_TEXT_BYTES + 4096
# Why a connection ended, in the wire engine's words.
CUT_OFF = "the peer closed within a message"
