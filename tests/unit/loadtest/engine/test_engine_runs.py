"""What the engines' parent makes of a signal."""

import pytest

from capnp_rig.loadtest.engine import engine_runs
from capnp_rig.loadtest.engine.child_process import Terminated
from capnp_rig.loadtest.engine.engine_runs import run_engines
from capnp_rig.loadtest.engine.process import EngineConfig, EngineResult
from capnp_rig.loadtest.stats.tally import Tally


class _ClosedEngine:
    """An engine that has closed its window, and does not notice that it is asked to."""

    pid = 1
    answered = 0
    is_ready = True
    is_running = True

    def __init__(self, _config: EngineConfig, _stack: object) -> None:
        pass

    def go(self) -> None:
        pass

    def stop(self) -> None:
        self.is_running = False

    def result(self) -> EngineResult:
        report = Tally(is_open_loop=False).take(cpu_ns=0, final=True)
        return EngineResult(report, seconds=1.0, busy=0.5)


@pytest.mark.parametrize("signalled", [KeyboardInterrupt, Terminated])
def test_a_signal_that_comes_after_the_window_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, signalled: type[BaseException]
) -> None:
    monkeypatch.setattr(engine_runs, "_Engine", _ClosedEngine)

    def interrupt(_seconds: float, _calls: int) -> None:
        raise signalled

    run = run_engines([EngineConfig("unix:/nowhere")], tell=interrupt)

    assert run.interrupted
