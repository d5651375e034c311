"""The tutorial's service: a text comes in, the text goes out backwards."""

from collections.abc import Callable, Mapping
from typing import Any

from capnp_rig.schema import message
from capnp_rig.server.logs.log_lines import shorten


def reverse(text: str) -> str:
    """Return the code points of `text` in reverse order, as the tutorial does.

    Combining marks and joined emoji therefore come apart; reversing twice restores the text.
    """
    return text[::-1]


def received_line(content: str) -> str:
    """Return the log line for a text that was received."""
    return f"Received content: {shorten(content)}"


class Reverse:
    """`MessageStream` as in the tutorial; empty content gives an empty chunk."""

    interface = message.MessageStream
    note: Callable[[str], None] | None = None

    def read(self, params: Any) -> Mapping[str, bytes]:
        """Answer with the content reversed, as UTF-8."""
        # Read once: each read of a text copies it, and counts against the traversal limit.
        content: str = params.request.content
        if self.note is not None:
            self.note(received_line(content))
        return {"chunk": reverse(content).encode()}
