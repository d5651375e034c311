"""What a transport tells of who is at its other end."""

import os
import socket
from typing import Any

import pytest

from capnp_rig.objects.call_peer import (
    CallPeer,
    PeerCertificate,
    certificate_of,
    distinguished_name,
    peer_of,
)

# As `ssl.SSLObject.getpeercert` returns it.
CERTIFICATE = {
    "subject": (
        (("countryName", "CH"),),
        (("organizationName", "Acme, Inc."),),
        (("commonName", "bill"),),
    ),
    "issuer": ((("commonName", "Acme CA"),),),
    "serialNumber": "0A1B",
    "version": 3,
    "subjectAltName": (("DNS", "bill.acme.example"), ("URI", "spiffe://acme/bill")),
}


class Tls:
    def __init__(self, certificate: dict[str, Any] | None) -> None:
        self._certificate = certificate

    def getpeercert(self) -> dict[str, Any] | None:
        return self._certificate


class Transport:
    def __init__(self, **extra: Any) -> None:
        self._extra = extra

    def get_extra_info(self, name: str) -> Any:
        return self._extra.get(name)


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        (("127.0.0.1", 4711), CallPeer("127.0.0.1:4711", "127.0.0.1", 4711)),
        (("::1", 4711, 0, 0), CallPeer("[::1]:4711", "::1", 4711)),
    ],
)
def test_a_tcp_peer_has_host_and_port(name: Any, peer: CallPeer) -> None:
    assert peer_of(Transport(peername=name)) == peer


def test_a_process_at_a_unix_socket_has_its_ids() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(Transport(peername="", socket=ours))
        pid, uid, gid = os.getpid(), os.getuid(), os.getgid()
        assert peer == CallPeer(f"unix:pid={pid},uid={uid}", pid=pid, uid=uid, gid=gid)
        ours.close()
        assert peer_of(Transport(socket=ours)).uid is None


def test_a_transport_that_tells_nothing_has_an_unknown_peer() -> None:
    assert peer_of(Transport()) == CallPeer("a peer without an address")


def test_a_certificate_has_names_as_in_rfc_4514() -> None:
    transport = Transport(peername=("127.0.0.1", 1), ssl_object=Tls(CERTIFICATE))
    assert peer_of(transport).certificate == PeerCertificate(
        subject="CN=bill,O=Acme\\, Inc.,C=CH",
        common_name="bill",
        alternative_names=(("DNS", "bill.acme.example"), ("URI", "spiffe://acme/bill")),
        issuer="CN=Acme CA",
        serial_number="0A1B",
    )


@pytest.mark.parametrize("shown", [None, {}])
def test_tls_without_a_verified_certificate_has_none(shown: dict[str, Any] | None) -> None:
    assert certificate_of(Transport(ssl_object=Tls(shown))) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ((), ""),
        (((("commonName", "a"), ("serialNumber", "7")),), "CN=a+serialNumber=7"),
        (((("commonName", "#a+b=c "),),), "CN=\\#a\\+b\\=c\\ "),
        (((("commonName", " "),),), "CN=\\ "),
    ],
)
def test_a_name_is_written_so_that_no_value_looks_like_another_attribute(
    name: Any, text: str
) -> None:
    assert distinguished_name(name) == text
