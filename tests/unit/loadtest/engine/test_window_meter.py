import os
import time

from capnp_rig.loadtest.engine.window_meter import WindowMeter
from capnp_rig.loadtest.stats.disturbance import GENERATOR, SERVER, Surroundings


def test_a_window_has_what_both_sides_used_in_it() -> None:
    meter = WindowMeter("load", [os.getpid()])
    meter.open()
    until_s = time.process_time() + 0.02
    while time.process_time() < until_s:
        pass
    used = meter.close()
    # It is its own server here.
    assert 0.02 <= used["cpu_s"] < 5
    assert 0.02 <= used["server_cpu_s"] < 5
    assert 0.02 <= used["seconds"] < 60
    windows = Surroundings.from_json(used["surroundings"]).processes
    assert [(each.role, each.name) for each in windows] == [
        (SERVER, "process 0"),
        (GENERATOR, "load"),
    ]


def test_without_a_server_none_was_used() -> None:
    meter = WindowMeter("load", [])
    meter.open()
    assert meter.close()["server_cpu_s"] == 0
