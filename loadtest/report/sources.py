"""Result folders as the page reads them: the newest of each kind, or those that were named.

Whatever cannot be read is named and left out: one damaged folder takes no page away. Samples are
read of load runs only; what else there is to show stands in the figures.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from capnp_rig.loadtest.results import Figure, ResultError, read_run, run_file
from capnp_rig.loadtest.results.load_samples import (
    LOAD_KINDS,
    LoadRun,
    Result,
    damage,
    read_figures,
    read_result,
    stored_verdict,
)

_DOCUMENT_PARTS = {"kind": str, "config": dict, "environment": dict, "figures": list}
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


@dataclass(frozen=True, slots=True)
class SourceSet:
    """Sources, newest first of each kind, and a line on each folder that was left out."""

    sources: Sequence[Source]
    skipped: Sequence[str] = ()

    def newest(self, kind: str) -> Source | None:
        """Return the newest source of a kind."""
        return next((source for source in self.sources if source.kind == kind), None)

    def all_of(self, *kinds: str) -> list[Source]:
        """Return the sources of some kinds."""
        return [source for source in self.sources if source.kind in kinds]


def find_sources(results: Path) -> SourceSet:
    """Return the newest result of each kind in a folder of results.

    Raises:
        OSError: The folder cannot be read.
    """
    folders = [each for each in results.iterdir() if run_file(each).exists()]
    empty = [
        f"{each} is skipped: it has no run.json"
        for each in sorted(results.iterdir())
        if each.is_dir() and _RESULT_NAME.fullmatch(each.name) and each not in folders
    ]
    read = _read_heads(folders)
    newest: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    for folder, document in sorted(read.heads, key=_age, reverse=True):
        newest.setdefault(str(document["kind"]), (folder, document))
    return _read_all(newest.values(), [*empty, *read.skipped])


def read_sources(folders: Iterable[Path]) -> SourceSet:
    """Return the results of some folders: all load runs, of other kinds the newest."""
    read = _read_heads(folders)
    chosen: list[tuple[Path, Mapping[str, Any]]] = []
    skipped = list(read.skipped)
    kinds: dict[str, Path] = {}
    for folder, document in sorted(read.heads, key=_age, reverse=True):
        kind = str(document["kind"])
        newer = kinds.setdefault(kind, folder)
        if newer is folder or kind in LOAD_KINDS:
            chosen.append((folder, document))
        else:
            skipped.append(f"{folder} is skipped: {newer} is a newer {kind}")
    return _read_all(chosen, skipped)


@dataclass(frozen=True, slots=True)
class _Heads:
    heads: Sequence[tuple[Path, Mapping[str, Any]]]
    skipped: Sequence[str]


def _read_heads(folders: Iterable[Path]) -> _Heads:
    heads, skipped = [], []
    for folder in sorted(folders):
        try:
            heads.append((folder, _read_document(folder)))
        except (ResultError, OSError) as error:
            skipped.append(_why_skipped(folder, error))
    return _Heads(heads, skipped)


def _age(head: tuple[Path, Mapping[str, Any]]) -> tuple[str, str]:
    folder, document = head
    return str(document.get("started", "")), folder.name


def _read_document(folder: Path) -> Mapping[str, Any]:
    with damage(str(folder / "run.json")):
        document = read_run(folder)
        for part, kind in _DOCUMENT_PARTS.items():
            if not isinstance(document[part], kind):
                raise TypeError(f"{part} is no {'text' if kind is str else kind.__name__}")
    return document


def _read_all(heads: Iterable[tuple[Path, Mapping[str, Any]]], skipped: Sequence[str]) -> SourceSet:
    sources: list[Source] = []
    lines = list(skipped)
    for folder, document in heads:
        try:
            source = _read_head(folder, document)
            number = 1 + sum(each.kind == source.kind for each in sources)
            slug = source.kind if number == 1 else f"{source.kind}-{number}"
            sources.append(replace(source, slug=slug))
        except (ResultError, OSError) as error:
            lines.append(_why_skipped(folder, error))
    return SourceSet(sources, lines)


def read_source(folder: Path) -> Source:
    """Return the result of a folder.

    Raises:
        OSError: A file cannot be read.
        ResultError: The folder holds no result, or a damaged one.
    """
    result = read_result(folder)
    try:
        return source_of(folder, result)
    except ResultError as error:
        raise ResultError(f"{folder}: {error}") from error


def source_of(folder: Path, result: Result) -> Source:
    """Return a result that was read from a folder, or was just written into it.

    Raises:
        OSError: The folder's files cannot be listed.
        ResultError: The result is damaged.
    """
    load = result.load if result.is_load else None
    figures = read_figures(result.document)
    files = frozenset(each.name for each in folder.iterdir())
    return Source(result.kind, folder, result.document, figures, load, files, result.kind)


def _read_head(folder: Path, document: Mapping[str, Any]) -> Source:
    """Return the result of a folder whose document was read; samples of load runs only."""
    if document["kind"] in LOAD_KINDS:
        return read_source(folder)
    stored_verdict(document)
    try:
        return source_of(folder, Result(document, None))
    except ResultError as error:
        raise ResultError(f"{folder}: {error}") from error


def _why_skipped(folder: Path, error: ResultError | OSError) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        said = f"{error.filename or folder}: {error.strerror}"
    return f"{folder} is skipped: {said}"
