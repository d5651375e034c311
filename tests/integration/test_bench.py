import json
from dataclasses import asdict
from pathlib import Path

import pytest
from running_rig import run_rig

from loadtest.bench_plan import figures, groups, sample_from_json, samples_of
from loadtest.results import read_run, read_samples

CASES = {case for group in groups() for case in group}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Run the benchmarks once, in a folder of their own, as briefly as they go."""
    here = tmp_path_factory.mktemp("bench")
    done = run_rig("bench", "--processes", "2", "--case-seconds", "0.001", cwd=here)
    assert done.returncode == 0, done.stderr
    (folder,) = (here / "results").iterdir()
    return folder, done.stdout, done.stderr


def test_every_figure_can_be_rebuilt_from_the_raw_rounds(outcome: tuple[Path, str, str]) -> None:
    folder, _, _ = outcome
    samples = [sample_from_json(plain) for plain in read_samples(folder)]
    rebuilt = [asdict(figure) for figure in figures(samples)]
    assert read_run(folder)["figures"] == rebuilt
    assert len(rebuilt) > len(CASES)


def test_every_process_timed_every_case(outcome: tuple[Path, str, str]) -> None:
    folder, _, _ = outcome
    samples = [sample_from_json(plain) for plain in read_samples(folder)]
    for process in range(2):
        assert {s.case for s in samples if s.process == process} == CASES
    assert all(len(sample.rounds_s) >= 5 for sample in samples)


def test_pytest_benchmarks_own_files_are_kept(outcome: tuple[Path, str, str]) -> None:
    folder, _, _ = outcome
    files = sorted((folder / "bench").iterdir())
    assert [file.name for file in files] == ["process-00.json", "process-01.json"]
    content = json.loads(files[1].read_text())
    assert {sample.case for sample in samples_of(1, content)} == CASES


def test_gc_was_off_but_for_the_rows_that_say_so(outcome: tuple[Path, str, str]) -> None:
    folder, _, _ = outcome
    content = json.loads((folder / "bench" / "process-00.json").read_text())
    for entry in content["benchmarks"]:
        assert entry["options"]["disable_gc"] is not entry["extra_info"]["case"]["gc"]


def test_the_record_is_complete(outcome: tuple[Path, str, str]) -> None:
    folder, _, _ = outcome
    document = read_run(folder)
    assert document["kind"] == "bench"
    assert document["config"]["processes"] == 2
    assert folder.name.endswith(document["environment"]["commit"])


def test_tables_go_to_stdout_and_progress_to_stderr(outcome: tuple[Path, str, str]) -> None:
    folder, stdout, stderr = outcome
    assert "Ratios: above 1 the candidate is faster" in stdout
    assert "pycapnp, against orjson" in stdout
    assert stdout.rstrip().endswith(f"Written to results/{folder.name}")
    assert stderr.splitlines()[-1] == "2 of 2 done, about 0 s left"


def test_a_mistake_is_one_line() -> None:
    done = run_rig("bench", "--processes", "0")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
