import traceback

import pytest

from server.engines.peer_errors import PeerError, peer_error
from server.engines.pycapnp_engine import end_reason


def as_pycapnp_sends(error: Exception) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def fail(text: str) -> None:
    try:
        [].pop()
    except IndexError:
        raise peer_error(text) from None


def raised(text: str) -> Exception:
    with pytest.raises(PeerError) as caught:
        fail(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("no such word", "no such word\n"),
        ("", "\n"),
        ("naïve", "naïve\n"),
        ("nul\0", "nul\\x00\n"),
        ("\udcff", "\\udcff\n"),
        ("x" * 600, "x" * 500 + "\n"),
    ],
)
def test_h4_the_peer_sees_the_text_and_nothing_else(text: str, sent: str) -> None:
    assert as_pycapnp_sends(raised(text)) == sent


@pytest.mark.parametrize(
    ("error", "eof", "closed_by_us", "reason"),
    [
        (None, True, False, None),
        (None, False, True, None),
        (None, True, True, None),
        (None, False, False, "protocol error"),
        (ConnectionResetError(104, "Connection reset by peer"), False, False, "reset"),
        (OSError(), True, False, "broken"),
        (RuntimeError("secret"), False, False, "broken"),
    ],
)
def test_the_end_of_a_connection_is_told_in_few_words(
    error: Exception | None, *, eof: bool, closed_by_us: bool, reason: str | None
) -> None:
    told = end_reason(error, eof=eof, closed_by_us=closed_by_us)
    assert (told is None) == (reason is None)
    assert (reason or "") in (told or "")
