"""When a peer cancels too much of what it starts: a pure policy.

A Call with a Finish behind it costs the peer far less than the server (rapid reset,
CVE-2023-44487). An ordinary client with a short deadline sends such pairs, too, but they are a
smaller share of its calls. The rule is Envoy's since 1.24.11 (premature resets): a connection is
closed when more than half of its calls were cancelled within a second of their start, once there
were 500.
"""

MIN_CALLS = 500
EARLY_S = 1.0


class EarlyCancels:
    """The share of early cancels among the latest calls of one connection.

    Both counts are halved at 2 x `MIN_CALLS` calls, so that a long good past does not count.
    """

    __slots__ = ("_calls", "_cancels")

    def __init__(self) -> None:
        self._calls = 0
        self._cancels = 0

    def count(self, calls: int = 1) -> None:
        """Count calls that were started, or answered on the spot."""
        self._calls += calls
        while self._calls >= 2 * MIN_CALLS:
            self._calls //= 2
            self._cancels //= 2

    def cancelled(self, age_s: float) -> bool:
        """Count a call cancelled `age_s` seconds after its start; return whether to close."""
        if age_s < EARLY_S:
            self._cancels += 1
        return self._calls >= MIN_CALLS and 2 * self._cancels > self._calls
