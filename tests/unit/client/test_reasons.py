import traceback

import pytest

from capnp_rig.client.reasons import reason_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        (" \n\n", ""),
        ("wrong", "wrong"),
        ("\nwrong\nsecond", "wrong"),
        (
            "message = Traceback (most recent call last):",
            "message = Traceback (most recent call last):",
        ),
    ],
)
def test_it_is_the_first_line(text: str, line: str) -> None:
    assert reason_line(ValueError(text)) == line


def fail() -> None:
    try:
        {}["inner"]
    except KeyError as error:
        raise ValueError("outer\nsecond line\n  third") from error


def test_of_a_traceback_it_is_the_exception() -> None:
    with pytest.raises(ValueError, match="outer") as caught:
        fail()
    text = "message = " + "".join(traceback.format_exception(caught.value))
    assert reason_line(RuntimeError(text)) == "ValueError: outer"
