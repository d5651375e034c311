"""The options of TLS, as every client command takes them: ``--tls``, ``--tls-ca`` and so on."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from capnp_rig.client.tls import Tls

_Command = Callable[..., Any]

# As click names what it passes on.
TLS_OPTIONS = ("tls", "tls_ca", "tls_cert", "tls_key", "tls_name")

_OPTIONS = (
    click.option("--tls", is_flag=True, help="Connect over TLS; implied by each --tls-..."),
    click.option(
        "--tls-ca", metavar="FILE", help="Trust these certificates (PEM), not the system's."
    ),
    click.option("--tls-cert", metavar="FILE", help="Show this certificate to the server (PEM)."),
    click.option("--tls-key", metavar="FILE", help="Its key, if that is in another file."),
    click.option(
        "--tls-name", metavar="NAME", help="What the server's certificate names, if not the host."
    ),
)


def tls_options(command: _Command) -> _Command:
    """Add them to a command, which hands what it gets to `tls_of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def tls_of(options: Mapping[str, Any]) -> "Tls | None":
    """Return what was asked for: None for no TLS.

    Raises:
        UsageError: A key without its certificate.
    """
    if not any(options[name] for name in TLS_OPTIONS):
        return None
    if options["tls_key"] and not options["tls_cert"]:
        raise click.UsageError("--tls-key goes with --tls-cert")
    # `ssl` takes 10 ms to import.
    from capnp_rig.client.tls import Tls

    return Tls(options["tls_ca"], options["tls_cert"], options["tls_key"], options["tls_name"])
