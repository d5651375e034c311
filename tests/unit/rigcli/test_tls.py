"""Files of TLS that cannot be used are named, with what is wrong."""

import os
import re
import ssl
from pathlib import Path

import pytest
from throwaway_ca import ThrowawayCa

from capnp_rig.rigcli.tls import TlsFileError, load_ca, load_chain


@pytest.fixture
def context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def test_a_certificate_without_a_key_asks_for_the_key(
    context: ssl.SSLContext, tmp_path: Path
) -> None:
    cert = ThrowawayCa(tmp_path).server.cert
    reason = f"cannot use the certificate {cert}: there is no key in it; name its file (--tls-key)"
    with pytest.raises(TlsFileError, match=f"^{re.escape(reason)}$"):
        load_chain(context, cert, None)
    text = tmp_path / "text.pem"
    text.write_text("nothing")
    with pytest.raises(TlsFileError, match=r"text\.pem: not in PEM format$"):
        load_chain(context, str(text), None)


def test_a_pipe_is_refused_and_not_waited_for(context: ssl.SSLContext, tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    for load in (lambda: load_chain(context, fifo, None), lambda: load_ca(context, fifo)):
        with pytest.raises(TlsFileError, match=r"fifo: it is not a regular file$"):
            load()
