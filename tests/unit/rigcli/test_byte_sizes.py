import click
import pytest

from capnp_rig.rigcli.byte_sizes import ByteSize


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4K", 4096),
        ("4KiB", 4096),
        ("4 kb", 4096),
        ("512M", 512 << 20),
        ("512MiB", 512 << 20),
        ("2g", 2 << 30),
        (7, 7),
    ],
)
def test_a_size_is_read(text: str | int, size: int) -> None:
    assert ByteSize().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5M", "M", "4 TiB", "4Kx", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size: write bytes, or 512MiB"):
        ByteSize().convert(text, None, None)
