import traceback

import pytest

from capnp_rig.server.engines.engine import end_reason
from capnp_rig.server.engines.peer_errors import PeerError, peer_error, unmarked


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
        ("no such word", "no such word"),
        ("", ""),
        ("naïve", "naïve"),
        ("nul\0", "nul\\x00"),
        ("\udcff", "\\udcff"),
        ("x" * 600, "x" * 500 + ""),
    ],
)
def test_h4_the_peer_sees_the_text_and_nothing_else(text: str, sent: str) -> None:
    whole = as_pycapnp_sends(raised(text))
    assert whole == f"\x02{sent}\x03\n"
    assert unmarked(whole) == sent


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, None),
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
        (OSError(), "broken"),
        (RuntimeError("secret"), "broken"),
    ],
)
def test_the_end_of_a_connection_is_told_in_few_words(
    error: Exception | None, reason: str | None
) -> None:
    assert end_reason(error) == reason
