from types import SimpleNamespace

import pytest

from capnp_rig.server.services.reverse import Reverse, reverse

TEXTS = [
    ("", ""),
    ("Hello", "olleH"),
    ("ab\0cd", "dc\0ba"),
    ("e\u0301", "\u0301e"),
    ("\u0301\u0302", "\u0302\u0301"),
    ("👩\u200d👧", "👧\u200d👩"),
    ("🇩🇪🇫", "🇫🇪🇩"),
    ("a\r\nb", "b\n\ra"),
    ("שלום", "םולש"),
    ("❤\ufe0f", "\ufe0f❤"),
]


@pytest.mark.parametrize(("text", "backwards"), TEXTS)
def test_e3_text_is_reversed_by_code_point(text: str, backwards: str) -> None:
    assert reverse(text) == backwards
    assert reverse(backwards) == text


@pytest.mark.parametrize(("text", "backwards"), TEXTS)
def test_the_service_answers_in_utf8(text: str, backwards: str) -> None:
    params = SimpleNamespace(request=SimpleNamespace(content=text))
    assert Reverse().read(params) == {"chunk": backwards.encode()}


def test_the_service_notes_what_it_received_escaped_and_cut() -> None:
    notes = []
    service = Reverse()
    service.note = notes.append
    service.read(SimpleNamespace(request=SimpleNamespace(content="a\x1b" + "x" * 300)))
    assert notes == ["Received content: a\\x1b" + "x" * 198 + "... (302 characters)"]
