import errno
from argparse import Namespace

import psutil
import pytest

from capnp_rig.loadtest.locust_rig.process_recorder import ProcessRecorder


def test_a_process_out_of_open_files_still_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = ProcessRecorder(Namespace(rate=None))

    def refuse(_process: psutil.Process) -> None:
        raise OSError(errno.EMFILE, "Too many open files", "/proc/1/statm")

    monkeypatch.setattr(psutil.Process, "memory_info", refuse)
    report = recorder.take(is_last=True)
    # That of its start.
    assert len(report.use) == 1
    assert report.seconds > 0
