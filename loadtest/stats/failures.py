"""How a failed call is named: short, and in few enough ways to be counted by kind."""

from collections import defaultdict

_MAX_CHARS = 120
# A server may put a number of its own into each reason; a table of millions helps nobody.
_MAX_REASONS = 16


class WrongReply(Exception):
    """A reply came, but not the right one. The text has no payload, so that kinds stay few."""


def check_reply(reply: bytes | memoryview, expected: bytes) -> None:
    """Compare a reply with what it must be.

    Raises:
        WrongReply: They differ.
    """
    if reply != expected:
        what = "other bytes" if len(reply) == len(expected) else "another length"
        raise WrongReply(f"the reply has {what} than expected")


class FailureNames:
    """Shortens exceptions to one line, and their reasons to a bounded number per type."""

    def __init__(self) -> None:
        self._reasons: defaultdict[str, set[str]] = defaultdict(set)

    def reason(self, error: BaseException) -> str:
        """Return the first line of an exception's text, or one that stands for the rest."""
        reason = (str(error).splitlines() or [""])[0][:_MAX_CHARS]
        known = self._reasons[type(error).__name__]
        if reason in known:
            return reason
        if len(known) >= _MAX_REASONS:
            return "(other reasons)"
        known.add(reason)
        return reason

    def shorten(self, error: Exception) -> Exception:
        """Return an exception of the same type whose text is that of `reason`.

        The type must be one that takes its text as the only argument.
        """
        reason = self.reason(error)
        return error if reason == str(error) else type(error)(reason)


def kind_of(error: BaseException) -> str:
    """Return the kind of a failure, as ``Type: reason``."""
    return f"{type(error).__name__}: {error}"
