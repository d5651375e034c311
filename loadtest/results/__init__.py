"""The folder of one result: ``results/<utc>-<commit>/`` with its ``run.json``."""

import gzip
import json
import lzma
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from capnp_rig.loadtest.stats.figure import Figure

__all__ = [
    "FORMAT",
    "RUN",
    "SAMPLES",
    "VERSION",
    "Figure",
    "ResultError",
    "folder_name",
    "make_folder",
    "read_run",
    "read_samples",
    "run_document",
    "run_file",
    "sample_files",
    "write_run",
    "write_samples",
]

FORMAT = "capnp-rig run"
RUN = "run.json"
SAMPLES = "samples.jsonl.gz"
# The first number changes when old readers would misread a file.
VERSION = "1.0"


class ResultError(ValueError):
    """A file is no result that this version reads."""


def folder_name(now: datetime, commit: str) -> str:
    """Return the name of the folder of a run that starts `now`, in UTC."""
    return f"{now:%Y%m%dT%H%M%SZ}-{commit}"


def make_folder(parent: Path, name: str) -> Path:
    """Create the folder of a run; a second run within a second gets a number behind its name.

    Raises:
        OSError: It cannot be created.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 100):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{parent / name}: too many runs in one second")


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


def write_run(folder: Path, document: Mapping[str, Any]) -> None:
    """Write ``run.json``.

    Raises:
        OSError: It cannot be written.
    """
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    (folder / RUN).write_text(text, encoding="utf-8")


def run_file(folder: Path) -> Path:
    """Return the file with the content of ``run.json``, which may be packed, or be missing."""
    packed = folder / f"{RUN}.xz"
    return packed if packed.exists() else folder / RUN


def sample_files(folder: Path) -> Sequence[Path]:
    """Return the files of the samples, in order: one, or those of the compact form."""
    return sorted(folder.glob("samples-*.jsonl.xz")) or [folder / SAMPLES]


def read_run(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's ``run.json``, packed or not.

    Raises:
        OSError: There is none.
        ResultError: It has another format, or another major version.
    """
    with _opened(run_file(folder)) as stream:
        document: dict[str, Any] = json.load(stream)
    major = str(document.get("version", "")).partition(".")[0]
    if document.get("format") != FORMAT or major != VERSION.partition(".")[0]:
        raise ResultError(f"{folder} is not a {FORMAT!r} of version {VERSION}")
    return document


def write_samples(folder: Path, samples: Iterable[Mapping[str, Any]]) -> None:
    """Write ``samples.jsonl.gz``, one sample a line.

    Raises:
        OSError: It cannot be written.
    """
    with gzip.open(folder / SAMPLES, "wt", encoding="utf-8") as stream:
        for sample in samples:
            stream.write(json.dumps(sample) + "\n")


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """Return the samples that `write_samples` wrote, packed or not.

    Raises:
        OSError: There are none.
    """
    samples: list[dict[str, Any]] = []
    for file in sample_files(folder):
        with _opened(file) as stream:
            samples += map(json.loads, stream)
    return samples


def _opened(file: Path) -> IO[str]:
    if file.suffix == ".xz":
        return lzma.open(file, "rt", encoding="utf-8")
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8")
    return file.open(encoding="utf-8")
