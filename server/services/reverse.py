"""The tutorial's service: a text comes in, the text goes out backwards."""

from collections.abc import Callable, Mapping
from typing import Any

from capnp_rig.schema import message
from capnp_rig.server.logs.log_lines import shorten

# Takes one log line about what was received; None if it is not logged.
Note = Callable[[str], object] | None


def reverse(text: str, note: Note = None) -> str:
    """Return the code points of `text` in reverse order, as the tutorial does.

    Combining marks and joined emoji therefore come apart; reversing twice restores the text.
    """
    if note is not None:
        note(received_line(text))
    return text[::-1]


def received_line(content: str) -> str:
    """Return the log line for a text that was received."""
    return f"Received content: {shorten(content)}"


class Reverse:
    """`MessageStream` as in the tutorial; empty content gives an empty chunk."""

    interface = message.MessageStream
    note: Note = None

    def read(self, params: Any) -> Mapping[str, bytes]:
        """Answer with the content reversed, as UTF-8."""
        return {"chunk": reverse(params.request.content, self.note).encode()}
