"""``loadtest report``: its options, and what it prints."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from capnp_rig.loadtest.cli.terminal import (
    failures_in_one_line,
    read_results_option,
    result_folder,
)

_INDEX, _FIGURES = "index.html", "figures"


@click.command("report")
@click.argument("words", metavar="[FOLDER]...", nargs=-1)
@read_results_option
@click.option(
    "--page",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the page into this file; with FOLDERs it is made of them.",
)
@click.option(
    "--figures",
    "pictures",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the charts as SVG and PNG, and figures.md, into this folder.",
)
@click.option(
    "--fill",
    "text",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Write parts of the report into this text, between <!-- report: NAME --> and "
    "<!-- end of report -->; a NAME that is none is answered with all that are. "
    "Pictures are those of --figures, by default RESULTS/figures.",
)
def report(
    *,
    words: Sequence[str],
    results: Path,
    file: Path | None,
    pictures: Path | None,
    text: Path | None,
) -> None:
    """Show results as a page.

    \b
    loadtest report                       RESULTS/index.html, of the newest result of each kind
    loadtest report FOLDER...             report.html in each FOLDER, of this result alone
    loadtest report --page FILE [FOLDER]...
    loadtest report --figures DIR [FOLDER]...
    loadtest report --fill README.md [FOLDER]...

    FOLDER may also be the name of a run, @last or @previous: see loadtest list.

    index.html is one file that needs no network: a verdict in words, charts, tables. It and the
    figures need the extra capnp-rig[report]; report.html is plain and needs nothing. Folders
    that cannot be read are named and left out of the page.
    """  # noqa: D301 - click wants the sign itself
    folders = [result_folder(word, results) for word in words]
    if folders and file is None and pictures is None and text is None:
        _write_reports(folders)
        return
    if not folders and not results.is_dir():
        raise click.UsageError(f"{results} is no folder: run loadtest bench first, or name results")
    if file is None and pictures is None and text is None:
        file = results / _INDEX
    _write(folders, results, _Wanted(file, pictures, text))


def _write_reports(folders: Sequence[Path]) -> None:
    from capnp_rig.loadtest.report.result_page import PAGE
    from capnp_rig.loadtest.report.sources import source_of
    from capnp_rig.loadtest.report.write import write_report
    from capnp_rig.loadtest.results import ResultError
    from capnp_rig.loadtest.results.load_samples import read_result

    for folder in folders:
        with failures_in_one_line(ResultError):
            for note in write_report(source_of(folder, read_result(folder))):
                click.echo(f"warning: {note}", err=True)
            click.echo(folder / PAGE)


class _Wanted(NamedTuple):
    """The page's file, the pictures' folder, and the text to fill, each None if not wanted."""

    page: Path | None
    pictures: Path | None
    text: Path | None


def _write(folders: Sequence[Path], results: Path, wanted: _Wanted) -> None:
    from capnp_rig.loadtest.report.chart_images import ExtraMissing
    from capnp_rig.loadtest.report.fill_in import NoSuchPart
    from capnp_rig.loadtest.report.write import fill_text, sources_of, write_figures, write_page
    from capnp_rig.loadtest.results import ResultError

    with failures_in_one_line(ResultError, ExtraMissing, NoSuchPart):
        sources = sources_of(results, folders)
        for line in sources.skipped:
            click.echo(f"warning: {line}", err=True)
        if not sources.sources:
            raise click.UsageError(f"{results} has no result: run loadtest bench first")
        if wanted.page is not None:
            click.echo(write_page(sources, wanted.page))
        if wanted.pictures is not None:
            click.echo(write_figures(sources, wanted.pictures)[-1])
        if wanted.text is not None:
            pictures = wanted.pictures or results / _FIGURES
            click.echo(fill_text(sources, wanted.text, pictures))
