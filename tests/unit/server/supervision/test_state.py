from dataclasses import replace

from capnp_rig.server.supervision.state import WorkerState, worker_text

WORKER = WorkerState(
    name="Worker 1 (pid 7)",
    worker=1,
    pid=7,
    phase="serving",
    core=3,
    connections=5,
    calls=1234,
    running=2,
    method="Shop.search",
    blocked_s=1.5,
    age_s=60.4,
    missed_beats=6,
    rss_bytes=40 << 20,
)


def test_a_worker_is_told_in_one_line() -> None:
    assert worker_text(WORKER) == (
        "Worker 1 (pid 7) serving: 5 connections, 1234 calls served, 2 running, in Shop.search "
        "for 1.5 s, up 60 s, 6 missed beats, 40 MiB, core 3"
    )


def test_what_is_not_known_is_left_out() -> None:
    bare = replace(WORKER, calls=None, running=None, method=None, core=None, missed_beats=0)
    assert worker_text(bare) == (
        "Worker 1 (pid 7) serving: 5 connections, up 60 s, 0 missed beats, 40 MiB"
    )
