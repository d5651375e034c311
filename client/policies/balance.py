"""Which endpoint gets an attempt."""

import math
import random
from collections.abc import Sequence

from capnp_rig.client.policies.endpoint import Endpoint
from capnp_rig.client.policies.policy import Attempt, Policy
from capnp_rig.objects.errors import RemoteError, UsageError

_DECAY_S = 10.0
# What an endpoint counts that has been asked and has never answered.
_UNKNOWN_S = 1.0
# What a failure counts: about what it costs a call that is tried again after a pause.
_FAILURE_S = 0.1


class RoundRobin(Policy):
    """Takes the endpoints in turn."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, endpoints: Sequence[Endpoint], now_s: float) -> Endpoint:
        """Return the next one."""
        self._turn += 1
        return endpoints[self._turn % len(endpoints)]


class Balance(Policy):
    """Takes the less loaded of two random endpoints: power of two choices on peak EWMA.

    The load of an endpoint is its latency times the attempts that would be in flight there. The
    latency is an average that forgets with the time constant `decay_s`, and goes up to a longer
    latency at once: Finagle's peak EWMA, Tower's `load::peak_ewma`. A failure counts as a tenth of
    a second in that average, or as long as it took: a server that loses a call now and then is not
    as bad as one that is always slow. Without new answers the latency decays to 0, so that an
    endpoint that was slow is asked again.
    """

    __slots__ = ("_decay_s", "_random")

    def __init__(
        self, decay_s: float = _DECAY_S, *, random_source: random.Random | None = None
    ) -> None:
        """Forget with a time constant of `decay_s` seconds, above 0.

        Raises:
            UsageError: It is 0, negative or not finite.
        """
        if not (math.isfinite(decay_s) and decay_s > 0):
            raise UsageError(f"a balance decays in more than 0 seconds, not {decay_s}")
        self._decay_s = decay_s
        self._random = (random_source or random.Random()).random

    def choose(self, endpoints: Sequence[Endpoint], now_s: float) -> Endpoint:
        """Return the less loaded of two."""
        count = len(endpoints)
        if count == 1:
            return endpoints[0]
        first = int(self._random() * count)
        # Any other one.
        second = (first + 1 + int(self._random() * (count - 1))) % count
        one, other = endpoints[first], endpoints[second]
        return one if self.load(one, now_s) <= self.load(other, now_s) else other

    def load(self, endpoint: Endpoint, now_s: float) -> float:
        """Return the load of an endpoint in seconds, of which only the order means something."""
        latency_s = endpoint.latency_s
        if latency_s is None:
            return _UNKNOWN_S * endpoint.in_flight
        decayed_s = latency_s * math.exp((endpoint.measured_s - now_s) / self._decay_s)
        return decayed_s * (endpoint.in_flight + 1)

    def ended(self, attempt: Attempt) -> None:
        """Learn from an attempt how long its endpoint takes."""
        endpoint, now_s = attempt.endpoint, attempt.ended_s
        assert now_s is not None
        took_s = now_s - attempt.started_s
        latency_s, error = endpoint.latency_s, attempt.error
        has_failed = error is not None and (error.did_not_run or not isinstance(error, RemoteError))
        if latency_s is None:
            took_s = max(took_s, _FAILURE_S) if has_failed else took_s
        elif has_failed or took_s < latency_s:
            if attempt.was_given_up:
                # It would have taken longer.
                return
            kept = math.exp((endpoint.measured_s - now_s) / self._decay_s)
            if took_s < latency_s:
                took_s += (latency_s - took_s) * kept
            if has_failed:
                took_s = max(took_s, _FAILURE_S + (latency_s - _FAILURE_S) * kept)
        endpoint.latency_s = took_s
        endpoint.measured_s = now_s
