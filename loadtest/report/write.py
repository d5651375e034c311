"""Writes the page, and the pictures with their Markdown."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from capnp_rig.loadtest.report.chart_images import ExtraMissing, png, svg, vega_script
from capnp_rig.loadtest.report.contents import document_of, usable
from capnp_rig.loadtest.report.fill_in import NoSuchPart, filled
from capnp_rig.loadtest.report.markdown import markdown
from capnp_rig.loadtest.report.result_page import PAGE, result_document
from capnp_rig.loadtest.report.sources import (
    Source,
    SourceSet,
    find_sources,
    read_sources,
    source_of,
)
from capnp_rig.loadtest.report.web import Html, render
from capnp_rig.loadtest.results.hdr_files import HdrMissing, write_hdr_files
from capnp_rig.loadtest.results.writing import WrittenResult, write_whole

FIGURES = "figures.md"


def sources_of(results: Path, folders: Iterable[Path]) -> SourceSet:
    """Return the named results, or without names the newest of each kind in `results`.

    What cannot be shown is left out, and named in `skipped`.

    Raises:
        OSError: The folder of results cannot be read.
    """
    folders = list(folders)
    return usable(read_sources(folders) if folders else find_sources(results))


def write_page(sources: SourceSet, file: Path) -> Path:
    """Write the page of some results into a file, and return its path.

    Raises:
        ExtraMissing: There is no vl-convert.
        OSError: It cannot be written.
        ResultError: A result is damaged.
    """
    text = render(document_of(sources, _path_from(file.parent)), vega_script())
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def write_report(source: Source) -> list[str]:
    """Write ``report.html`` of a result into its folder.

    Returns a line on each picture that could not be drawn. Without vl-convert there are no
    pictures, and the page says how to get them.

    Raises:
        OSError: It cannot be written.
        ResultError: The result is damaged.
    """
    document = result_document(source)
    pictures: dict[str, str] = {}
    notes = []
    for chart in document.charts:
        try:
            pictures[chart.key] = Html(svg(chart))
        except ExtraMissing:
            break
        except ValueError as error:
            # Below that is the stack of the JavaScript.
            why = " ".join(str(error).splitlines()[:2])
            pictures[chart.key] = f"This picture could not be drawn: {why}"
            notes.append(f"{source.folder / PAGE} lacks the picture {chart.key}: {why}")
    text = render(document, pictures=pictures)
    write_whole(source.folder / PAGE, text.encode())
    return notes


def write_views(written: WrittenResult) -> tuple[str, ...]:
    """Write ``report.html`` of a result, of a load run also the histogram log.

    Returns a line on each file or picture that could not be made.

    Raises:
        OSError: A file cannot be written.
    """
    notes = []
    if written.result.is_load:
        try:
            write_hdr_files(written.folder, written.result)
        except HdrMissing as error:
            notes.append(str(error))
    notes += write_report(source_of(written.folder, written.result))
    return tuple(notes)


def write_figures(sources: SourceSet, folder: Path) -> list[Path]:
    """Write every chart as SVG and PNG, and a Markdown file that shows them; return the paths.

    Raises:
        ExtraMissing: There is no vl-convert.
        OSError: A file cannot be written.
        ResultError: A result is damaged.
    """
    document = document_of(sources, _path_from(folder))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for chart in document.charts:
        written += [folder / f"{chart.key}.svg", folder / f"{chart.key}.png"]
        written[-2].write_text(svg(chart), encoding="utf-8")
        written[-1].write_bytes(png(chart))
    file = folder / FIGURES
    file.write_text(markdown(document), encoding="utf-8")
    return [*written, file]


def fill_text(sources: SourceSet, file: Path, pictures: Path) -> Path:
    """Fill the places for parts of the report in a text file, and return its path.

    `pictures` is where `write_figures` writes.

    Raises:
        NoSuchPart: It has no such place, or one for a part that there is not; or it is no text.
        OSError: It cannot be read or written.
        ResultError: A result is damaged.
    """
    document = document_of(sources, _path_from(file.parent))
    folder = Path(os.path.relpath(pictures, file.parent)).as_posix()
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise NoSuchPart(f"{file} is not UTF-8") from error
    file.write_text(filled(text, document, folder), encoding="utf-8")
    return file


def _path_from(folder: Path) -> Callable[[Source], str]:
    def path_to(source: Source) -> str:
        return Path(os.path.relpath(source.folder, folder)).as_posix()

    return path_to
