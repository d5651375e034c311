from pathlib import Path

import pytest
from sample_results import server_figures, write_figures
from sample_runs import Fake, make_run, write_run_folder

from capnp_rig.loadtest.report.sources import find_sources, read_sources
from capnp_rig.loadtest.results import Figure

_ONE = [Figure("x", 1.0, "µs", "round trip", 1)]
_EARLIER, _LATER = "2026-11-20T12:00:00+00:00", "2026-11-22T12:00:00+00:00"


def _damaged(folder: Path, text: str = "{") -> Path:
    folder.mkdir()
    (folder / "run.json").write_text(text, encoding="utf-8")
    return folder


def test_the_newest_of_each_kind_is_found(tmp_path: Path) -> None:
    write_figures(tmp_path / "b", "demo", _ONE, started=_EARLIER)
    # Not by the name of its folder.
    write_figures(tmp_path / "a", "demo", _ONE, started=_LATER)
    write_figures(tmp_path / "c", "bench-server", server_figures())
    (tmp_path / "README.md").touch()
    (tmp_path / "other").mkdir()
    found = find_sources(tmp_path)
    assert {(one.kind, one.name) for one in found.sources} == {("demo", "a"), ("bench-server", "c")}
    assert found.skipped == []


def test_an_unreadable_folder_is_named_and_left_out(tmp_path: Path) -> None:
    write_figures(tmp_path / "good", "demo", _ONE)
    damaged = _damaged(tmp_path / "damaged")
    empty = tmp_path / "20261121T112211Z-4bc69e51d3"
    empty.mkdir()
    found = find_sources(tmp_path)
    assert [one.name for one in found.sources] == ["good"]
    assert found.skipped[0] == f"{empty} is skipped: it has no run.json"
    assert found.skipped[1].startswith(f"{damaged} is skipped: {damaged}/run.json is damaged: ")


_HEAD = '"format": "capnp-rig run", "version": "1.0"'
_REST = '"config": {}, "environment": {}'


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"format": "capnp-rig run", "version": "9.0"}',
        f'{{{_HEAD}, "kind": "demo"}}',
        f'{{{_HEAD}, {_REST}, "kind": 1, "figures": []}}',
        f'{{{_HEAD}, {_REST}, "kind": "bench", "figures": [{{"name": "x"}}]}}',
    ],
)
def test_whatever_is_wrong_with_a_folder_is_one_line(tmp_path: Path, text: str) -> None:
    found = read_sources([_damaged(tmp_path / "bad", text)])
    assert found.sources == []
    (line,) = found.skipped
    assert line.startswith(f"{tmp_path / 'bad'} is skipped: ")
    assert "\n" not in line


def test_a_load_run_without_its_samples_is_left_out(tmp_path: Path) -> None:
    folder = write_run_folder(tmp_path / "run", make_run(Fake(seconds=2, calls=20)))
    assert read_sources([folder]).sources[0].load is not None
    (folder / "samples.jsonl.gz").write_bytes(b"no gzip")
    assert "samples.jsonl.gz is damaged" in read_sources([folder]).skipped[0]


def test_named_load_runs_are_all_shown_and_benchmarks_once(tmp_path: Path) -> None:
    run = make_run(Fake(seconds=2, calls=20))
    folders = [write_run_folder(tmp_path / name, run) for name in ("a", "b")]
    folders += [
        write_figures(tmp_path / "old", "bench-server", server_figures(), started=_EARLIER),
        write_figures(tmp_path / "new", "bench-server", server_figures(), started=_LATER),
    ]
    found = read_sources(folders)
    assert {(one.name, one.slug) for one in found.sources} == {
        ("b", "run"),
        ("a", "run-2"),
        ("new", "bench-server"),
    }
    assert found.skipped == [
        f"{tmp_path / 'old'} is skipped: {tmp_path / 'new'} is a newer bench-server"
    ]
