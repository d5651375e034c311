"""How every command leaves a result: a folder with ``run.json`` and its samples.

The result stays in memory for the page and the histogram log, which are made of it: nothing that
was written is read again.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any, Self

from capnp_rig.loadtest.results import RUN_FILE, SAMPLES_FILE, record, run_document, run_file
from capnp_rig.loadtest.results.digests import sealed
from capnp_rig.loadtest.results.load_samples import Result
from capnp_rig.loadtest.stats.figure import Figure
from capnp_rig.rigcli.held_signals import HeldSignals

# What the files of a usual run take.
_ROOM_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """When a run began, and the code, versions and machine that it ran with.

    `name` is what the user calls it, None if nothing.
    """

    started: datetime
    environment: Mapping[str, Any]
    name: str | None = None

    @classmethod
    def now(cls, name: str | None = None, **facts: object) -> Self:
        """Return the origin of a run that begins now; `facts` are recorded with the environment."""
        return cls(datetime.now(UTC), record.environment() | facts, name)

    def make_folder(self, parent: Path) -> Path:
        """Create the folder of the run, ``<utc>-<commit>``, and return it.

        Where it cannot be created, whoever writes into it first is told why.
        """
        name = f"{self.started:%Y%m%dT%H%M%SZ}-{self.environment['commit']}"
        try:
            return make_folder(parent, name)
        except OSError:
            return parent / name

    @contextmanager
    def folder(self, parent: Path) -> Iterator[Path]:
        """Yield the folder of the run, for files beside its result; without one it is removed."""
        folder = self.make_folder(parent)
        try:
            yield folder
        finally:
            if not run_file(folder).exists():
                rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class WrittenResult:
    """A result that was written, as readers of its folder get it.

    `problem` says why it could not be: then the folder is gone, and all there is of the result is
    here. `signals` came while it was written, and have done nothing yet.
    """

    folder: Path
    figures: tuple[Figure, ...]
    result: Result
    problem: OSError | None = None
    signals: tuple[int, ...] = ()


def probe(parent: Path) -> None:
    """Check that a run's folder could be made in `parent`, which need not exist; nothing is left.

    Raises:
        OSError: It could not: there is a file in the way, no permission, or not a megabyte of room.
    """
    place = parent.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with TemporaryDirectory(prefix=".probe-", dir=place) as folder:
            (Path(folder) / RUN_FILE).write_bytes(bytes(_ROOM_BYTES))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(parent)) from error


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


def write_result(
    kind: str,
    origin: Origin,
    folder: Path,
    *,
    config: Mapping[str, Any],
    figures: Iterable[Figure],
    samples: Iterable[Mapping[str, Any]],
    holds_signals: bool = True,
    **more: object,
) -> WrittenResult:
    """Write a result into its folder; `more` goes into ``run.json`` as it is.

    A result that cannot be written is returned all the same, with its `problem`: whoever made it
    can still show it. With `holds_signals` SIGINT and SIGTERM wait until all is written.
    """
    figures, samples = tuple(figures), list(samples)
    plain = {name: str(each) if isinstance(each, Path) else each for name, each in config.items()}
    document = run_document(
        kind,
        plain,
        origin.environment,
        figures,
        started=origin.started.isoformat(),
        name=origin.name,
        **more,
    )
    lines = _lines(samples)
    document = sealed(document, lines)
    held = HeldSignals() if holds_signals else None
    try:
        problem = _write(folder, document, lines)
    finally:
        if held is not None:
            held.release(raises=False)
    signals = () if held is None else tuple(held.came)
    return WrittenResult(folder, figures, Result(document, samples), problem, signals)


def _write(folder: Path, document: Mapping[str, Any], lines: Sequence[bytes]) -> OSError | None:
    """Write both files; where that fails remove the folder, and return why."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # In this order: a folder without ``run.json`` is no result.
        write_whole(folder / SAMPLES_FILE, gzip.compress(b"".join(lines)))
        write_run(folder, document)
    except OSError as error:
        rmtree(folder, ignore_errors=True)
        return OSError(error.errno, error.strerror, str(error.filename or folder))
    return None


def write_whole(file: Path, content: bytes) -> None:
    """Write a file so that it is there with all of its content, or not at all.

    Raises:
        OSError: It cannot be written.
    """
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_bytes(content)
        part.replace(file)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


def write_run(folder: Path, document: Mapping[str, Any]) -> None:
    """Write ``run.json``, with its digest.

    Raises:
        OSError: It cannot be written.
    """
    text = json.dumps(sealed(document), indent=1, ensure_ascii=False) + "\n"
    write_whole(folder / RUN_FILE, text.encode())


def write_samples(folder: Path, samples: Iterable[Mapping[str, Any]]) -> None:
    """Write ``samples.jsonl.gz``, one sample a line.

    Raises:
        OSError: It cannot be written.
    """
    write_whole(folder / SAMPLES_FILE, gzip.compress(b"".join(_lines(samples))))


def _lines(samples: Iterable[Mapping[str, Any]]) -> list[bytes]:
    return [json.dumps(sample).encode() + b"\n" for sample in samples]
