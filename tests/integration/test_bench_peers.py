from pathlib import Path

import pytest
from click.testing import CliRunner

from capnp_rig.loadtest.bench.peers import BenchPeersConfig, run
from capnp_rig.loadtest.cli.bench import bench_peers
from capnp_rig.loadtest.compare import compare
from capnp_rig.loadtest.engine.progress import Progress
from capnp_rig.loadtest.results.load_samples import read_result
from capnp_rig.loadtest.results.writing import WrittenResult

pytestmark = pytest.mark.timeout(240)


def measured(tmp_path: Path, told: list[Progress]) -> WrittenResult:
    """Return what one short round with the layout of Rust leaves."""
    config = BenchPeersConfig(
        rounds=1, seconds=0.1, warmup_s=0.05, peers=("Rust",), results=tmp_path
    )
    written, early_end = run(config, told.append)
    assert early_end is None
    return written


@pytest.mark.nightly
def test_one_short_round_leaves_a_whole_result(tmp_path: Path) -> None:
    told: list[Progress] = []
    written = measured(tmp_path, told)
    result = read_result(written.folder)
    assert result.kind == "bench-peers"
    (in_memory_ns,) = result.document["in_memory_ns"]
    assert {"Finish: ours", "Release: ours", "reply, 64 in a read: Rust"} < in_memory_ns.keys()
    assert result.samples is not None
    # In two layouts, under two loads, four servers; and the generator, against ours twice.
    assert len(result.samples) == 2 * 2 * 4 + 3
    assert told[-1].done == told[-1].total == len(result.samples) + 1
    for sample in result.samples:
        assert sample["calls"] > 20
        assert 0.05 < sample["seconds"] < 5
        assert 0 < sample["cpu_s"] < 5
        assert 0 < sample["server_cpu_s"] < 5
    names = {figure.name for figure in written.figures}
    assert "Rust, 8 x 16: wire over pycapnp, server CPU per call" in names
    assert "Rust, 1 x 64: loadtest run generator CPU per call" in names
    rows = compare(result, result, force=True).rows
    assert "Rust, 8 x 16: wire server CPU per call" in {row.metric for row in rows}


def test_a_peer_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(bench_peers, ["--peers", "Rust,Zig", "--results", str(tmp_path)])
    assert done.exit_code == 2
    assert (
        "no peer 'Zig': there are pycapnp, C++ 0.9, Go, JavaScript, Rust"
        in done.output.splitlines()[-1]
    )
