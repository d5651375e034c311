"""What the engines' parent makes of a signal."""

import pytest

from capnp_rig.loadtest.engine import engine_runs
from capnp_rig.loadtest.engine.child_process import Terminated
from capnp_rig.loadtest.engine.engine_runs import EngineFailed, run_engines
from capnp_rig.loadtest.engine.process import EngineConfig, EngineResult
from capnp_rig.loadtest.stats.reasons import text_of
from capnp_rig.loadtest.stats.run_summary import summarize
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


class _LosingEngine(_ClosedEngine):
    """One of several engines: those with an odd number are lost."""

    is_running = False

    def __init__(self, config: EngineConfig, _stack: object) -> None:
        self._number = config.number

    def result(self) -> EngineResult:
        if self._number % 2:
            raise EngineFailed("the engine was ended by SIGKILL")
        return super().result()


def test_what_the_other_engines_measured_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_runs, "_Engine", _LosingEngine)
    found = run_engines([EngineConfig("unix:/nowhere", number=number) for number in range(3)])
    assert len(found.results) == 2
    assert found.lost == ("engine 1 of 3: the engine was ended by SIGKILL",)
    assert text_of(summarize([found.part]).reasons).startswith(f"lost in the run: {found.lost[0]}")


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_without_any_engine_failed(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(engine_runs, "_Engine", _LosingEngine)
    with pytest.raises(EngineFailed, match="the engine was ended by SIGKILL"):
        run_engines([EngineConfig("unix:/nowhere", number=1) for _ in range(count)])
