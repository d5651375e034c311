"""Benchmarks that are stopped, or whose server dies, keep the rounds that were over."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from capnp_rig.loadtest.bench import locust, server
from capnp_rig.loadtest.bench.rounds import ROLES, BenchError
from capnp_rig.loadtest.engine.child_process import Terminated
from capnp_rig.loadtest.engine.early_end import EarlyEnd
from capnp_rig.loadtest.results.load_samples import read_result
from capnp_rig.loadtest.stats.histogram import Histogram

LOCUST_ROUND = {"seconds": 1.0, "requests": 100, "failures": 0, "cpu_s": 0.5, "server_cpu_s": 0.1}
SERVER_ROUND = (server.Load(100, 1.0, 0.1, Histogram.of([1000] * 100).to_json()), 0.5)
LOCUST = (locust, locust.BenchLocustConfig, LOCUST_ROUND, len(ROLES))
SERVER = (server, server.BenchServerConfig, SERVER_ROUND, len(ROLES) * len(server.LOADS))


@pytest.mark.parametrize(("module", "config", "measured", "per_round"), [LOCUST, SERVER])
@pytest.mark.parametrize(
    ("stop", "end"),
    [
        (KeyboardInterrupt(), EarlyEnd("Ctrl-C", 2)),
        (Terminated(), EarlyEnd("SIGTERM", 15)),
        (BenchError("the server is gone"), EarlyEnd("the server is gone")),
    ],
)
def test_rounds_that_are_over_are_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    config: Callable[..., Any],
    measured: object,
    per_round: int,
    stop: BaseException,
    end: EarlyEnd,
) -> None:
    """And the one that was not is left out; without any the folder goes."""
    monkeypatch.setattr(module, "cpu_each", lambda *_: (0, 1))
    for steps in (2 * per_round + 1, per_round - 1):
        left = [measured] * steps

        def measure(*_: object, left: list[object] = left) -> object:
            if not left:
                raise stop
            return left.pop()

        monkeypatch.setattr(module, "_measure", measure)
        asked = config(rounds=3, results=tmp_path / f"{steps}")
        if steps < per_round:
            with pytest.raises(type(stop)):
                module.run(asked, lambda _progress: None)
            assert list(asked.results.iterdir()) == []
            continue
        written, early_end = module.run(asked, lambda _progress: None)
        assert early_end == end
        result = read_result(written.folder)
        assert result.document["ended_early"] == end.text
        assert result.samples is not None
        assert len(result.samples) == 2 * per_round
