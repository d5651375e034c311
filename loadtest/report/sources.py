"""Result folders as the page reads them: the newest of each kind, or those that were named.

Whatever cannot be read is named and left out: one damaged folder takes no page away. Samples are
read of load runs only; what else there is to show stands in the figures.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capnp_rig.loadtest.results import Figure, ResultError, check_samples, run_file
from capnp_rig.loadtest.results.load_samples import (
    LOAD_KINDS,
    SAMPLES,
    LoadRun,
    Result,
    damage,
    read_document,
    read_result,
    stored_verdict,
)
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import Reason
from capnp_rig.loadtest.stats.run_summary import Summary

_RESULT_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-.*")


@dataclass(frozen=True, slots=True)
class Source:
    """A result: its `figures` have labels, `load` is what its samples hold if it is a load run.

    `files` are the names of what lies in its folder, `slug` is its kind, with a number where it is
    not the first of it.
    """

    kind: str
    folder: Path
    document: Mapping[str, Any]
    figures: Sequence[Figure]
    load: LoadRun | None = None
    files: frozenset[str] = frozenset()
    slug: str = ""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.resolve().name

    @property
    def started(self) -> str:
        """When it was made, as it was written; empty where that is not known."""
        return str(self.document.get("started", ""))

    @property
    def config(self) -> Mapping[str, Any]:
        """How it was made."""
        config: Mapping[str, Any] = self.document["config"]
        return config

    @property
    def environment(self) -> Mapping[str, Any]:
        """Where it was made."""
        environment: Mapping[str, Any] = self.document["environment"]
        return environment

    def judged(self, summary: Summary) -> tuple[Verdict, Sequence[Reason]]:
        """Return the verdict on a load run that was stored, or else that of its summary."""
        return stored_verdict(self.document) or (summary.verdict, summary.reasons)


@dataclass(frozen=True, slots=True)
class SourceSet:
    """Sources, newest first of each kind, and a line on each folder that was left out."""

    sources: Sequence[Source]
    skipped: Sequence[str] = ()

    def all_of(self, kind: str) -> list[Source]:
        """Return the sources of a kind."""
        return [source for source in self.sources if source.kind == kind]


def find_sources(results: Path) -> SourceSet:
    """Return the newest result of each kind in a folder of results.

    Raises:
        OSError: The folder cannot be read.
    """
    folders, skipped = [], []
    for each in sorted(results.iterdir()):
        if run_file(each).exists():
            folders.append(each)
        elif each.is_dir() and _RESULT_NAME.fullmatch(each.name):
            skipped.append(f"{each} is skipped: it has no run.json")
    return _read(folders, skipped, are_named=False)


def read_sources(folders: Iterable[Path]) -> SourceSet:
    """Return the results of some folders: all load runs, of other kinds the newest."""
    return _read(sorted(folders), [], are_named=True)


def _read(folders: Sequence[Path], skipped: list[str], *, are_named: bool) -> SourceSet:
    documents: dict[Path, Mapping[str, Any]] = {}
    for folder in folders:
        try:
            documents[folder] = read_document(folder)
        except (ResultError, OSError) as error:
            skipped.append(_why_skipped(folder, error))

    def age(folder: Path) -> tuple[str, str]:
        return str(documents[folder].get("started", "")), folder.name

    sources: list[Source] = []
    newest: dict[str, Path] = {}
    for folder in sorted(documents, key=age, reverse=True):
        kind = documents[folder]["kind"]
        newer = newest.setdefault(kind, folder)
        if newer is not folder and not (are_named and kind in LOAD_KINDS):
            if are_named:
                skipped.append(f"{folder} is skipped: {newer} is a newer {kind}")
            continue
        number = 1 + sum(source.kind == kind for source in sources)
        try:
            if kind in LOAD_KINDS:
                result = read_result(folder)
            else:
                with damage(str(folder / SAMPLES)):
                    check_samples(folder, documents[folder])
                result = Result(documents[folder], None)
            sources.append(source_of(folder, result, number))
        except (ResultError, OSError) as error:
            skipped.append(_why_skipped(folder, error))
    return SourceSet(sources, skipped)


def source_of(folder: Path, result: Result, number: int = 1) -> Source:
    """Return a result that was read from a folder, or was just written into it.

    It is the `number`-th of its kind.

    Raises:
        OSError: The folder's files cannot be listed.
        ResultError: The result is damaged.
    """
    files = frozenset(each.name for each in folder.iterdir())
    slug = result.kind if number == 1 else f"{result.kind}-{number}"
    try:
        stored_verdict(result.document)
        load = result.load if result.is_load else None
        return Source(result.kind, folder, result.document, result.figures, load, files, slug)
    except ResultError as error:
        raise ResultError(f"{folder}: {error}") from error


def _why_skipped(folder: Path, error: ResultError | OSError) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        said = f"{error.filename or folder}: {error.strerror}"
    return f"{folder} is skipped: {said}"
