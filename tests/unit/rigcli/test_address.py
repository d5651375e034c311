import pytest

from capnp_rig.rigcli.address import (
    Address,
    AddressError,
    parse_address,
    parse_addresses,
    parse_listen_address,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:5000", Address(host="127.0.0.1", port=5000)),
        ("localhost:0", Address(host="localhost", port=0)),
        ("[::1]:65535", Address(host="::1", port=65535)),
        ("unix:/run/rig.sock", Address(path="/run/rig.sock")),
        ("unix:relative.sock", Address(path="relative.sock")),
    ],
)
def test_an_address_reads_and_prints_the_same(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "bad address '': expected host:port, [ipv6]:port or unix:/path"),
        ("host", "bad address 'host': expected host:port, [ipv6]:port or unix:/path"),
        (":80", "bad address ':80': expected host:port, [ipv6]:port or unix:/path"),
        ("::1:80", "bad address '::1:80': expected host:port, [ipv6]:port or unix:/path"),
        (
            "[1.2.3.4]:80",
            "bad address '[1.2.3.4]:80': expected host:port, [ipv6]:port or unix:/path",
        ),
        ("h:65536", "bad address 'h:65536': the port must be 0 to 65535"),
        ("h:-1", "bad address 'h:-1': expected host:port, [ipv6]:port or unix:/path"),
        ("h:٣", "bad address 'h:٣': expected host:port, [ipv6]:port or unix:/path"),
        ("h:8 ", "bad address 'h:8 ': expected host:port, [ipv6]:port or unix:/path"),
        (
            "unix:",
            "bad address 'unix:': the path is empty, expected host:port, [ipv6]:port or unix:/path",
        ),
        ("unix:@x", "bad address 'unix:@x': abstract names are refused, name a file"),
        ("unix:a\0b", "bad address 'unix:a\\x00b': the path holds a NUL byte"),
    ],
)
def test_what_is_no_address_says_what_is_expected(text: str, reason: str) -> None:
    with pytest.raises(AddressError) as error:
        parse_address(text)
    assert str(error.value) == reason


def test_a_unix_path_fits_into_the_kernel_structure() -> None:
    assert parse_address("unix:" + "a" * 107).path == "a" * 107
    with pytest.raises(AddressError, match="the path is over 107 bytes"):
        parse_address("unix:" + "a" * 108)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("h:1", (Address("h", 1),)),
        ("h:1,[::1]:2,unix:/x", (Address("h", 1), Address("::1", 2), Address(path="/x"))),
        # The same host twice is two servers.
        ("h:2,h:1", (Address("h", 2), Address("h", 1))),
    ],
)
def test_several_addresses_read_and_print_the_same(
    text: str, addresses: tuple[Address, ...]
) -> None:
    assert parse_addresses(text) == addresses
    assert str(parse_addresses(text)) == text


def test_spaces_around_commas_do_not_matter() -> None:
    assert parse_addresses("h:1, g:2 ,f:3") == parse_addresses("h:1,g:2,f:3")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "bad address '': expected host:port, [ipv6]:port or unix:/path"),
        (
            "h:1,",
            (
                "address 2 of 2 in 'h:1,' is empty: expected host:port, [ipv6]:port or unix:/path, "
                "with one comma between"
            ),
        ),
        (
            "h:1,,g:2",
            (
                "address 2 of 3 in 'h:1,,g:2' is empty: expected host:port, [ipv6]:port or "
                "unix:/path, with one comma between"
            ),
        ),
        (
            "h:1,g",
            (
                "address 2 of 2 in 'h:1,g': bad address 'g': expected host:port, [ipv6]:port or "
                "unix:/path"
            ),
        ),
        (
            "unix:@x,h:1",
            (
                "address 1 of 2 in 'unix:@x,h:1': bad address 'unix:@x': abstract names are "
                "refused, name a file"
            ),
        ),
        ("h:1,g:2,h:01", "address 3 of 3 in 'h:1,g:2,h:01': 'h:01' is there twice"),
    ],
)
def test_of_several_addresses_the_bad_one_is_named(text: str, reason: str) -> None:
    with pytest.raises(AddressError) as error:
        parse_addresses(text)
    assert str(error.value) == reason


@pytest.mark.parametrize("text", ["fd://3", "fd://17", "127.0.0.1:1", "unix:/s"])
def test_a_server_may_be_given_a_descriptor(text: str) -> None:
    assert str(parse_listen_address(text)) == text


@pytest.mark.parametrize("text", ["fd:3", "fd://", "fd://2", "fd://-3", "fd://x", "fd://3 "])
def test_a_bad_descriptor_is_refused(text: str) -> None:
    with pytest.raises(AddressError) as raised:
        parse_listen_address(text)
    assert str(raised.value) == f"bad address {text!r}: expected fd:// and a number from 3 up"


def test_a_client_is_given_no_descriptor() -> None:
    with pytest.raises(AddressError):
        parse_address("fd://3")
