"""What the commands of `loadtest` share: where results go, how failures end, tables."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console

from capnp_rig import rigcli
from capnp_rig.loadtest.engine.child_process import Terminated, unwinding_on_sigterm

# Wide enough for the tables where the output is no terminal.
_PIPE_COLUMNS = 150

results_option = click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder in which the run's own folder is made.",
)


@contextmanager
def failures_in_one_line(*kinds: type[Exception]) -> Iterator[None]:
    """Turn the named exceptions into one line on stderr, and SIGTERM into exit status 143."""
    try:
        with unwinding_on_sigterm():
            yield
    except kinds as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(rigcli.os_error_text(error)) from error
    except Terminated:
        sys.exit(143)


def stdout() -> Console:
    """Return a console on stdout, wide enough where it is no terminal."""
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_COLUMNS)
