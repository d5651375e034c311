"""What both ends of TLS share: loading PEM files, and errors in words that tell what to do.

Only who uses TLS imports this: `ssl` takes 10 ms.
"""

import os
import ssl
import stat

from capnp_rig.rigcli import os_error_text

_REASONS = {
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS",
    "HTTP_REQUEST": "the peer does not speak TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer has sent no certificate",
}
_NO_PEM = "not in PEM format"
_FILE_REASONS: dict[str | None, str] = {
    "KEY_VALUES_MISMATCH": "the key is that of another certificate",
    "NO_START_LINE": _NO_PEM,
    "NO_CERTIFICATE_OR_CRL_FOUND": _NO_PEM,
    None: _NO_PEM,
}


class TlsFileError(Exception):
    """A certificate or key cannot be used; the message says which file, and what is wrong."""


def load_chain(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    """Load our own certificate with those between it and the CA, and its key.

    `key` None means that it is in the same file.

    Raises:
        TlsFileError: A file is missing, no PEM, or they do not belong together.
    """
    what = f"the certificate {cert}" if key is None else f"the certificate {cert} with key {key}"

    def ask() -> str:
        raise TlsFileError(f"cannot use the key {key or cert}: it is encrypted with a passphrase")

    for path in {cert, key or cert}:
        _check_readable(path)
    try:
        context.load_cert_chain(cert, key, password=ask)
    except (OSError, ValueError) as error:
        reason = _file_reason(error)
        if key is None and _has_certificate(cert):
            reason = "there is no key in it; name its file (--tls-key)"
        raise TlsFileError(f"cannot use {what}: {reason}") from error


def load_ca(context: ssl.SSLContext, ca: str) -> None:
    """Trust the certificates in a PEM file.

    Raises:
        TlsFileError: There are none.
    """
    _check_readable(ca)
    try:
        context.load_verify_locations(cafile=ca)
    except (OSError, ValueError) as error:
        raise TlsFileError(f"cannot use the CA {ca}: {_file_reason(error)}") from error


def check_own_certificate(context: ssl.SSLContext, cert: str) -> None:
    """Check that peers can accept the certificate of a server's context today.

    The module `ssl` tells nothing of one's own certificate. So a client in memory shakes hands with
    it, and trusts this certificate only.

    Raises:
        TlsFileError: It is expired, not valid yet, or of no use to a server.
    """
    peer = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    peer.check_hostname = False
    peer.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    load_ca(peer, cert)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = peer.wrap_bio(back, there)
    server = context.wrap_bio(there, back, server_side=True)
    for end in (client, server, client):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise TlsFileError(f"cannot use the certificate {cert}: {tls_reason(error)}") from error


def tls_reason(error: OSError) -> str:
    """Return why a handshake failed, or a connection was lost, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    if isinstance(error, ssl.SSLEOFError):
        return "the peer closed the connection"
    if isinstance(error, ssl.SSLError) and error.reason:
        return _REASONS.get(error.reason) or error.reason.lower().replace("_", " ")
    if isinstance(error, ConnectionResetError):
        return "the peer closed the connection"
    if isinstance(error, (TimeoutError, ConnectionAbortedError)) and error.strerror is None:
        return "no answer in time"
    return os_error_text(error)


def _check_readable(path: str) -> None:
    # OpenSSL's own words name neither the file nor the cause.
    try:
        # Not by opening it: that of a FIFO waits for ever.
        mode = os.stat(path).st_mode  # noqa: PTH116 - of "" as well
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            # A pipe, as of `<(...)`: each worker reads it again, and each reload.
            raise TlsFileError(f"cannot use {path}: it is not a regular file")
        with open(path, "rb"):  # noqa: PTH123 - likewise
            pass
    except OSError as error:
        raise TlsFileError(f"cannot read {path}: {os_error_text(error)}") from error


def _has_certificate(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except (OSError, ValueError):
        return False
    return True


def _file_reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        # OpenSSL's code of the error; it has none for a file that is not PEM at all.
        return _FILE_REASONS.get(error.reason) or tls_reason(error)
    return str(error)
