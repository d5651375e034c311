"""What the commands of `loadtest` share: options, how a measurement runs and fails, its end."""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from capnp_rig import rigcli
from capnp_rig.loadtest.engine.child_process import Terminated, unwinding_on_sigterm
from capnp_rig.loadtest.engine.progress import STEADY, Rhythm, ShowProgress

if TYPE_CHECKING:
    from rich.console import Console

    from capnp_rig.loadtest.engine.early_end import EarlyEnd
    from capnp_rig.loadtest.results.writing import WrittenResult
    from capnp_rig.loadtest.stats.failures import FailedCall

Command = TypeVar("Command", bound=Callable[..., Any])
Config = TypeVar("Config")
Measured = TypeVar("Measured")

# Wide enough for the tables where the output is no terminal.
_PIPE_COLUMNS = 150


def _probed(_context: click.Context, _option: click.Parameter, parent: Path) -> Path:
    """Find out before the load whether its result can be written."""
    from capnp_rig.loadtest.results.writing import probe

    with failures_in_one_line():
        probe(parent)
    return parent


results_option = click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    callback=_probed,
    help="Folder in which the run's own folder is made.",
)
read_results_option = click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    help="Folder in which results are looked for.",
)
allow_void_option = click.option(
    "--allow-void", is_flag=True, help="Exit with 0 instead of 5 where the run is void."
)


def _read_name(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    from capnp_rig.loadtest.results.catalog import check_name

    try:
        return None if text is None else check_name(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


name_option = click.option(
    "--name",
    metavar="NAME",
    callback=_read_name,
    help="Call the run so, for loadtest list, compare and report.",
)


def result_folder(word: str, results: Path) -> Path:
    """Return the folder of the result that a word of the user stands for.

    Raises:
        click.UsageError: There is none.
    """
    from capnp_rig.loadtest.results.catalog import NoSuchResult, find_result

    try:
        return find_result(word, results)
    except NoSuchResult as error:
        raise click.UsageError(str(error)) from error


def options(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return a decorator that adds several options to a command, the first at the top."""

    def add(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return add


def measured(
    run: Callable[[Config, ShowProgress], Measured],
    config: Config,
    *failures: type[Exception],
    rhythm: Rhythm = STEADY,
) -> Measured:
    """Return what `run` measures; its progress goes to stderr, its `failures` are one line."""
    from capnp_rig.loadtest.cli.progress import shown_progress

    with failures_in_one_line(*failures), shown_progress(rhythm) as show:
        return run(config, show)


def ended_early(end: "EarlyEnd") -> int:
    """Say on stderr why a series of steps ended early, and return the exit status."""
    click.echo(f"ended early: {end.text}", err=True)
    return end.exit_status


def tell_failures(
    failures: Mapping[tuple[str, str], int], examples: Mapping[str, "FailedCall"]
) -> bool:
    """Say on stderr which calls of which server failed, with an example; return whether any did."""
    from capnp_rig.loadtest.report.terminal import printable

    for (server, kind), count in failures.items():
        calls = "call" if count == 1 else "calls"
        click.echo(printable(f"failed: {server}: {count:,} {calls}: {kind}"), err=True)
        example = examples.get(server)
        for line in example.lines if example is not None and example.kind == kind else ():
            click.echo(f"  {line}", err=True)
    return bool(failures)


def finish(written: "WrittenResult", *, err: bool = False) -> None:
    """Write the page of a result, and say where it lies and which of its files could not be made.

    A result that could not be written is a failure, told in one line. With `err` stdout has a
    result already, and the folder is said on stderr.
    """
    from capnp_rig.loadtest.report.write import write_views

    notes: tuple[str, ...] = ()
    with failures_in_one_line():
        if written.problem is not None:
            raise written.problem
        try:
            notes = write_views(written)
        finally:
            for note in notes:
                click.echo(note, err=True)
            click.echo(f"Written to {written.folder}", err=err)
        for number in written.signals:
            signal.raise_signal(number)


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


def stdout() -> "Console":
    """Return a console on stdout, wide enough where it is no terminal."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_PIPE_COLUMNS)
