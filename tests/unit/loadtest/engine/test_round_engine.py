import subprocess
import sys
import threading

import pytest

from capnp_rig.loadtest.engine.round_engine import RoundEngine


def test_a_signal_while_the_timer_of_an_answer_starts_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(threading.Timer):
        def start(self) -> None:
            super().start()
            # A signal's handler raises here as a rule: it waits for the thread.
            raise KeyboardInterrupt

    monkeypatch.setattr(threading, "Timer", Interrupted)
    before = threading.active_count()
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        with pytest.raises(KeyboardInterrupt):
            RoundEngine(process, timeout_s=0).leave()
        process.kill()
    for thread in threading.enumerate():
        if isinstance(thread, Interrupted):
            thread.join(5)
    assert threading.active_count() == before
