"""What an exception says, in one line."""

from itertools import pairwise

_TRACEBACK = "Traceback (most recent call last):"


def reason_line(error: BaseException) -> str:
    """Return the line of an exception's text that says what happened, empty if it has no text.

    That is the first one, but a server of pycapnp sends the traceback of its Python: of that, it is
    the line of the exception, behind the frames.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines or _TRACEBACK not in lines[0]:
        return lines[0] if lines else ""
    behind = [line for above, line in pairwise(lines) if above[0] == " " and line[0] != " "]
    # Of exceptions that follow from each other, the last.
    return behind[-1] if behind else lines[0]
