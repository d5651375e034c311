"""How long the clients wait, in seconds, and which timeouts they accept."""

from numbers import Real

from capnp_rig.objects.errors import UsageError

CONNECT_TIMEOUT_S = 1.0
CALL_TIMEOUT_S = 15.0
# A year: what the clocks of sockets, threads and event loops all take.
MAX_TIMEOUT_S = 365 * 86_400.0


def check_timeout(timeout_s: float) -> float:
    """Return a timeout as a float; 0 is over at once.

    Raises:
        UsageError: It is no number, negative, not finite, or longer than a year.
    """
    if isinstance(timeout_s, Real):
        try:
            seconds = float(timeout_s)
        except OverflowError:
            seconds = MAX_TIMEOUT_S * 2
        # Not true of NaN.
        if 0 <= seconds <= MAX_TIMEOUT_S:
            return seconds
    raise UsageError(f"a timeout is 0 to {MAX_TIMEOUT_S:.0f} seconds, not {timeout_s!r}")
