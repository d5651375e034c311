import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from capnp_rig.rigcli import gc_page
from capnp_rig.rigcli.gc_page import GcPage, GcUse, publish_gc, read_gc


def test_collections_are_counted_and_can_be_read_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    # When the page is made; then start and end of each of three collections.
    times = iter([0, 100, 110, 200, 250, 300, 305])
    # Tests before this one may have left descriptors open.
    monkeypatch.setattr(gc_page, "_FIRST_FDS", range(4096))
    with _no_collections():
        monkeypatch.setattr(time, "perf_counter_ns", lambda: next(times))
        page = GcPage()
        try:
            assert page.use == read_gc(os.getpid()) == GcUse(0, 0, 0)
            for _ in range(3):
                gc.collect(0)
            assert page.use == read_gc(os.getpid()) == GcUse(3, 65, 50)
        finally:
            page.close()


def test_after_its_end_nothing_is_left() -> None:
    callbacks = list(gc.callbacks)
    page = publish_gc()
    assert page is not None
    page.close()
    gc.collect()
    assert gc.callbacks == callbacks
    assert read_gc(os.getpid()) is None


def test_another_process_tells_as_much_as_it_publishes() -> None:
    code = "import gc, sys; from capnp_rig.rigcli.gc_page import GcPage; gc.disable(); "
    published = code + "GcPage(); gc.collect(); gc.collect(); print(flush=True); sys.stdin.read()"
    silent = code + "print(flush=True); sys.stdin.read()"
    for text, count in ((published, 2), (silent, None)):
        with subprocess.Popen(
            [sys.executable, "-P", "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            found = read_gc(process.pid)
            process.communicate(timeout=10)
        assert (None if found is None else found.count) == count
        assert read_gc(process.pid) is None


@pytest.mark.parametrize(
    ("before", "after", "since"),
    [
        (GcUse(1, 50, 50), GcUse(4, 90, 50), GcUse(3, 40, 0)),
        (GcUse(1, 50, 50), GcUse(3, 140, 70), GcUse(2, 90, 70)),
        (GcUse(2, 9, 5), GcUse(2, 9, 5), GcUse(0, 0, 0)),
    ],
)
def test_what_came_since(before: GcUse, after: GcUse, since: GcUse) -> None:
    assert after.since(before) == since


@contextmanager
def _no_collections() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
