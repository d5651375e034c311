import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running_rig import run_rig

from capnp_rig.loadtest.bench.case_times import CaseTimes, case_times_of
from capnp_rig.loadtest.bench.figures import figures
from capnp_rig.loadtest.bench.plan import (
    ECHOES,
    EMPTY_RPC,
    ORJSON,
    PLANS,
    Case,
    groups,
    memory_cases,
    ratios_of,
)
from capnp_rig.loadtest.bench.process import time_cases, write_frames
from capnp_rig.loadtest.bench.rounds import BenchError
from capnp_rig.loadtest.results import read_run, read_samples
from capnp_rig.loadtest.stats.messages import Message

PLAN = PLANS["tiny"]
CASES = {case for group in groups(PLAN) for case in group}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Run the benchmarks once, in a folder of their own, as briefly as they go."""
    here = tmp_path_factory.mktemp("bench")
    done = run_rig("bench", "--plan", "tiny", cwd=here, within_s=170)
    assert done.returncode == 0, done.stderr
    (folder,) = (here / "results").iterdir()
    return folder, done.stdout, done.stderr


def times_of(plain: Mapping[str, Any]) -> CaseTimes:
    """Return a sample as it was before it was written."""
    case = [plain[name] for name in ("subject", "message", "contract", "size_bytes", "gc")]
    return CaseTimes(
        process=plain["process"],
        position=plain["position"],
        case=Case(*case),
        rounds_s=tuple(plain["rounds_s"]),
        iterations=plain["iterations"],
        void=plain.get("void", ""),
    )


def test_every_figure_can_be_rebuilt_from_what_was_measured(
    outcome: tuple[Path, str, str],
) -> None:
    folder, _, _ = outcome
    samples = [times_of(plain) for plain in read_samples(folder)]
    document = read_run(folder)
    rebuilt = figures(PLAN, samples, document["memory"], document["sizes"])
    assert document["figures"] == [figure.to_json() for figure in rebuilt]
    kinds = {figure.name.partition(":")[0] for figure in rebuilt}
    assert kinds == {
        *("time", "A/A", "ratio", "crossover", "break-even", "memory", "allocated", "size"),
    }


def test_no_codec_is_void(outcome: tuple[Path, str, str]) -> None:
    folder, _, _ = outcome
    voids = [plain for plain in read_samples(folder) if "void" in plain]
    assert voids == []


def test_every_process_timed_every_case(outcome: tuple[Path, str, str]) -> None:
    folder, _, _ = outcome
    samples = [times_of(plain) for plain in read_samples(folder)]
    for process in range(2):
        assert {s.case for s in samples if s.process == process} == CASES
    assert all(len(sample.rounds_s) >= PLAN.min_rounds for sample in samples)


def test_pytest_benchmarks_own_files_are_kept(outcome: tuple[Path, str, str]) -> None:
    folder, _, _ = outcome
    files = sorted((folder / "bench").iterdir())
    assert [file.name for file in files] == ["process-00.json", "process-01.json"]
    content = json.loads(files[1].read_text())
    assert {sample.case for sample in case_times_of(1, content)} == CASES


def test_gc_was_off_but_for_the_rows_that_say_so(outcome: tuple[Path, str, str]) -> None:
    folder, _, _ = outcome
    content = json.loads((folder / "bench" / "process-00.json").read_text())
    for entry in content["benchmarks"]:
        assert entry["options"]["disable_gc"] is not entry["extra_info"]["case"]["gc"]
    assert any(entry["extra_info"]["case"]["gc"] for entry in content["benchmarks"])


def test_a_view_leaves_the_resident_set_as_it_was(outcome: tuple[Path, str, str]) -> None:
    folder, _, _ = outcome
    size = PLAN.memory[Message.TENSOR]
    rises = {
        (one["codec"], one["contract"]): one["rss_bytes"] for one in read_run(folder)["memory"]
    }
    assert rises.keys() == {(case.codec, case.contract) for case in memory_cases(PLAN)}
    assert rises["wire", "open+read one field"] < size / 4
    assert rises["orjson", "open+read one field"] > size


def test_the_record_is_complete(outcome: tuple[Path, str, str]) -> None:
    folder, _, _ = outcome
    document = read_run(folder)
    assert document["kind"] == "bench"
    assert document["config"].items() >= {
        *(("plan", "tiny"), ("processes", 2), ("case_s", 0.001), ("min_rounds", 3)),
    }
    cpus = document["config"]["transport_cpus"]
    assert cpus is None or len(set(cpus)) == 2
    assert "records.capnp" in document["config"]["schema_sha256"]
    assert document["environment"]["codecs"]["protobuf backend"] == "upb"
    codecs = document["environment"]["codecs"]
    # pyarrow need not be.
    assert {name for name, version in codecs.items() if version == "not installed"} <= {"pyarrow"}
    assert folder.name.endswith(document["environment"]["commit"])
    assert {"codec", "path", "copies", "allocated", "is_view", "note"} == set(document["copies"][0])


def test_figures_and_samples_say_what_they_are_of(outcome: tuple[Path, str, str]) -> None:
    folder, _, _ = outcome
    labels = {"codec", "message", "contract", "size_bytes", "k"}
    assert all(labels <= plain.keys() for plain in read_samples(folder))
    for figure in read_run(folder)["figures"]:
        if figure["name"].startswith(("time", "ratio", "A/A")):
            assert labels <= figure["labels"].keys()


def test_tables_go_to_stdout_and_progress_to_stderr(outcome: tuple[Path, str, str]) -> None:
    folder, stdout, stderr = outcome
    assert "tensor, build+encode, by size: times as fast as orjson" in " ".join(stdout.split())
    # Two processes are too few for a verdict, and that is said.
    compared = [
        new.codec
        for group in groups(PLAN)
        for old, _, candidates in ratios_of(group)
        for new in candidates
        if old.subject == ORJSON
    ]
    assert f"wire against orjson: {compared.count('wire')} void." in stdout
    assert "Round trips: times as fast as orjson" in stdout
    for floor in ("memcpy", "empty call", *ECHOES, EMPTY_RPC):
        assert f"│ {floor} " in stdout
    assert stdout.rstrip().endswith(f"Written to results/{folder.name}")
    total = 2 * len(CASES) + len(memory_cases(PLAN)) + len(PLAN.encoded)
    assert stderr.splitlines()[0] == f"0 of {total} done, starting"
    assert stderr.splitlines()[-1] == f"{total} of {total} done, about 0 s left"


def test_a_mistake_is_one_line() -> None:
    done = run_rig("bench", "--processes", "0")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_process_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"(?s)process 3 failed:.*KeyError: 'no such plan'"):
        time_cases(replace(PLAN, name="no such plan"), 3, 0.001, tmp_path / "x.json", print)


def test_a_weighing_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"(?s)weigh_codec .* failed:.*rows of 64 bytes"):
        write_frames("tensor", 100, tmp_path)
