"""The options of `server run`, in groups; each is named as its field in `server.config`."""

from collections.abc import Callable
from typing import Any

import click

from capnp_rig import rigcli
from capnp_rig.rigcli.byte_sizes import ByteSize
from capnp_rig.rigcli.finite_numbers import FiniteFloat
from capnp_rig.rigcli.message_limit import message_limit_option
from capnp_rig.rigcli.quantities import DEFAULT_IN_FLIGHT, MOST_IN_FLIGHT
from capnp_rig.server.config import DISPATCHES
from capnp_rig.server.settings import TextType

# 100 days: more than timers of all libraries bear is as good as never.
_MOST_S = 8_640_000.0

_Command = Callable[..., Any]


def limit_options(command: _Command) -> _Command:
    """Add the options of `config.ConnectionLimits`."""
    return _with_options(
        command,
        click.option(
            "--max-connections",
            type=click.IntRange(min=1),
            default=10_000,
            help="Connections served at once, over TLS 2000 by default; at most half the "
            "open-files limit.",
        ),
        click.option(
            "--max-in-flight",
            type=click.IntRange(1, MOST_IN_FLIGHT),
            default=DEFAULT_IN_FLIGHT,
            help="Calls in flight on a connection; further ones are refused as overloaded.",
        ),
        click.option(
            "--max-worker-calls",
            type=click.IntRange(min=1),
            default=4_096,
            help="Calls of async methods in flight in a worker; further ones are refused.",
        ),
        _seconds(
            "--first-frame-timeout",
            10.0,
            "Time for the first whole message of a connection, and 1 s more for each --min-rate "
            "bytes, at most four times as much; 0 is no limit.",
        ),
        click.option(
            "--min-rate",
            metavar="BYTES/S",
            type=click.IntRange(min=0),
            default=500,
            help="How fast a message must come, over 10 s; 0 is no limit.",
        ),
        _seconds(
            "--idle-timeout",
            600.0,
            "A connection is closed when nothing came for so long and no call runs; 0 is never.",
        ),
        _seconds(
            "--max-age",
            0.0,
            "A connection is closed when it is so old, give or take 10 %, and quiet; 0 is never.",
        ),
        click.option(
            "--max-connections-per-peer",
            type=click.IntRange(min=0),
            default=0,
            help="Connections of one address, or of one user of a Unix socket; 0 is no limit.",
        ),
        click.option(
            "--max-connect-rate-per-peer",
            metavar="CONNECTIONS/S",
            type=FiniteFloat(min=0),
            default=0.0,
            help="New connections a second of one address or user; 0 is no limit.",
        ),
        message_limit_option("Largest message, in either direction; of the capnp stack only."),
    )


def process_options(command: _Command) -> _Command:
    """Add the options of the processes themselves."""
    return _with_options(
        command,
        click.option(
            "--user",
            metavar="NAME[:GROUP]",
            help="Become this user, for good, when ADDR is bound; needs root.",
        ),
    )


def tls_options(command: _Command) -> _Command:
    """Add the options of `config.TlsOptions`."""
    return _with_options(
        command,
        click.option(
            "--tls-cert",
            metavar="FILE",
            help="Serve over TLS with this certificate, in PEM with those up to the CA.",
        ),
        click.option("--tls-key", metavar="FILE", help="Its key, if that is in another file."),
        click.option(
            "--tls-client-ca",
            metavar="FILE",
            help="Serve only clients with a certificate from this CA (mutual TLS).",
        ),
        click.option(
            "--tls-handshake-timeout",
            "tls_handshake_timeout_s",
            metavar="SECONDS",
            type=FiniteFloat(min=0, min_open=True, max=_MOST_S),
            default=5.0,
            help="A connection is closed when its handshake is not done by then.",
        ),
    )


class _Mode(TextType):
    """A file mode in octal, as chmod has it."""

    name = "octal"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the number."""
        try:
            mode = int(str(value), 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777:
            self.fail(f"{value!r} is no mode in octal, such as 660", param, ctx)
        return mode

    def text_of(self, value: int) -> str:
        """Return the number in octal."""
        return f"{value:o}"


def unix_options(command: _Command) -> _Command:
    """Add the options of `config.UnixOptions`."""
    return _with_options(
        command,
        click.option(
            "--socket-mode",
            metavar="OCTAL",
            type=_Mode(),
            default="600",
            help="Mode of the file of a Unix socket, from the moment it is there.",
        ),
        click.option(
            "--allow-uid",
            metavar="UID",
            type=click.IntRange(min=0),
            multiple=True,
            help="Serve only processes of this user on a Unix socket; repeatable.",
        ),
    )


def worker_options(command: _Command) -> _Command:
    """Add the options of how workers are watched and replaced."""
    return _with_options(
        command,
        click.option(
            "--worker-timeout",
            "worker_timeout_s",
            metavar="SECONDS",
            type=FiniteFloat(min=0),
            default=30.0,
            help="How long a method may block its worker before that is killed; 0: for ever.",
        ),
        click.option(
            "--max-requests",
            metavar="N",
            type=click.IntRange(min=0),
            default=0,
            help="Calls after which a worker is replaced by a fresh one; 0: no limit.",
        ),
        click.option(
            "--max-requests-jitter",
            metavar="N",
            type=click.IntRange(min=0),
            default=0,
            help="Up to so many calls more, at random for each worker.",
        ),
        click.option(
            "--max-worker-rss",
            metavar="SIZE",
            type=ByteSize(),
            default="0",
            help="Memory above which a worker is replaced, such as 512MiB; 0: no limit.",
        ),
        click.option(
            "--dispatch",
            type=click.Choice(DISPATCHES),
            default=DISPATCHES[0],
            help="Which worker gets the next connection.",
        ),
        click.option(
            "--reload",
            is_flag=True,
            help="For development: reload when a .py or .capnp file changes.",
        ),
        click.option(
            "--reload-dir",
            metavar="FOLDER",
            multiple=True,
            type=click.Path(exists=True, file_okay=False),
            show_default="the current one",
            help="A folder that --reload watches; may be repeated.",
        ),
    )


def metrics_options(command: _Command) -> _Command:
    """Add the options of what an operator sees."""
    return _with_options(
        command,
        click.option(
            "--metrics",
            metavar="ADDR",
            callback=rigcli.read_address_option,
            help="Serve /metrics for Prometheus, /health/live and /health/ready on this address.",
        ),
    )


def _seconds(name: str, default_s: float, text: str) -> Callable[[_Command], _Command]:
    field = f"{name.removeprefix('--').replace('-', '_')}_s"
    kind = FiniteFloat(min=0, max=_MOST_S)
    return click.option(name, field, metavar="SECONDS", type=kind, default=default_s, help=text)


def trace_options(command: _Command) -> _Command:
    """Add the option of traces."""
    return _with_options(
        command,
        click.option(
            "--traces",
            is_flag=True,
            help="Make OpenTelemetry spans of calls, exported as its environment variables say.",
        ),
    )


def _with_options(command: _Command, *options: Callable[[_Command], _Command]) -> _Command:
    # A decorator that comes first in the source is applied last.
    for option in reversed(options):
        command = option(command)
    return command
