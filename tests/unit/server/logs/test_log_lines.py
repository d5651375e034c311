import pytest

from capnp_rig.server.logs.log_lines import escape, render_text, shorten


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("Hello", "Hello"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("nul\0", r"nul\x00"),
        ("\x7f\x9b", r"\x7f\x9b"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\u202eevil", r"\u202eevil"),
        ("naïve 👩\u200d👧", "naïve 👩\u200d👧"),
        ("back\\slash", "back\\slash"),
    ],
)
def test_h5_control_characters_are_written_out(text: str, line: str) -> None:
    assert escape(text) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("abcd", "abcd"),
        ("abcde", "abcd... (5 characters)"),
        ("a\nb\nc", r"a\nb\n... (5 characters)"),
        ("\\n", "\\\\n"),
    ],
)
def test_h5_a_peers_text_is_cut(text: str, line: str) -> None:
    assert shorten(text, limit=4) == line


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"event": "Listening", "workers": 2}, "Listening"),
        ({"event": "a\nb"}, r"a\nb"),
        ({"event": "oops", "traceback": "one\n two \x1b\n"}, "oops\none\n two \\x1b"),
    ],
)
def test_an_event_is_its_words_alone(event: dict[str, object], text: str) -> None:
    assert render_text(event) == text
