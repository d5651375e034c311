"""Who calls: what a transport tells of the other end of its connection."""

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Linux's struct ucred: pid, uid, gid.
_CREDENTIALS = struct.Struct("3i")
# RFC 4514, section 3; the others keep the names that OpenSSL has for them.
_SHORT_NAMES = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
_ESCAPED = {ord(char): f"\\{char}" for char in ',+"\\<>;='}


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The certificate that a peer proved to own, verified against the server's client CA.

    `subject` and `issuer` are distinguished names as in RFC 4514, such as ``CN=billing,O=Acme``;
    `alternative_names` are pairs such as ``("DNS", "billing.acme.example")``.
    """

    subject: str
    common_name: str | None = None
    alternative_names: tuple[tuple[str, str], ...] = ()
    issuer: str = ""
    serial_number: str = ""


@dataclass(frozen=True, slots=True)
class CallPeer:
    """The other end of a connection.

    `address` is its name in the server's log. A TCP peer has `host` and `port`; the process at the
    other end of a Unix socket has `pid`, `uid` and `gid`, as they were when it connected. What is
    not known is None, such as the certificate of a peer that showed none.
    """

    address: str
    host: str | None = None
    port: int | None = None
    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    certificate: PeerCertificate | None = None


UNKNOWN_PEER = CallPeer("a peer without an address")


def peer_of(transport: Any) -> CallPeer:
    """Return what an open transport of asyncio's tells of its other end."""
    certificate = certificate_of(transport)
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        host, port = name[:2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return CallPeer(address, host, port, certificate=certificate)
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return CallPeer(UNKNOWN_PEER.address, certificate=certificate)
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        # It was closed meanwhile.
        return CallPeer(UNKNOWN_PEER.address, certificate=certificate)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    return CallPeer(f"unix:pid={pid},uid={uid}", pid=pid, uid=uid, gid=gid, certificate=certificate)


def certificate_of(transport: Any) -> PeerCertificate | None:
    """Return the certificate of the other end; None without TLS, or if it showed none."""
    tls = transport.get_extra_info("ssl_object")
    # Empty for one that was not verified.
    fields: Mapping[str, Any] | None = None if tls is None else tls.getpeercert()
    if not fields:
        return None
    subject = fields.get("subject", ())
    names = [value for name, value in _attributes(subject) if name == "commonName"]
    return PeerCertificate(
        distinguished_name(subject),
        names[-1] if names else None,
        tuple((kind, str(name)) for kind, name in fields.get("subjectAltName", ())),
        distinguished_name(fields.get("issuer", ())),
        fields.get("serialNumber", ""),
    )


def distinguished_name(name: Any) -> str:
    """Return a name as `ssl` gives it, tuples of pairs in the order of the certificate, as text."""
    return ",".join(
        "+".join(f"{_SHORT_NAMES.get(key, key)}={_escaped(value)}" for key, value in part)
        for part in reversed(name)
    )


def _attributes(name: Any) -> Iterator[tuple[str, str]]:
    return (attribute for part in name for attribute in part)


def _escaped(value: str) -> str:
    text = value.translate(_ESCAPED)
    if text.startswith(("#", " ")):
        text = f"\\{text}"
    return f"{text[:-1]}\\ " if value.endswith(" ") and len(value) > 1 else text
