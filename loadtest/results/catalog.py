"""The results in a folder: what each was called and says, and which one a word stands for.

Of each only ``run.json`` is read. A folder that cannot be read is an entry that says why.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capnp_rig.loadtest.results import ResultError, run_file
from capnp_rig.loadtest.results.load_samples import (
    damage,
    read_document,
    read_figures,
    stored_verdict,
)
from capnp_rig.loadtest.stats.reasons import FAILURES

# As `writing` calls folders.
_FOLDER_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-.*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RATE_UNIT = "calls/s"
LAST, PREVIOUS = "@last", "@previous"


class NoSuchResult(ValueError):
    """A word stands for no result; the message says what is expected."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A result: `started` is its UTC time in ISO 8601, `name` what the user called it, or empty.

    `headline` has its main figures by name. `problem` says why it cannot be read, and all but the
    folder is empty then. `objective` is what a search looked for.
    """

    folder: Path
    kind: str = ""
    started: str = ""
    name: str = ""
    commit: str = ""
    headline: Mapping[str, float | None] = field(default_factory=dict)
    objective: str = ""
    verdict: str = ""
    problem: str = ""


def check_name(name: str) -> str:
    """Return a name that a run may have.

    Raises:
        ValueError: It is too long, or could be taken for a path, a folder of results or an option.
    """
    if _NAME.fullmatch(name) is None or _FOLDER_NAME.fullmatch(name) is not None:
        raise ValueError(
            f"bad name {name!r}: expected 1 to 64 letters, digits, dots, dashes or underscores, "
            "a letter or digit first"
        )
    return name


def entries_of(results: Path) -> list[Entry]:
    """Return the results in a folder, oldest first; those that cannot be read come before them.

    Raises:
        OSError: The folder cannot be read.
    """
    folders = (
        each
        for each in results.iterdir()
        if each.is_dir() and (_FOLDER_NAME.fullmatch(each.name) or run_file(each).exists())
    )
    return sorted(map(_entry, folders), key=lambda entry: (entry.started, entry.folder.name))


def _entry(folder: Path) -> Entry:
    try:
        document = read_document(folder)
        with damage("run.json"):
            environment = document["environment"]
            return Entry(
                folder,
                str(document["kind"]),
                str(document.get("started", "")),
                str(document.get("name") or ""),
                f"{environment.get('commit', '')}{'+' if environment.get('dirty') is True else ''}",
                _headline(document),
                str(document["config"].get("slo", "")),
                _verdict(document),
            )
    except ResultError as error:
        return Entry(folder, problem=" ".join(str(error).split()))
    except OSError as error:
        return Entry(folder, problem=error.strerror or str(error))


def _headline(document: Mapping[str, Any]) -> dict[str, float | None]:
    if "summary" in document:
        summary = document["summary"]
        # Of a closed loop they are service times.
        times = summary["response_us"]
        return {
            "calls_per_s": summary["calls_per_s"],
            "p50_us": times["p50"],
            "p99_us": times["p99"],
            "errors": summary["errors"],
        }
    if "found" in document:
        answer = document["found"]
        return {name: answer[name] for name in ("rate_hz", "failing_hz")}
    figures = [figure for figure in read_figures(document) if not figure.is_void]
    rates = [figure.value for figure in figures if figure.unit == _RATE_UNIT and figure.value]
    if document["kind"] == "sweep" and rates:
        return {"highest_calls_per_s": max(rates)}
    counts = Counter(str(figure.verdict) for figure in read_figures(document))
    return dict(sorted(counts.items()))


def _verdict(document: Mapping[str, Any]) -> str:
    if document.get("ended_early"):
        return "ended early"
    judged = stored_verdict(document)
    if judged is not None:
        return str(judged[0])
    if "comparison" in document:
        return str(document["comparison"]["verdict"])
    if "found" in document:
        return "verified" if document["found"]["rate_hz"] is not None else "not verified"
    figures = read_figures(document)
    if any(reason.code in FAILURES for figure in figures for reason in figure.reasons):
        return "failed"
    return "void" if figures and all(figure.is_void for figure in figures) else "ok"


def find_result(word: str, results: Path) -> Path:
    """Return the folder that `word` stands for.

    That is a folder, by its path or by its name in `results`; else the newest result with this
    name; ``@last``, the newest of all; or ``@previous``, the newest of the same kind before it.

    Raises:
        NoSuchResult: There is none.
    """
    for folder in (Path(word), results / word):
        if run_file(folder).exists():
            return folder
    try:
        readable = [entry for entry in entries_of(results) if not entry.problem]
    except OSError:
        readable = []
    wanted = _wanted(word, readable)
    if not wanted:
        raise NoSuchResult(_no_such(word, results))
    return wanted[-1].folder


def _wanted(word: str, readable: Sequence[Entry]) -> Sequence[Entry]:
    if word == LAST:
        return readable
    if word == PREVIOUS:
        return [entry for entry in readable[:-1] if entry.kind == readable[-1].kind]
    return [entry for entry in readable if entry.name == word]


def _no_such(word: str, results: Path) -> str:
    if Path(word).is_dir():
        return f"{word} is no result: it has no run.json"
    if word in {LAST, PREVIOUS}:
        return f"{results} has no {word} result"
    return (
        f"no result {word!r}: expected a folder, the name of a run in {results} "
        f"(see loadtest list), {LAST} or {PREVIOUS}"
    )
