"""Which peers are refused because their calls killed workers: a pure policy."""

DEATHS = 2
QUARANTINE_S = 60.0
# A killed worker tells nothing of who killed it: a request whose memory ran out, or an operator
# while it served somebody. A connection that had hardly begun points to the request.
YOUNG_READS = 16


def is_suspect(reads: int, *, was_killed: bool) -> bool:
    """Return whether the call that a worker died in is to blame.

    `reads` counts how often its connection was served, and `was_killed` tells a SIGKILL from an
    end that only the worker itself can bring about.
    """
    return not was_killed or reads <= YOUNG_READS


class Quarantine:
    """The deaths that each origin is to blame for: an address, or the user of a Unix socket."""

    def __init__(self) -> None:
        self._deaths_s: dict[str, list[float]] = {}

    def blame(self, origin: str, now_s: float) -> bool:
        """Count one death; return whether `origin` is refused from now on."""
        self._deaths_s = {
            known: deaths_s
            for known, deaths_s in self._deaths_s.items()
            if now_s < deaths_s[-1] + QUARANTINE_S
        }
        deaths_s = self._deaths_s.setdefault(origin, [])
        deaths_s.append(now_s)
        del deaths_s[:-DEATHS]
        return len(deaths_s) == DEATHS

    def rest_s(self, origin: str, now_s: float) -> float | None:
        """Return for how long `origin` is still refused; None if it is not."""
        deaths_s = self._deaths_s.get(origin, [])
        if len(deaths_s) < DEATHS or now_s >= deaths_s[-1] + QUARANTINE_S:
            return None
        return deaths_s[-1] + QUARANTINE_S - now_s
