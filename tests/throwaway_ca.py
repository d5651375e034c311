"""A CA of the tests, and certificates for each case."""

import datetime as dt
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

_PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Pair:
    """The files of a certificate and its key."""

    cert: str
    key: str


class ThrowawayCa:
    """Writes its certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.pem = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.pem)
        self.server = self.issue("server")
        self.client = self.issue("client", "caller@example.org", common_name="caller")

    def issue(self, name: str, *hosts: str, common_name: str | None = None) -> Pair:
        """Return a certificate, of a server at localhost unless `hosts` says otherwise."""
        identities = hosts or ("localhost", "127.0.0.1")
        return self._write(name, self._ca.issue_cert(*identities, common_name=common_name))

    def issue_expired(self, name: str) -> Pair:
        """Return one of a server at localhost, of 2020 at the latest."""
        return self._write(name, self._ca.issue_cert("localhost", "127.0.0.1", not_after=_PAST))

    def _write(self, name: str, issued: trustme.LeafCert) -> Pair:
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return Pair(str(cert), str(key))

    def server_options(self, *, mutual: bool = True) -> list[str]:
        """Return the options of a server."""
        options = ["--tls-cert", self.server.cert, "--tls-key", self.server.key]
        return [*options, "--tls-client-ca", self.pem] if mutual else options

    def client_context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """Return the context of a client that trusts this CA, and shows a certificate."""
        context = ssl.create_default_context(cafile=self.pem)
        if pair is not None:
            context.load_cert_chain(pair.cert, pair.key)
        return context
