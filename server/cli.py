"""The command line: ``server run ADDR`` and ``server check CONFIG``.

Only click is imported here; the rest waits until the options are known to be good.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

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
    TLS_CONNECTIONS,
    ConfigError,
    ServerConfig,
    names_a_service,
)
from capnp_rig.server.cpu_share import default_workers
from capnp_rig.server.options import (
    limit_options,
    metrics_options,
    process_options,
    tls_options,
    trace_options,
    unix_options,
    worker_options,
)
from capnp_rig.server.settings import (
    SettingsCommand,
    parsed_again,
    settings_of,
    unknown_variables,
)


def _read_service(_context: click.Context, _option: click.Parameter, text: str) -> str:
    if not names_a_service(text):
        raise click.UsageError(f"bad service {text!r}: expected package.module:Name")
    return text


def _checked(options: Mapping[str, object]) -> ServerConfig:
    """Return the configuration of the options, after all that can be checked without a start."""
    config = ServerConfig.of_options(_with_tls_default(options))
    _check_stack(config)
    _check_tls(config)
    _check_unix(config)
    if config.metrics is not None and find_spec("prometheus_client") is None:
        raise click.ClickException(
            "--metrics needs prometheus-client: pip install 'capnp-rig[metrics]'"
        )
    if config.traces:
        _check_traces(config)
    return config


def _check_traces(config: ServerConfig) -> None:
    """Refuse traces where there can be none."""
    if config.stack != "capnp":
        raise click.UsageError(f"--traces does not go with --stack {config.stack}")
    from capnp_rig.server.trace_provider import missing_for_traces

    reason = missing_for_traces()
    if reason is not None:
        raise click.ClickException(reason)


def _with_tls_default(options: Mapping[str, object]) -> Mapping[str, object]:
    """Return the options, with fewer connections by default where each has the buffers of TLS."""
    context = click.get_current_context()
    is_default = context.get_parameter_source("max_connections") is ParameterSource.DEFAULT
    if options["tls_cert"] is None or not is_default:
        return options
    return {**options, "max_connections": TLS_CONNECTIONS}


def _check_unix(config: ServerConfig) -> None:
    """Refuse to promise for TCP what only a Unix socket can keep."""
    if config.address.port is not None and config.unix.allow_uid:
        raise click.UsageError("--allow-uid goes with a Unix socket: over TCP there is no user")


def _check_tls(config: ServerConfig) -> None:
    """Refuse options of TLS without TLS, and a stack that has none."""
    if config.tls.tls_cert is None:
        for name in ("tls_key", "tls_client_ca"):
            if getattr(config.tls, name) is not None:
                raise click.UsageError(f"--{name.replace('_', '-')} goes with --tls-cert")
    elif config.stack == "selectors":
        raise click.UsageError(
            "--tls-cert does not go with --stack selectors: a bare readiness loop has plain "
            "sockets only"
        )


def _check_stack(config: ServerConfig) -> None:
    """Refuse what does not go together, and a stack whose libraries are missing."""
    if config.stack == "capnp":
        return
    context = click.get_current_context()
    foreign = ["service", "engine", "max-message"]
    foreign += {"selectors": ["loop"], "echo": ["max-requests"]}.get(config.stack, [])
    for name in foreign:
        parameter = "max_message_bytes" if name == "max-message" else name.replace("-", "_")
        if context.get_parameter_source(parameter) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} does not go with --stack {config.stack}")
    if config.workers_listen and config.address.port is None:
        what = "a Unix socket" if config.address.fd is None else str(config.address)
        raise click.UsageError(
            f"--stack {config.stack} cannot listen on {what}: every worker listens by itself, and "
            "only a TCP port can be shared"
        )
    if config.workers_listen:
        for name in ("max_connections_per_peer", "max_connect_rate_per_peer"):
            if getattr(config.limits, name):
                raise click.UsageError(
                    f"--{name.replace('_', '-')} does not go with --stack {config.stack}: every "
                    "worker listens by itself, and nobody sees all connections of a peer"
                )
    from capnp_rig.server.stacks.registry import missing_library

    library = missing_library(config.stack)
    if library is not None:
        raise click.ClickException(
            f"--stack {config.stack} needs {library}: pip install 'capnp-rig[stacks]'"
        )


@contextmanager
def _refusals_told() -> Iterator[None]:
    """Make a line for the user of what keeps a server from starting."""
    from capnp_rig.rigcli.tls import TlsFileError
    from capnp_rig.server.supervision.launch import ScarceFilesError
    from capnp_rig.server.supervision.listener import ListenError, NotLoopbackError
    from capnp_rig.server.supervision.trial import TrialError
    from capnp_rig.server.supervision.user import UserError

    try:
        yield
    except NotLoopbackError as error:
        raise click.UsageError(str(error)) from error
    except (ListenError, ScarceFilesError, TlsFileError, UserError) as error:
        raise click.ClickException(str(error)) from error
    except TrialError as error:
        if error.trace is not None:
            click.echo(error.trace, err=True)
        raise click.ClickException(f"a worker cannot start: {error}") from error
    except OSError as error:
        raise click.ClickException(f"cannot start: {error.strerror}") from error


def _check_certificates(config: ServerConfig) -> None:
    """Refuse certificates that no client would accept, before anything listens.

    Raises:
        TlsFileError: They are such.
    """
    if config.tls.tls_cert is not None:
        from capnp_rig.server.connections.tls import check_files

        check_files(config)


# The help of every option names its default.
@click.group(context_settings={"show_default": True})
@click.version_option(package_name="capnp-rig", message="%(prog)s %(version)s")
def cli() -> None:
    """Serve Cap'n Proto RPC."""


