import builtins
from datetime import UTC, datetime
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
)
from capnp_rig.loadtest.results.load_samples import read_result
from capnp_rig.loadtest.results.writing import (
    Origin,
    make_folder,
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
