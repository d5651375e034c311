import builtins
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sample_runs import Fake, make_run

from capnp_rig.loadtest.report.write import write_views
from capnp_rig.loadtest.results import (
    Figure,
    ResultError,
    read_run,
    read_samples,
    record,
    run_document,
    writing,
)
from capnp_rig.loadtest.results.load_samples import read_result
from capnp_rig.loadtest.results.writing import (
    Origin,
    WrittenResult,
    make_folder,
    probe,
    write_result,
    write_run,
    write_samples,
)

ORIGIN = Origin(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), {"commit": "abc"})
FIGURE = Figure("rate", 1.5, "calls/s", "round trip", 3)


def test_a_result_survives_its_files(tmp_path: Path) -> None:
    folder = ORIGIN.make_folder(tmp_path / "results")
    assert folder.name == "20260102T030405Z-abc"
    samples = ({"a": number} for number in (1, 2))
    config = {"results": tmp_path, "cpus": (0, 1)}
    written = write_result(
        "bench-server", ORIGIN, folder, config=config, figures=[FIGURE], samples=samples, more=3
    )
    assert (written.folder, written.figures) == (folder, (FIGURE,))
    assert written.result == read_result(folder)
    document = read_run(folder)
    assert document["figures"][0]["value"] == 1.5
    assert document["config"] == {"results": str(tmp_path), "cpus": [0, 1]}
    assert document["started"] == "2026-01-02T03:04:05+00:00"
    assert (document["kind"], document["environment"], document["more"]) == (
        *("bench-server", {"commit": "abc"}, 3),
    )
    assert read_samples(folder) == [{"a": 1}, {"a": 2}]
    assert write_views(written) == ()
    assert "1.5" in (folder / "report.html").read_text(encoding="utf-8")


def test_all_is_made_of_what_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load run's log and page are there, though no file that was written can be read."""
    run = make_run(Fake(seconds=2, calls=20))
    made = {"config", "environment", "figures", "started", "kind", "format", "version"}
    more = {name: value for name, value in run.document.items() if name not in made}
    opened, read_text = builtins.open, Path.read_text

    def refuse(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        assert not str(file).startswith(str(tmp_path)) or "w" in mode, file
        return opened(file, mode, *arguments, **options)

    # The page's own files may be read.
    def refuse_text(file: Path, *arguments: Any, **options: Any) -> str:
        assert not file.is_relative_to(tmp_path), file
        return read_text(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(Path, "read_text", refuse_text)
    folder = ORIGIN.make_folder(tmp_path)
    written = write_result(
        *("run", ORIGIN, folder),
        config=run.document["config"],
        figures=[],
        samples=run.samples,
        **more,
    )
    write_views(written)
    monkeypatch.undo()
    assert {each.name for each in folder.iterdir()} == {
        *("run.json", "samples.jsonl.gz", "report.html", "latency.hlog", "latency.hgrm"),
    }


def test_an_origin_tells_when_and_where() -> None:
    origin = Origin.now(codecs={"orjson": "1"})
    assert origin.started.tzinfo is UTC
    assert origin.environment == record.environment() | {
        "codecs": {"orjson": "1"},
        "machine": origin.environment["machine"],
    }


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path) -> None:
    assert make_folder(tmp_path, "a").name == "a"
    assert make_folder(tmp_path, "a").name == "a-2"


@pytest.mark.parametrize("change", [{"version": "2.0"}, {"format": "other"}])
def test_an_unknown_major_version_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    write_run(tmp_path, run_document("demo", {}, {}, []) | change)
    with pytest.raises(ResultError, match=r"version 1\.0"):
        read_run(tmp_path)


def test_samples_survive_their_file(tmp_path: Path) -> None:
    write_samples(tmp_path, [{"a": 1}, {"a": 2}])
    assert read_samples(tmp_path) == [{"a": 1}, {"a": 2}]


def _write(folder: Path, **more: Any) -> WrittenResult:
    # Numbers that no compression makes few.
    samples = [{"a": sha256(f"{number}".encode()).hexdigest()} for number in range(1000)]
    return write_result(
        "bench-server", ORIGIN, folder, config={}, figures=[FIGURE], samples=samples, **more
    )


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to write files of more than `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("size", "more"),
    [
        # Not enough for the samples; enough for them, not for run.json.
        (10_000, {}),
        (100_000, {"more": "x" * 200_000}),
    ],
)
def test_a_result_that_cannot_be_written_is_in_memory_and_its_folder_is_gone(
    tmp_path: Path, size: int, more: dict[str, str]
) -> None:
    folder = ORIGIN.make_folder(tmp_path / "results")
    (folder / "server.log").write_text("something")
    with largest_file(size):
        written = _write(folder, **more)
    assert written.problem is not None
    assert (written.problem.strerror, written.figures) == ("File too large", (FIGURE,))
    assert str(folder) in written.problem.filename
    assert list((tmp_path / "results").iterdir()) == []
    assert _write(folder, **more).problem is None
    assert read_result(folder).figures == [FIGURE]


def test_a_folder_that_cannot_be_made_is_told_by_the_result(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    written = _write(ORIGIN.make_folder(tmp_path / "file" / "results"))
    assert written.problem is not None
    assert written.problem.strerror == "Not a directory"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_does_not_stop_the_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    write = writing.write_whole

    def interrupted(file: Path, content: bytes) -> None:
        signal.raise_signal(number)
        write(file, content)

    monkeypatch.setattr(writing, "write_whole", interrupted)
    handler = signal.getsignal(number)
    written = _write(tmp_path / "a")
    assert written.signals == (number, number)
    assert signal.getsignal(number) is handler
    assert read_result(tmp_path / "a").figures == [FIGURE]


def test_a_probe_leaves_nothing(tmp_path: Path) -> None:
    probe(tmp_path / "not" / "yet" / "there")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("parent", "why"),
    [("file", "Not a directory"), ("file/results", "Not a directory"), ("", "File too large")],
)
def test_a_place_where_nothing_can_be_written_is_told(
    tmp_path: Path, parent: str, why: str
) -> None:
    (tmp_path / "file").write_text("")
    with largest_file(1000), pytest.raises(OSError, match=why) as told:
        probe(tmp_path / parent)
    assert told.value.filename == str(tmp_path / parent)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