@cli.command(cls=SettingsCommand)
@rigcli.listen_address_argument
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    default=default_workers,
    show_default="one per CPU that it may use",
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
@metrics_options
@tls_options
@unix_options
@click.option(
    "--backlog",
    type=click.IntRange(1, 65_535),
    default=2048,
    help="Connections the kernel queues before they are accepted.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Listen on an address that other machines can reach, without TLS.",
)
@process_options
@trace_options
@click.pass_context
def run(context: click.Context, /, **options: object) -> int:
    """Listen on ADDR and serve until SIGTERM or Ctrl-C.

    ADDR is host:port, [ipv6]:port, unix:/path, or fd://3 for a socket that listens already, as
    systemd opens it. Port 0 lets the system choose one.

    ADDR and each option may also be set in the environment (CAPNP_RIG_ADDRESS) or, under its name,
    in the file of --config (address). The command line wins over the environment, and that over
    the file.
    """
    config = _checked(options)
    from capnp_rig.server.supervision.launch import launch

    def reread() -> ServerConfig:
        try:
            with parsed_again(context) as parsed:
                return _checked(parsed.params)
        except click.ClickException as error:
            raise ConfigError(error.format_message()) from error

    with _refusals_told():
        _check_certificates(config)
        return launch(config, reread)


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("config", metavar="CONFIG")
@click.argument("arguments", metavar="[ADDR] [OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def check(context: click.Context, config: str, arguments: tuple[str, ...]) -> int:
    """Check the settings of `server run --config CONFIG [ADDR] [OPTIONS]` without serving.

    A worker is started with them: its service must be found, and whatever else it reads. What
    holds is printed, with where it came from. The exit status is 2 for a mistake in the settings,
    1 if a worker cannot start.
    """
    args = ["--config", config, *arguments]
    with run.make_context("run", args, parent=context.parent) as parsed:
        settings = settings_of(parsed)
        checked = _checked(parsed.params)
    for line in unknown_variables(run, os.environ):
        click.echo(f"server: {line}", err=True)
    for setting in settings:
        click.echo(str(setting))
    from capnp_rig.server.supervision.listener import check_metrics_address, resolve
    from capnp_rig.server.supervision.trial import try_worker
    from capnp_rig.server.supervision.user import become, find_user

    with _refusals_told():
        if checked.address.port is not None:
            resolve(checked.address, insecure=checked.may_be_reached)
        if checked.metrics is not None:
            check_metrics_address(checked.metrics, insecure=checked.insecure)
        if checked.user is not None:
            become(find_user(checked.user), [])
        try_worker(checked)
    return 0
