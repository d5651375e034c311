"""``loadtest bench-stacks``, as briefly as it goes."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from capnp_rig.loadtest.bench import stacks as module
from capnp_rig.loadtest.bench.rounds import BenchError
from capnp_rig.loadtest.bench.stacks import (
    QUICK,
    BenchStacksConfig,
    BenchStacksResult,
    run,
)
from capnp_rig.loadtest.bench.stacks_figures import (
    CALLS,
    CLOSED,
    CPU,
    OPEN,
    RATIO_CALLS,
    StackSample,
    figures,
)
from capnp_rig.loadtest.cli.bench import bench_stacks
from capnp_rig.loadtest.engine.progress import Progress
from capnp_rig.loadtest.protocols import STACKS
from capnp_rig.loadtest.results import read_run, read_samples, run_document
from capnp_rig.loadtest.results.load_samples import Result
from capnp_rig.loadtest.results.writing import WrittenResult

pytestmark = pytest.mark.timeout(240)

PAYLOADS = (("text", 32), ("binary", 1 << 18))


def brief(results: Path, *stacks: str, rounds: int = 1) -> BenchStacksConfig:
    return BenchStacksConfig(
        rounds=rounds,
        seconds=0.15,
        warmup_s=0.05,
        stacks=stacks or ("capnp", "echo", "selectors"),
        payloads=PAYLOADS,
        open_bytes=32,
        connections=4,
        results=results,
    )


@pytest.mark.parametrize("rounds", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_short_run_leaves_a_whole_result(tmp_path: Path, rounds: int) -> None:
    told: list[Progress] = []
    result = run(brief(tmp_path, rounds=rounds), told.append)
    document, plain = read_run(result.written.folder), read_samples(result.written.folder)
    assert (document["kind"], document["skipped"]) == ("bench-stacks", {})
    assert document["libraries"]["pycapnp"]
    samples = [StackSample(**one) for one in plain]
    # Two payloads closed, one of them open as well; capnp's second turn closed only.
    assert len(samples) == rounds * (3 * 3 + 2)
    assert [each.done for each in told] == list(range(len(samples) + 1))
    assert (told[0].total, told[-1].left_s) == (len(samples), 0)
    for sample in samples:
        assert sample.failures == {}
        assert sample.connections == {32: 4, 1 << 18: 1}[sample.payload_bytes]
        assert sample.calls > 0
        assert 0.1 < sample.seconds < 2
        assert sample.server_cpu_s is not None
        # On a machine with much else to do, a server may not run at all meanwhile.
        assert 0 <= sample.server_cpu_s < 1
        assert (sample.scheduled is None) == (sample.loop == CLOSED)
    # Half of what the closed loop before it made.
    closed = {(one.round, one.load): one for one in samples if one.loop == CLOSED and not one.again}
    for sample in samples:
        if sample.loop == OPEN:
            load = next(
                load
                for number, load in closed
                if number == sample.round
                and (load.stack, load.payload_kind, load.payload_bytes)
                == (sample.stack, sample.payload_kind, sample.payload_bytes)
            )
            made = closed[sample.round, load]
            assert sample.rate_hz == pytest.approx(made.calls / 0.15 / 2)
    orders = {
        tuple(
            (one.stack, one.again)
            for one in sorted(samples, key=lambda one: one.order)
            if one.round == number and one.loop == CLOSED and one.payload_bytes == 1 << 18
        )
        for number in range(rounds)
    }
    assert {len(order) for order in orders} == {4}
    # Every figure is made of the samples alone.
    assert document["figures"] == json.loads(
        json.dumps([one.to_json() for one in figures(samples)])
    )
    ratio = next(one for one in result.written.figures if one.labels["figure"] == RATIO_CALLS)
    assert (ratio.verdict, ratio.labels["baseline"]) == ("void", "selectors")


@pytest.mark.parametrize(
    "stack",
    [
        "json",
        "http2",
        *(pytest.param(each, marks=pytest.mark.nightly) for each in ("http1", "grpc")),
    ],
)
def test_every_other_stack_is_driven(tmp_path: Path, stack: str) -> None:
    result = run(brief(tmp_path, stack), lambda _progress: None)
    if result.skipped:
        pytest.skip(str(result.skipped))
    for name in (CALLS, CPU):
        found = [one for one in result.written.figures if one.labels["figure"] == name]
        assert len(found) == 3
        assert all(one.value for one in found)


def test_a_stack_that_cannot_be_had_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = module.server_options
    monkeypatch.setattr(
        module,
        "server_options",
        lambda stack, kind: ["--stack", "none"] if stack == "echo" else served(stack, kind),
    )
    monkeypatch.setattr(
        module, "missing_library", lambda stack: "hpack" if stack == "http2" else None
    )
    told: list[Progress] = []
    result = run(brief(tmp_path, "selectors", "echo", "http2"), told.append)
    assert result.skipped.keys() == {"echo", "http2"}
    assert "pip install" in result.skipped["http2"]
    assert "did not start" in result.skipped["echo"]
    assert {one.labels["stack"] for one in result.written.figures} == {"selectors"}
    assert read_run(result.written.folder)["skipped"] == result.skipped
    assert told[-1].done == told[-1].total == 3


def test_a_server_that_does_not_start_later_makes_its_figures_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve, started = module.running_server, []

    def one_start(**options: Any) -> Any:
        started.append(options)
        return serve(**{**options, "options": ["--stack", "none"]} if started[1:] else options)

    monkeypatch.setattr(module, "running_server", one_start)
    result = run(brief(tmp_path, "selectors", rounds=2), lambda _progress: None)
    assert (result.skipped, result.stopped) == ({}, None)
    found = [one for one in result.written.figures if one.labels["figure"] == CALLS]
    assert len(found) == 3
    for figure in found:
        assert figure.verdict == "void"
        assert "ServerFailed: the server did not start" in figure.reason


def test_a_run_that_is_stopped_keeps_the_rounds_that_are_over(tmp_path: Path) -> None:
    def stop_in_the_second_round(progress: Progress) -> None:
        if progress.done == 4:
            raise KeyboardInterrupt

    result = run(brief(tmp_path, "selectors", rounds=3), stop_in_the_second_round)
    assert isinstance(result.stopped, KeyboardInterrupt)
    assert result.rounds == read_run(result.written.folder)["rounds"] == 1
    samples = [StackSample(**one) for one in read_samples(result.written.folder)]
    assert [sample.round for sample in samples] == [0, 0, 0]
    assert list(result.written.figures) == figures(samples)


def test_a_run_that_is_stopped_in_its_first_round_has_no_result(tmp_path: Path) -> None:
    def stop(_progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(brief(tmp_path, "selectors"), stop)


def test_a_stopped_run_is_shown_and_ends_as_the_signal_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Result(run_document("bench-stacks", {}, {}, []), [])
    stopped = BenchStacksResult(WrittenResult(tmp_path, (), result), {}, 2, KeyboardInterrupt())
    monkeypatch.setattr(module, "run", lambda *_: stopped)
    done = CliRunner().invoke(bench_stacks, [])
    assert "Stopped after 2 of 12 rounds" in done.output
    assert done.exit_code == 1
    assert "Aborted!" in done.output


def test_without_a_server_of_capnp_there_is_nothing_to_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "server_options", lambda *_: ["--stack", "none"])
    with pytest.raises(BenchError, match="capnp: the server did not start"):
        run(brief(tmp_path, "capnp"), lambda _progress: None)


def test_quick_is_six_rounds_of_few_payloads() -> None:
    config = BenchStacksConfig(**QUICK, connections=8)
    assert (config.rounds, config.connections, config.stacks) == (6, 8, STACKS)
    assert len(config.payloads) == 2


@pytest.mark.nightly
def test_the_command_prints_ladders(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        bench_stacks,
        [
            *("--rounds", "1", "--seconds", "0.1", "--stacks", "selectors,echo"),
            *("--payloads", "binary:32,64KiB", "--connections", "2", "--results", str(tmp_path)),
        ],
    )
    assert done.exit_code == 0, done.output
    (folder,) = tmp_path.iterdir()
    for said in (
        "32 B of binary, closed loop, 2 x 1",
        "64 KiB of text, closed loop",
        "64 KiB of binary, closed loop",
        "32 B of binary, open loop",
        "│ selectors │",
        "│ echo ",
        "Void figures, ",
        f"Written to {folder}",
    ):
        assert said in done.output
    assert "32 B of text" not in done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--stacks", "capnp,rest"], "no stack 'rest'"),
        (["--payloads", "32,huge"], "bad payload 'huge'"),
        (["--payloads", "picture:32"], "bad payload 'picture:32'"),
        (["--rounds", "0"], "0"),
    ],
)
def test_a_mistake_is_told(options: list[str], said: str) -> None:
    done = CliRunner().invoke(bench_stacks, options)
    assert done.exit_code == 2
    assert said in done.output
