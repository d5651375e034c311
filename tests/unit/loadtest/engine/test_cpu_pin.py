import os
import subprocess
import sys

import pytest

from capnp_rig.loadtest.engine.cpu_pin import PinError, choose_cpu, parse_pin


@pytest.mark.parametrize(
    ("pin", "chosen"),
    [
        # The last CPU first: servers pin from the first one on.
        ("auto", [7, 5, 2, 7]),
        ("3", [3, 3, 3, 3]),
        ("2,3", [2, 3, 2, 3]),
    ],
)
def test_processes_take_turns(pin: str, chosen: list[int]) -> None:
    assert [choose_cpu(pin, number, [2, 5, 7]) for number in range(4)] == chosen


@pytest.mark.parametrize("text", ["", "x", "1,", "-1", "1.5", "AUTO"])
def test_what_names_no_cpu_says_what_is_expected(text: str) -> None:
    with pytest.raises(PinError, match="expected auto, or numbers such as 1 or 2,3"):
        parse_pin(text)


SCRIPT = """
import os, threading
from capnp_rig.loadtest.engine.cpu_pin import pin_process
go = threading.Event()
threading.Thread(target=go.wait).start()
pinned = pin_process({cpu})
tasks = [int(task) for task in os.listdir("/proc/self/task")]
print(pinned, len(tasks), {{cpu for task in tasks for cpu in os.sched_getaffinity(task)}})
go.set()
"""


def test_all_threads_are_pinned() -> None:
    cpu = max(os.sched_getaffinity(0))
    assert _run(cpu) == f"{cpu} 2 {{{cpu}}}"


def test_a_cpu_that_is_not_there_is_reported() -> None:
    assert _run(4095).startswith("None 2 ")


def _run(cpu: int) -> str:
    command = [sys.executable, "-c", SCRIPT.format(cpu=cpu)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
