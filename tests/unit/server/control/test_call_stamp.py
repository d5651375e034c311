import os
import subprocess
import sys

from capnp_rig.server.control.call_stamp import (
    MARK,
    MAX_READS,
    METHODS,
    RESUMES,
    RUNNING,
    STEPS,
    StampPage,
    Work,
    mark_of,
    open_stamp,
)


def test_what_a_process_writes_is_read_after_its_death() -> None:
    page = StampPage()
    try:
        assert page.read() == (0, 0)
        script = (
            "import os, sys; "
            "from capnp_rig.server.control.call_stamp import MARK, MAX_READS, mark_of, open_stamp; "
            "stamp = open_stamp(int(sys.argv[1])); stamp[MARK] = mark_of(1 << 40, 7); os.abort()"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(page.fd)],
            pass_fds=[page.fd],
            check=False,
            timeout=20,
            preexec_fn=no_core,
        )
        assert done.returncode < 0
        assert page.read() == (1 << 40, 7)
    finally:
        page.close()


def no_core() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def test_a_view_outlives_its_descriptor() -> None:
    page = StampPage()
    stamp = open_stamp(os.dup(page.fd))
    stamp[MARK] = mark_of(5, 1_000)
    assert page.read() == (5, MAX_READS)
    page.close()
    stamp[MARK] = mark_of(6, 1)


def test_a5_the_work_of_a_worker() -> None:
    page = StampPage()
    stamp = open_stamp(os.dup(page.fd))
    assert page.work() == Work()
    stamp[METHODS], stamp[STEPS + 1], stamp[STEPS + 3] = 3, 8, 9
    # Nobody is served: the call is over.
    assert page.work() == Work(step=0, method=3, calls=9)
    stamp[MARK], stamp[RESUMES], stamp[RUNNING] = mark_of(1, 1), 2, 4
    assert page.work() == Work(step=9, method=3, calls=7, running=4)
    assert page.method(3) == "a method"
    page.close()


def test_unfinished_calls_are_those_lost_by_a_kill() -> None:
    assert Work().unfinished == 0
    assert Work(step=1).unfinished == 1
    assert Work(running=3).unfinished == 3
