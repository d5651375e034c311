import io
from pathlib import Path

import pytest

from capnp_rig.client.params_argument import read_params_argument
from capnp_rig.wire.json_values.reading import ParamsError


def test_params_are_text_a_file_or_the_input(tmp_path: Path) -> None:
    file = tmp_path / "params.json"
    file.write_bytes(b"\xef\xbb\xbf{}")
    assert read_params_argument('{"x": 1}') == '{"x": 1}'
    assert read_params_argument(f"@{file}", most_bytes=5) == "{}"
    assert read_params_argument("-", stdin=io.BytesIO(b"[\xc3\xa9]")) == "[é]"
    assert read_params_argument("-") == "-"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@/dev/zero", "cannot read /dev/zero: it is over 9 bytes"),
        ("-", "cannot read the standard input: it is over 9 bytes"),
        ("@/nowhere", "cannot read /nowhere: No such file or directory"),
        ("@/\0", "cannot read /\0: embedded null byte"),
    ],
)
def test_what_cannot_be_read_is_a_mistake(text: str, message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        read_params_argument(text, stdin=io.BytesIO(b"0123456789"), most_bytes=9)
    assert str(caught.value) == message


def test_a_text_in_another_encoding_is_a_mistake() -> None:
    with pytest.raises(ParamsError, match="the standard input: it is not UTF-8 text"):
        read_params_argument("-", stdin=io.BytesIO(b'{"x": "\xff"}'))
