"""The command line: ``server run ADDR``.

Only click is imported here; the rest waits until the options are known to be good.
"""

import os

import click
from click.core import ParameterSource

from capnp_rig import rigcli
from capnp_rig.rigcli.finite_numbers import FiniteFloat
from capnp_rig.server.config import (
    ENGINES,
    LOG_FORMATS,
    LOG_LEVELS,
    LOOPS,
    REVERSE_SERVICE,
    STACKS,
    ServerConfig,
    names_a_service,
)
from capnp_rig.server.options import limit_options, worker_options


def _read_service(_context: click.Context, _option: click.Parameter, text: str) -> str:
    if not names_a_service(text):
        raise click.UsageError(f"bad service {text!r}: expected package.module:Name")
    return text


def _check_stack(config: ServerConfig) -> None:
    """Refuse what does not go together, and a stack whose libraries are missing."""
    if config.stack == "capnp":
        return
    context = click.get_current_context()
    for name in ("service", "engine", *(["loop"] if config.stack == "selectors" else [])):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} does not go with --stack {config.stack}")
    if config.workers_listen and config.address.path is not None:
        raise click.UsageError(
            f"--stack {config.stack} cannot listen on a Unix socket: every worker listens by "
            "itself, and only a TCP port can be shared"
        )
    from capnp_rig.server.stacks.registry import missing_library

    library = missing_library(config.stack)
    if library is not None:
        raise click.ClickException(
            f"--stack {config.stack} needs {library}: pip install 'capnp-rig[stacks]'"
        )


# The help of every option names its default.
@click.group(context_settings={"show_default": True})
@click.version_option(package_name="capnp-rig", message="%(prog)s %(version)s")
def cli() -> None:
    """Serve Cap'n Proto RPC."""


@cli.command()
@rigcli.address_argument
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="one per CPU",
    help="Number of worker processes.",
)
@click.option(
    "--stack",
    type=click.Choice(STACKS),
    default="capnp",
    help="The protocol; the others do the default service's job, to be compared with it.",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="wire",
    help="wire is the fast one; pycapnp is the reference implementation.",
)
@click.option(
    "--loop",
    type=click.Choice(LOOPS),
    default="uvloop",
    help="Event loop of the workers.",
)
@click.option(
    "--service",
    metavar="MODULE:NAME",
    default=REVERSE_SERVICE,
    callback=_read_service,
    help="Service class; the current folder is searched last.",
)
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    default="info",
    help="Least serious lines to print; debug tells of each connection and call.",
)
@click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    default="text",
    help="One sentence a line, or one JSON object.",
)
@click.option(
    "--drain-timeout",
    "drain_timeout_s",
    metavar="SECONDS",
    type=FiniteFloat(min=0),
    default=30.0,
    help="How long SIGTERM waits for calls in flight.",
)
@worker_options
@limit_options
@click.option(
    "--backlog",
    type=click.IntRange(1, 65_535),
    default=2048,
    help="Connections the kernel queues before they are accepted.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Listen on an address other machines can reach, without encryption.",
)
def run(**options: object) -> int:
    """Listen on ADDR and serve until SIGTERM or Ctrl-C.

    ADDR is host:port, [ipv6]:port or unix:/path. Port 0 lets the system choose one.
    """
    config = ServerConfig.of_options(options)
    _check_stack(config)
    from capnp_rig.server.supervision.launch import ScarceFilesError, launch
    from capnp_rig.server.supervision.listener import ListenError, NotLoopbackError

    try:
        return launch(config)
    except NotLoopbackError as error:
        raise click.UsageError(str(error)) from error
    except (ListenError, ScarceFilesError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot start: {error.strerror}") from error
