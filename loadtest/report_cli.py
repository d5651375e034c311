"""``loadtest report`` and ``loadtest compare``: their options, and what they print."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from loadtest.terminal import failures_in_one_line, stdout

_folder = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("report")
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=_folder)
def report(folders: Sequence[Path]) -> None:
    """Write report.html anew from run.json and the samples of each result FOLDER."""
    from loadtest.report import write_report  # noqa: PLC0415 - only when asked for
    from loadtest.results import ResultError  # noqa: PLC0415 - as above

    for folder in folders:
        _check(folder)
    for folder in folders:
        with failures_in_one_line(ResultError):
            click.echo(write_report(folder))


@click.command("compare")
@click.argument("baseline", type=_folder)
@click.argument("candidate", type=_folder)
@click.option(
    "--force", is_flag=True, help="Judge void runs, and runs from unlike machines or loads, too."
)
@click.option(
    *("--metric", "metrics"),
    multiple=True,
    metavar="NAME",
    help="Judge this only, as calls/s, p99 or service.p50; * stands for anything; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as one JSON object.")
def compare_results(
    *, baseline: Path, candidate: Path, force: bool, metrics: tuple[str, ...], as_json: bool
) -> int:
    """Tell whether the result folder CANDIDATE is faster or slower than BASELINE.

    Ratios above 1 mean that the candidate is better. Exits with 0 where it is faster or the
    same, 3 where it is slower, 4 where that cannot be told.
    """
    from loadtest.compare import CompareError, compare  # noqa: PLC0415 - only when asked for
    from loadtest.compare_table import (  # noqa: PLC0415 - as above
        comparison_lines,
        comparison_table,
        objection_lines,
    )
    from loadtest.load_samples import read_result  # noqa: PLC0415 - as above
    from loadtest.results import ResultError  # noqa: PLC0415 - as above

    for folder in (baseline, candidate):
        _check(folder)
    try:
        with failures_in_one_line(ResultError):
            old, new = read_result(baseline), read_result(candidate)
            found = compare(old, new, force=force, metrics=metrics)
    except CompareError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(found.to_json()))
    else:
        stdout().print(comparison_table(found))
        for line in comparison_lines(found):
            click.echo(line)
    for line in objection_lines(found):
        click.echo(line, err=True)
    return found.exit_status


def _check(folder: Path) -> None:
    if not (folder / "run.json").exists():
        raise click.UsageError(f"{folder} is no result: it has no run.json")
