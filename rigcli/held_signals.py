"""SIGINT and SIGTERM, kept back while something must not be left half done."""

import signal
from types import FrameType

_HELD = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """Both signals, kept back from now until `release`. Main thread only."""

    def __init__(self) -> None:
        # Those that came, in order.
        self.came: list[int] = []
        self._before = {number: signal.signal(number, self._hold) for number in _HELD}

    def _hold(self, number: int, _frame: FrameType | None) -> None:
        self.came.append(number)

    def release(self, *, raises: bool = True) -> None:
        """Let signals do again what they did before; those that came are raised now, or dropped."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for came in self.came if raises else ():
            signal.raise_signal(came)
