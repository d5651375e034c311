"""Where a server listens: ``host:port``, ``[::1]:port`` or ``unix:/path``.

Several servers of one service are several addresses with a comma between: ``a:5000,b:5000``.
"""

import re
from dataclasses import dataclass

# sun_path is 108 bytes with its closing NUL (unix(7)).
_MAX_PATH_BYTES = 107
_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]+)", re.ASCII)
_DESCRIPTOR = re.compile(r"fd://([0-9]{1,9})", re.ASCII)
_EXPECTED = "expected host:port, [ipv6]:port or unix:/path"


class AddressError(ValueError):
    """The text is no address; the message says why and what is expected."""


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address (`host` and `port`) or a Unix socket (`path`); the other fields are None.

    A server may also be given a socket that listens already, as the descriptor `fd`.
    """

    host: str | None = None
    port: int | None = None
    path: str | None = None
    fd: int | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        if self.fd is not None:
            return f"fd://{self.fd}"
        host = f"[{self.host}]" if self.host is not None and ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read one address as a user types it.

    Raises:
        AddressError: The text is not an address.
    """
    if text.startswith("unix:"):
        return _parse_unix(text)
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise AddressError(f"bad address {text!r}: {_EXPECTED}")
    host = match["host"] if match["v6"] is None else match["v6"]
    if not host or host.isspace() or (match["v6"] is not None and ":" not in host):
        raise AddressError(f"bad address {text!r}: {_EXPECTED}")
    if len(match["port"]) > 5 or int(match["port"]) > 65535:
        raise AddressError(f"bad address {text!r}: the port must be 0 to 65535")
    return Address(host=host, port=int(match["port"]))


class Addresses(tuple[Address, ...]):
    """The addresses of servers that are called as one, at least one; as text with commas."""

    __slots__ = ()

    def __str__(self) -> str:
        return ",".join(map(str, self))


def parse_addresses(text: str) -> Addresses:
    """Read one address or several, with commas between, as a user types them.

    The order is kept. A comma always separates, so a path with a comma in it cannot be named.

    Raises:
        AddressError: A part is empty or no address, or an address comes twice.
    """
    parts = text.split(",")
    if len(parts) == 1:
        return Addresses([parse_address(text)])
    addresses: list[Address] = []
    for number, part in enumerate(map(str.strip, parts), start=1):
        where = f"address {number} of {len(parts)} in {text!r}"
        if not part:
            raise AddressError(f"{where} is empty: {_EXPECTED}, with one comma between")
        try:
            address = parse_address(part)
        except AddressError as error:
            raise AddressError(f"{where}: {error}") from error
        if address in addresses:
            raise AddressError(f"{where}: {part!r} is there twice")
        addresses.append(address)
    return Addresses(addresses)


def parse_listen_address(text: str) -> Address:
    """Read the address of a server, which may be ``fd://3``: a socket that was opened for it.

    Raises:
        AddressError: The text is not an address.
    """
    if not text.startswith("fd:"):
        return parse_address(text)
    match = _DESCRIPTOR.fullmatch(text)
    # The first three are the standard streams.
    if match is None or int(match[1]) < 3:
        raise AddressError(f"bad address {text!r}: expected fd:// and a number from 3 up")
    return Address(fd=int(match[1]))


def _parse_unix(text: str) -> Address:
    path = text.removeprefix("unix:")
    if not path:
        raise AddressError(f"bad address {text!r}: the path is empty, {_EXPECTED}")
    # Anyone on the machine can connect to an abstract name: it has no file mode.
    if path.startswith(("@", "\0")):
        raise AddressError(f"bad address {text!r}: abstract names are refused, name a file")
    if "\0" in path:
        raise AddressError(f"bad address {text!r}: the path holds a NUL byte")
    if len(path.encode(errors="surrogateescape")) > _MAX_PATH_BYTES:
        raise AddressError(f"bad address {text!r}: the path is over {_MAX_PATH_BYTES} bytes")
    return Address(path=path)
