"""What holds for every test."""

import signal

from hypothesis import HealthCheck, settings

# How long an example takes says more of the machine, which may be busy, than of the code.
settings.register_profile("rig", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rig")

# A shell starts what runs in the background with Ctrl-C ignored, and our commands would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
