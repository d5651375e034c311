"""How every command leaves a result: a folder with ``run.json`` and its samples.

The result stays in memory for the page and the histogram log, which are made of it: nothing that
was written is read again.
"""

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from capnp_rig.loadtest.results import RUN_FILE, SAMPLES_FILE, record, run_document
from capnp_rig.loadtest.results.load_samples import Result
from capnp_rig.loadtest.stats.figure import Figure


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

        Raises:
            OSError: It cannot be created.
        """
        return make_folder(parent, f"{self.started:%Y%m%dT%H%M%SZ}-{self.environment['commit']}")


@dataclass(frozen=True, slots=True)
class WrittenResult:
    """A result that was written, as readers of its folder get it."""

    folder: Path
    figures: tuple[Figure, ...]
    result: Result


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
    **more: object,
) -> WrittenResult:
    """Write a result into its folder; `more` goes into ``run.json`` as it is.

    Raises:
        OSError: A file cannot be written.
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
    write_samples(folder, samples)
    text = write_run(folder, document)
    # As readers get it: tuples are lists there.
    return WrittenResult(folder, figures, Result(json.loads(text), samples))


def write_run(folder: Path, document: Mapping[str, Any]) -> str:
    """Write ``run.json``, and return its text.

    Raises:
        OSError: It cannot be written.
    """
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    (folder / RUN_FILE).write_text(text, encoding="utf-8")
    return text


def write_samples(folder: Path, samples: Iterable[Mapping[str, Any]]) -> None:
    """Write ``samples.jsonl.gz``, one sample a line.

    Raises:
        OSError: It cannot be written.
    """
    with gzip.open(folder / SAMPLES_FILE, "wt", encoding="utf-8") as stream:
        for sample in samples:
            stream.write(json.dumps(sample) + "\n")
