"""What the files of the kernel say, literally, and that ours are read."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from deadline import eventually

from capnp_rig.loadtest.engine.kernel_counters import (
    ProcessTable,
    ThreadCounters,
    cpu_seconds,
    involuntary_switches,
    migrations_of,
    pressure_of,
    process_times,
    stat_files,
    throttled,
    throttling,
    waited_ns,
)
from capnp_rig.loadtest.stats.process_use import KernelCounts

needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_files_of_a_thread() -> None:
    assert waited_ns("7956779 20859156 13\n") == 20_859_156
    status = "Name:\tx\nvoluntary_ctxt_switches:\t9\nnonvoluntary_ctxt_switches:\t57\n"
    assert involuntary_switches(status) == 57
    sched = "se.sum_exec_runtime   :   0.18\nse.nr_migrations     :      31\nnr_switches : 1\n"
    assert migrations_of(sched) == 31
    with pytest.raises(LookupError):
        migrations_of("se.sum_exec_runtime   :   0.18\n")


def test_cpu_pressure() -> None:
    some = "some avg10=2.47 avg60=1.33 avg300=0.55 total=19342091\n"
    full = "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    assert pressure_of(some + full) == 19.342091


@pytest.mark.parametrize(
    ("cpu_stat", "counted"),
    [
        ("nr_periods 9\nnr_throttled 4\nthrottled_time 250000000\n", (4, 0.25)),
        ("usage_usec 7\nnr_periods 9\nnr_throttled 4\nthrottled_usec 250000\n", (4, 0.25)),
        # The topmost cgroup of version 2 has no quota.
        ("usage_usec 7\nuser_usec 4\n", None),
    ],
)
def test_throttling_of_both_versions(cpu_stat: str, counted: tuple[int, float] | None) -> None:
    assert throttled(cpu_stat) == counted


_V1 = "30 23 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
_OTHER = "31 23 0:27 / /sys/fs/cgroup/cpuset rw shared:9 - cgroup cgroup rw,cpuset\n"
_V2 = "32 23 0:28 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
_POD = "33 23 0:28 /kube/pod7 /sys/fs/cgroup ro - cgroup2 cgroup ro\n"


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "folders"),
    [
        (
            "3:cpuset:/x\n2:cpu,cpuacct:/a/b\n0::/\n",
            _V1 + _OTHER,
            ["cpu,cpuacct/a/b", "cpu,cpuacct/a", "cpu,cpuacct"],
        ),
        ("0::/a/b\n", _V2, ["a/b", "a", ""]),
        # A container sees its own part of the tree only.
        ("0::/kube/pod7/c1\n", _POD, ["c1", ""]),
        ("0::/../elsewhere\n", _V2, []),
        ("0::/other\n", _POD, []),
        ("", _V1 + _V2, []),
    ],
)
def test_the_cgroups_of_a_process_and_those_above(
    cgroup: str, mountinfo: str, folders: list[str]
) -> None:
    root = Path("/sys/fs/cgroup")
    assert stat_files(cgroup, mountinfo) == [root / folder / "cpu.stat" for folder in folders]


def test_the_times_of_a_process() -> None:
    rest = "S 1 7 7 0 -1 4194560 1 0 0 0 250 50 9 9 20 0 1 0 4242 1 1"
    ticks = os.sysconf("SC_CLK_TCK")
    assert process_times(f"7 (a) (b\x1b) {rest}") == ("a) (b?", 4242, 300 / ticks)


@needs_linux
def test_our_own_files_are_read() -> None:
    counters, pid = ThreadCounters(), os.getpid()
    before, cpu_s = counters.read(pid), cpu_seconds(psutil.Process())
    # As much CPU time as a thread takes that has ended by the next look.
    worker = threading.Thread(target=_burn, args=(0.05,))
    worker.start()
    worker.join()
    after = counters.read(pid)
    assert cpu_seconds(psutil.Process()) - cpu_s >= 0.05
    for now, then in ((after.wait_s, before.wait_s), (after.involuntary, before.involuntary)):
        assert now is not None
        assert then is not None
        assert now >= then
    count, seconds = throttling(pid) or (0, 0.0)
    assert count >= 0
    assert seconds >= 0


def _burn(cpu_s: float) -> None:
    end_s = time.thread_time() + cpu_s
    while time.thread_time() < end_s:
        pass


@needs_linux
def test_a_process_that_is_gone_has_no_counts() -> None:
    child = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitpid(child, 0)
    assert ThreadCounters().read(child) == KernelCounts()


@needs_linux
def test_the_table_of_processes_names_who_was_busy() -> None:
    table = ProcessTable()
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:

        def is_named() -> bool:
            table.read(is_last=True)
            # The machine may have busier ones.
            others = set(psutil.pids()) - {loop.pid}
            return loop.pid in {other.pid for other in table.busiest(others)}

        eventually(is_named, within_s=20)
        # This process is the rig's own, and the loop may be.
        assert os.getpid() not in {other.pid for other in table.busiest([])}
        assert loop.pid not in {other.pid for other in table.busiest([loop.pid])}
    finally:
        loop.kill()
        loop.wait()
