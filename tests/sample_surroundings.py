"""What the machine did to a round of a bench, as its samples have it."""

from capnp_rig.loadtest.stats.disturbance import SERVER, OtherProcess, ProcessWindow, Surroundings
from capnp_rig.loadtest.stats.process_use import KernelCounts


def _beside(wait_s: float) -> Surroundings:
    worker = ProcessWindow(SERVER, "worker 0", 7, 1.0, 0.5, KernelCounts(wait_s))
    return Surroundings((worker,), (OtherProcess("loop", 99, 0.9),))


CALM, DISTURBED = _beside(0.001).to_json(), _beside(0.2).to_json()
