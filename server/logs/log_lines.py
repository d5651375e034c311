"""How a log event reads as one line of text: pure rendering."""

from collections.abc import Mapping

MAX_CONTENT_CHARS = 200
MAX_TRACE_CHARS = 16_384
# Everything that could move the cursor, change colours or forge a line: the C0 and C1 controls,
# DEL, the line separators, and the bidirectional overrides.
_UNSAFE = [
    *range(0x20),
    *range(0x7F, 0xA0),
    0x2028,
    0x2029,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
]
_ESCAPES = {code: repr(chr(code))[1:-1] for code in _UNSAFE}
_ESCAPES_KEEPING_NEWLINES = {code: text for code, text in _ESCAPES.items() if code != 0x0A}
# A backslash of the peer's must not look like one of ours.
_CONTENT_ESCAPES = {**_ESCAPES, 0x5C: "\\\\"}


def escape(text: str) -> str:
    """Return `text` with its control characters written out, as `repr` would."""
    return text.translate(_ESCAPES)


def shorten(text: str, limit: int = MAX_CONTENT_CHARS) -> str:
    """Return a peer's text, escaped, cut to `limit` characters of its own and saying so."""
    if len(text) <= limit:
        return text.translate(_CONTENT_ESCAPES)
    return f"{text[:limit].translate(_CONTENT_ESCAPES)}... ({len(text)} characters)"


def cut_middle(text: str, limit: int = MAX_TRACE_CHARS) -> str:
    """Return a traceback or a message of whatever length with at most `limit` characters of it.

    The end stays, where a traceback says what happened, and some of the beginning.
    """
    if len(text) <= limit:
        return text
    head = limit // 4
    left_out = len(text) - limit
    return f"{text[:head]}\n... {left_out} characters left out ...\n{text[head + left_out :]}"


def render_text(event: Mapping[str, object]) -> str:
    """Return an event as text: its words alone, then the traceback if there is one."""
    line = escape(str(event["event"]))
    trace = event.get("traceback")
    if trace is None:
        return line
    return f"{line}\n{str(trace).rstrip().translate(_ESCAPES_KEEPING_NEWLINES)}"
