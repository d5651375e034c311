import json
from pathlib import Path

import pytest
from sample_results import STARTED, server_figures, write_figures, write_search, write_sweep
from sample_runs import Fake, make_run, write_run_folder

from capnp_rig.loadtest.bench.pair_figures import voided
from capnp_rig.loadtest.results.catalog import NoSuchResult, check_name, entries_of, find_result
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode

NIGHT, NOON, EVENING = (f"2026-11-2{day}T12:00:00+00:00" for day in (0, 1, 2))


def a_run(folder: Path, started: str, name: str | None = None) -> Path:
    return write_figures(folder, "run", [], started=started, name=name)


def test_each_result_is_an_entry_oldest_first(tmp_path: Path) -> None:
    write_run_folder(tmp_path / "load", make_run(Fake(seconds=12, calls=500)))
    write_figures(tmp_path / "bench", "bench-server", server_figures(), started=NIGHT, name="x")
    search = write_search(tmp_path / "search")
    write_sweep(tmp_path / "sweep")
    damaged = tmp_path / "20261120T000000Z-abc"
    damaged.mkdir()
    (tmp_path / "figures").mkdir()
    (tmp_path / "index.html").touch()
    first, *others = entries_of(tmp_path)
    assert first.folder == damaged
    assert first.problem == "No such file or directory"
    by_kind = {entry.kind: entry for entry in others}
    assert others[0].kind == "bench-server"
    assert by_kind["bench-server"].name == "x"
    counts = by_kind["bench-server"].headline.values()
    assert sum(filter(None, counts)) == len(server_figures())
    assert by_kind["search"].headline == {"rate_hz": 30_000.0, "failing_hz": 40_000.0}
    assert by_kind["search"].objective == "p99<2ms and errors<0.1%"
    assert by_kind["search"].verdict == "verified"
    assert by_kind["search"].started == STARTED
    assert by_kind["sweep"].headline == {"highest_calls_per_s": 8000.0}
    assert by_kind["sweep"].verdict == by_kind["bench-server"].verdict == "ok"
    load = next(entry for entry in others if entry.folder.name == "load")
    stored = json.loads((tmp_path / "load" / "run.json").read_text())
    assert load.headline == {
        "calls_per_s": stored["summary"]["calls_per_s"],
        "p50_us": stored["summary"]["response_us"]["p50"],
        "p99_us": stored["summary"]["response_us"]["p99"],
        "errors": 0,
    }
    assert load.verdict == stored["summary"]["verdict"]
    assert load.commit.rstrip("+") == stored["environment"]["commit"]
    assert search.name == "search"


def test_a_benchmark_in_which_calls_failed_has_failed(tmp_path: Path) -> None:
    reason = Reason.of(ReasonCode.CALLS_FAILED, count=2)
    figures = [*voided(server_figures()[:1], (reason,)), *server_figures()[1:]]
    write_figures(tmp_path / "a", "bench-server", figures)
    (entry,) = entries_of(tmp_path)
    assert entry.verdict == "failed"


@pytest.mark.parametrize("text", ["{", '{"format": "capnp-rig run", "version": "9.0"}', "[]", ""])
def test_a_damaged_result_is_an_entry_that_says_so(tmp_path: Path, text: str) -> None:
    folder = a_run(tmp_path / "a", NOON)
    (folder / "run.json").write_text(text)
    (entry,) = entries_of(tmp_path)
    assert entry.problem
    assert (entry.kind, entry.headline) == ("", {})


@pytest.mark.parametrize("part", ["summary", "found", "figures"])
def test_so_is_one_with_a_part_that_is_no_part(tmp_path: Path, part: str) -> None:
    folder = a_run(tmp_path / "a", NOON)
    document = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(document | {part: "none"}))
    (entry,) = entries_of(tmp_path)
    assert entry.problem


def test_a_word_stands_for_a_result(tmp_path: Path) -> None:
    old = a_run(tmp_path / "20261120T120000Z-a", NIGHT, "yesterday")
    other = write_figures(tmp_path / "20261121T120000Z-b", "sweep", [], started=NOON)
    new = a_run(tmp_path / "20261122T120000Z-c", EVENING)
    (tmp_path / "20261123T120000Z-d").mkdir()
    for word, folder in {
        str(old): old,
        other.name: other,
        "yesterday": old,
        "@last": new,
        # Of the same kind: not the sweep.
        "@previous": old,
    }.items():
        assert find_result(word, tmp_path) == folder


def test_of_one_name_the_newest_is_meant(tmp_path: Path) -> None:
    a_run(tmp_path / "b", NIGHT, "mine")
    newest = a_run(tmp_path / "a", EVENING, "mine")
    a_run(tmp_path / "c", NOON, "mine")
    assert find_result("mine", tmp_path) == newest


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("tomorrow", "no result 'tomorrow': expected a folder, the name of a run in {}"),
        ("@previous", "{} has no @previous result"),
        ("{}", "{} is no result: it has no run.json"),
    ],
)
def test_a_word_that_stands_for_nothing(tmp_path: Path, word: str, said: str) -> None:
    a_run(tmp_path / "a", NOON)
    with pytest.raises(NoSuchResult) as caught:
        find_result(word.format(tmp_path), tmp_path)
    assert str(caught.value).startswith(said.format(tmp_path))


def test_without_a_folder_there_is_no_last_result(tmp_path: Path) -> None:
    with pytest.raises(NoSuchResult, match="has no @last result"):
        find_result("@last", tmp_path / "none")


@pytest.mark.parametrize("name", ["yesterday", "v1.2-rc_3", "7"])
def test_a_name(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "@last", "-x", "a/b", "..", "a b", "x" * 65, "20261121T120000Z-b", "host:1", "ü"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="bad name"):
        check_name(name)
