from dataclasses import replace

import pytest

from loadtest.rivals import (
    CODECS,
    CONTRACTS,
    ENCODE,
    SIZES_BYTES,
    CodecMismatch,
    sample_text,
    timed_call,
    verify,
)


@pytest.mark.parametrize("size_bytes", SIZES_BYTES)
@pytest.mark.parametrize("name", CODECS)
def test_every_codec_gives_the_text_back(name: str, size_bytes: int) -> None:
    text = sample_text(size_bytes)
    assert len(text.encode()) == size_bytes
    for contract in CONTRACTS:
        if contract == ENCODE and CODECS[name].build is None:
            continue
        call, expected = timed_call(CODECS[name], contract, text)
        assert expected is None or call() == expected


def test_both_cap_n_proto_codecs_write_the_same_bytes() -> None:
    text = sample_text(100)
    assert verify(CODECS["wire"], text) == verify(CODECS["pycapnp"], text)


def test_a_codec_that_loses_a_character_is_not_timed() -> None:
    lossy = replace(CODECS["json"], content=lambda _: "other")
    with pytest.raises(CodecMismatch, match="does not give back"):
        timed_call(lossy, CONTRACTS[0], "some")
