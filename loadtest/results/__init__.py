"""The folder of one result: ``results/<utc>-<commit>/`` with its ``run.json``."""

import gzip
import json
import lzma
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from capnp_rig.loadtest.results.digests import digest_of, is_intact, samples_digest
from capnp_rig.loadtest.stats.figure import Figure

__all__ = [
    "FORMAT",
    "RUN_FILE",
    "SAMPLES_FILE",
    "VERSION",
    "Figure",
    "ResultError",
    "check_samples",
    "read_run",
    "read_samples",
    "run_document",
    "run_file",
    "sample_files",
]

FORMAT = "capnp-rig run"
# The first number changes when old readers would misread a file.
VERSION = "1.0"
RUN_FILE, SAMPLES_FILE = "run.json", "samples.jsonl.gz"


class ResultError(ValueError):
    """A file is no result that this version reads."""


def run_document(
    kind: str,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    figures: Iterable[Figure],
    **more: object,
) -> dict[str, Any]:
    """Return the content of ``run.json`` as plain values."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "config": dict(config),
        "environment": dict(environment),
        "figures": [figure.to_json() for figure in figures],
        **more,
    }


def run_file(folder: Path) -> Path:
    """Return the file with the content of ``run.json``, which may be packed, or be missing."""
    packed = folder / f"{RUN_FILE}.xz"
    return packed if packed.exists() else folder / RUN_FILE


def sample_files(folder: Path) -> Sequence[Path]:
    """Return the files of the samples, in order: one, or those of the compact form."""
    return sorted(folder.glob("samples-*.jsonl.xz")) or [folder / SAMPLES_FILE]


def read_run(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's ``run.json``, packed or not.

    Raises:
        OSError: The folder has no run.json, or it cannot be read.
        ResultError: It has another format, or another major version, or is not as it was written.
    """
    file = run_file(folder)
    with _opened(file) as stream:
        document: dict[str, Any] = json.load(stream)
    major = str(document.get("version", "")).partition(".")[0]
    if document.get("format") != FORMAT or major != VERSION.partition(".")[0]:
        raise ResultError(f"{folder} is not a {FORMAT!r} of version {VERSION}")
    if not is_intact(document):
        raise ResultError(f"{file} was changed after the run: its digest is another")
    return document


def read_samples(folder: Path, document: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the samples of a result, packed or not, checked against its `document` if given.

    Raises:
        OSError: The folder has no samples, or they cannot be read.
        ResultError: They are not those of the document.
    """
    lines = list(_sample_lines(folder))
    if document is not None:
        _check_lines(folder, document, lines)
    return list(map(json.loads, lines))


def check_samples(folder: Path, document: Mapping[str, Any]) -> None:
    """Check that samples are those of a document, where it says which it has.

    Raises:
        OSError: The folder has no samples, or they cannot be read.
        ResultError: They are not those of the document.
    """
    if samples_digest(document) is not None:
        _check_lines(folder, document, _sample_lines(folder))


def _check_lines(folder: Path, document: Mapping[str, Any], lines: Iterable[bytes]) -> None:
    expected = samples_digest(document)
    if expected is not None and digest_of(lines) != expected:
        raise ResultError(
            f"{folder / SAMPLES_FILE} does not belong to {RUN_FILE}, or was changed after the run: "
            "its digest is another"
        )


def _sample_lines(folder: Path) -> Iterator[bytes]:
    for file in sample_files(folder):
        with _opened(file) as stream:
            yield from stream


def _opened(file: Path) -> IO[bytes]:
    if file.suffix == ".xz":
        return lzma.open(file)
    if file.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(file))
    return file.open("rb")
